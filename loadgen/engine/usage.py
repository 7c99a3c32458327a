"""Processor and memory of the servers behind a target, and what others take of the machine, sampled during a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import psutil

from loadgen.result import Usage

MB = 1024 * 1024


class Sampler:
    """`pids`: by name. A process that has ended is left out from then on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items() if psutil.pid_exists(pid)}
        self._samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in self._processes}

    def sample(self, at_s: float) -> None:
        """Now, `at_s` after the shared start."""
        for name, process in self._processes.items():
            try:
                used, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:
                continue  # killed by a fault, or by itself; whoever started it says so
            self._samples[name].append((at_s, used.user + used.system, memory.rss / MB))

    def usage(self, from_s: float, to_s: float) -> dict[str, Usage]:
        """Over this time."""
        return {name: self._of(name, from_s, to_s) for name, samples in self._samples.items() if samples}

    def _of(self, name: str, from_s: float, to_s: float) -> Usage:
        at_s, cpu_s, rss_mb = np.asarray(self._samples[name]).T
        used = float(np.diff(np.interp([from_s, to_s], at_s, cpu_s))[0])
        # Samples do not reach to both ends: what they cover is what the processor seconds belong to.
        covered = min(to_s, float(at_s[-1])) - max(from_s, float(at_s[0]))
        return Usage(self._processes[name].pid, round(used / covered, 3) if covered > 0 else 0.0, float(rss_mb.max()))


class Others:
    """Processor time of everything that is no part of the run: all that was used or stolen, less the run's own.

    `pids`: of the run. Interrupts are nobody's; waiting for a disk is no use of a processor.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._own = {pid: psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)}
        self._own_s = dict.fromkeys(self._own, 0.0)
        """Of each; one that has ended keeps what it had used."""
        self._samples: list[tuple[float, float]] = []

    def sample(self, at_s: float) -> None:
        """Now, `at_s` after the shared start."""
        for pid, process in self._own.items():
            try:
                used = process.cpu_times()
            except psutil.Error:
                continue
            self._own_s[pid] = used.user + used.system
        machine = psutil.cpu_times()
        busy_s = machine.user + getattr(machine, "nice", 0.0) + machine.system + getattr(machine, "steal", 0.0)
        self._samples.append((at_s, busy_s - sum(self._own_s.values())))

    def by_second(self, seconds: int) -> list[float]:
        """Processors that others used in each second since the shared start."""
        if not self._samples:
            return [0.0] * seconds
        at_s, used_s = np.asarray(self._samples).T
        used = np.diff(np.interp(np.arange(seconds + 1, dtype=np.float64), at_s, used_s))
        return [max(0.0, round(float(one), 3)) for one in used]
