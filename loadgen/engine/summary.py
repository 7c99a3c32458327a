"""From what the workers said to the record of the run."""

from __future__ import annotations

import platform
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from math import ceil

import numpy as np
import psutil

from loadgen.engine.crew import Heard, processors
from loadgen.engine.frames import Beat, Part, Second
from loadgen.engine.tally import histogram_of
from loadgen.histogram import Histogram
from loadgen.plan import RunPlan
from loadgen.result import Host, Latency, Operation, Usage, Window

MB = 1024 * 1024
PACKAGES = ("leasecache", "numpy", "hdrhistogram", "redis", "hiredis", "pymemcache")


def windows_of(plan: RunPlan, heard: Sequence[Heard]) -> list[Window]:
    """Each second of the load, all workers together."""
    by_second: dict[int, list[Second]] = {}
    for one in heard:
        for second in one.seconds:
            # The last operation of a closed loop may begin a moment after the end.
            if second.at_s < plan.length_s:
                by_second.setdefault(second.at_s, []).append(second)
    ended: Counter[int] = Counter()
    for one in heard:
        ended.update(one.done.ended if one.done else {})
    cores = cores_by_second([one.beats for one in heard], ceil(plan.length_s))
    return [_window(plan, at_s, by_second[at_s], ended[at_s], cores[at_s]) for at_s in sorted(by_second)]


def _window(plan: RunPlan, at_s: int, seconds: Sequence[Second], ended: int, cores: float) -> Window:
    lag = Histogram.sum_of(histogram_of(second.lag) for second in seconds)
    sources: Counter[str] = Counter()
    for second in seconds:
        sources.update(second.sources)
    late_ms = lag.percentile_ms(99)
    # Closed loops have no intended starts to be late for.
    too_late = plan.loop == "open" and late_ms > plan.lag_p99_ms_max
    return Window(
        at_s=at_s,
        phase="measured" if at_s >= measured_from(plan) else "warmup",
        operations=_operations([second.operations for second in seconds]),
        sources=dict(sources),
        lag=Latency.of(lag),
        invalid=f"the generator began {late_ms:.1f} ms late (p99; {plan.lag_p99_ms_max:g} allowed)" if too_late else "",
        stale=0,
        checked=0,
        origin_reads=0,
        origin_writes=0,
        generator_cores=round(float(cores), 3),
        ended=ended,
    )


def measured_from(plan: RunPlan) -> int:
    """The first second that counts."""
    return ceil(plan.warmup_s)


def measured_seconds(plan: RunPlan) -> float:
    """How long the seconds that count are together."""
    return plan.length_s - measured_from(plan)


def _operations(parts: Iterable[Mapping[str, Part]]) -> dict[str, Operation]:
    by_name: dict[str, list[Part]] = {}
    for part in parts:
        for name, one in part.items():
            by_name.setdefault(name, []).append(one)
    return {name: _operation(every) for name, every in by_name.items()}


def _operation(parts: Sequence[Part]) -> Operation:
    errors: Counter[str] = Counter()
    for part in parts:
        errors.update(part.errors)
    return Operation(
        offered=sum(part.offered for part in parts),
        achieved=sum(part.achieved for part in parts),
        errors=dict(errors),
        latency=Latency.of(Histogram.sum_of(histogram_of(part.latency) for part in parts)),
        service=Latency.of(Histogram.sum_of(histogram_of(part.service) for part in parts)),
    )


def sum_of(windows: Sequence[Window]) -> dict[str, Operation]:
    """Of these seconds together, by operation."""
    names = dict.fromkeys(name for window in windows for name in window.operations)
    return {name: _sum([w.operations[name] for w in windows if name in w.operations]) for name in names}


def _sum(parts: Sequence[Operation]) -> Operation:
    errors: Counter[str] = Counter()
    for part in parts:
        errors.update(part.errors)
    return Operation(
        sum(part.offered for part in parts),
        sum(part.achieved for part in parts),
        dict(errors),
        Latency.of(Histogram.sum_of(part.latency.histogram for part in parts)),
        Latency.of(Histogram.sum_of(part.service.histogram for part in parts)),
    )


def why_invalid(plan: RunPlan, windows: Sequence[Window], drawn: int) -> list[str]:
    """Why the run says nothing, as far as its seconds tell. `drawn`: how many operations there were to do."""
    if plan.loop == "closed" and sum(window.offered for window in windows) >= drawn > 0:
        return [f"the closed loop had done all {drawn:,} operations before its time was over: give a higher rate"]
    measured = [window for window in windows if window.phase == "measured"]
    if not measured:
        return ["nothing was measured: no operation was meant to start after the warm-up"]
    bad = [window for window in measured if window.invalid]
    if len(bad) > plan.invalid_share_max * len(measured):
        return [
            f"{len(bad)} of {len(measured)} measured seconds say nothing, the first at {bad[0].at_s} s:"
            f" {bad[0].invalid}. Offer less, use more processes, or a quieter machine"
        ]
    return []


# --- machine and processes ------------------------------------------------------------------------


def cores_by_second(beats: Sequence[Sequence[Beat]], seconds: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Processor seconds of all workers in each second, from what their beats tell."""
    edges = np.arange(seconds + 1, dtype=np.float64)
    total = np.zeros(seconds)
    for own in beats:
        if own:
            total += np.diff(np.interp(edges, [beat.at_s for beat in own], [beat.cpu_s for beat in own]))
    return total


def usage_of(plan: RunPlan, heard: Heard) -> Usage:
    """What one worker cost over the measured seconds."""
    pid = heard.ready.pid if heard.ready else 0
    if not heard.beats:
        return Usage(pid, 0.0, 0.0)
    cores = cores_by_second([heard.beats], ceil(plan.length_s))[measured_from(plan) :]
    return Usage(pid, round(float(cores.mean()), 3) if len(cores) else 0.0, max(beat.rss_mb for beat in heard.beats))


def host() -> Host:
    """This machine."""
    memory_mb = psutil.virtual_memory().total // MB
    return Host(socket.gethostname(), f"{platform.system()} {platform.release()}", processors(), memory_mb)


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter here, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
