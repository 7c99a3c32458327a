"""Starts workers, gives them their shift, gathers their counts, and ends them whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from cachelib.errors import CacheError
from loadgen.record import Source
from loadgen.worker import Role, WorkerSpec, line_of

READY_S = 60.0
FINISH_S = 30.0
STACKS_S = 0.3
HEAD_START_NS = 300_000_000
"""Between the order to start and the start, so that every worker has it in time."""


class WorkerFailed(CacheError):
    """A worker did not start, or ended before its time."""


class Worker:
    """One worker process, as the coordinator sees it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.frame: dict[str, Any] = {}
        self.done = False
        self.killed = False
        """On purpose."""
        self._ready = False
        self._log = Path(spec.folder) / f"worker-{spec.number}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadgen.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._listener = Thread(target=self._listen, daemon=True)
        self._tell(line_of(spec))
        self._listener.start()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone; whoever waits for it will say so

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "ready" in said:
                self._ready = True
            else:
                self.frame = said
                self.done = bool(said.get("done"))

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """The process is there."""
        return self._process.poll() is None

    @property
    def lost(self) -> bool:
        """It is gone before its time: neither killed on purpose nor done. What it said last is heard out first."""
        if self.alive or self.killed:
            return False
        self._listener.join()
        return not self.done

    def wait_ready(self) -> None:
        """Until it has its connections and keys. Raises `WorkerFailed`."""
        deadline = time.monotonic() + READY_S
        while not self._ready:
            if not self.alive or time.monotonic() > deadline:
                raise WorkerFailed(f"worker {self.spec.number} ({self.spec.role}) did not start: {self.last_words()}")
            time.sleep(0.02)

    def start(self, start_ns: int, end_ns: int) -> None:
        """Give it its shift."""
        self._tell(json.dumps({"start_ns": start_ns, "end_ns": end_ns}))

    def stop(self) -> None:
        """End its shift: it saves its records and ends."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # it is gone already

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self.killed = True
        self._process.kill()
        self._gone()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; whether it ended well."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGUSR1)  # it writes all its stacks to its log
            time.sleep(STACKS_S)
            self.kill()
            return False
        self._gone()
        return self.done

    def _gone(self) -> None:
        self._process.wait()
        self._listener.join()
        self.stop()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def log(self) -> str:
        """What it wrote on standard error."""
        return self._log.read_text(errors="replace").strip()

    def last_words(self) -> str:
        """The last line of its log."""
        text = self.log()
        return text.splitlines()[-1] if text else "it said nothing"


@dataclass(slots=True)
class Progress:
    """What all workers together have done so far."""

    by_source: list[int] = field(default_factory=lambda: [0] * len(Source))
    probe_reads: int = 0
    writes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def reads(self) -> int:
        """Of the readers, without the probers'."""
        return sum(self.by_source)

    @property
    def hit_ratio(self) -> float:
        """The share of the readers' reads that were hits."""
        return self.by_source[Source.HIT] / max(1, self.reads)


class Fleet:
    """All workers of a run."""

    def __init__(self, specs: Sequence[WorkerSpec]) -> None:
        self.workers: list[Worker] = []
        self._buried: list[Worker] = []
        self._next = max(spec.number for spec in specs) + 1
        self._end_ns = 0
        self._specs = specs

    def __enter__(self) -> Self:
        try:
            for spec in self._specs:
                self.workers.append(Worker(spec))
            for worker in self.workers:
                worker.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def start(self, seconds: float) -> tuple[int, int]:
        """Begin; start and end of the shift on the monotonic clock."""
        start_ns = time.monotonic_ns() + HEAD_START_NS
        self._end_ns = start_ns + int(seconds * 1e9)
        for worker in self.workers:
            worker.start(start_ns, self._end_ns)
        return start_ns, self._end_ns

    def replace(self, worker: Worker) -> Worker:
        """A new worker in the place of one that was killed, for the rest of the shift."""
        self.workers.remove(worker)
        self._buried.append(worker)
        # A number of its own: its stamps must not be those of the dead one.
        new = Worker(replace(worker.spec, number=self._next))
        self._next += 1
        self.workers.append(new)
        new.wait_ready()
        new.start(time.monotonic_ns(), self._end_ns)
        return new

    def of_role(self, role: Role) -> list[Worker]:
        """The workers that do this."""
        return [worker for worker in self.workers if worker.spec.role == role]

    def run(self, every_s: float, tick: Callable[[Progress], None]) -> None:
        """Until the shift is over; `tick` is called again and again. Raises `WorkerFailed`."""
        while time.monotonic_ns() < self._end_ns:
            left_s = (self._end_ns - time.monotonic_ns()) / 1e9
            time.sleep(max(0.0, min(every_s, left_s)))
            for worker in self.workers:
                if worker.lost:
                    raise WorkerFailed(f"worker {worker.spec.number} ended early: {worker.last_words()}")
            tick(self.progress())

    def finish(self) -> Progress:
        """Wait until every worker has left its records. Raises `WorkerFailed`."""
        for worker in self.workers:
            if not worker.join(FINISH_S):
                failure = WorkerFailed(f"worker {worker.spec.number} left no records: {worker.last_words()}")
                failure.add_note(worker.log())  # shown with --debug
                raise failure
        return self.progress()

    def progress(self) -> Progress:
        """The counts so far, those of killed workers included as far as they were told."""
        sum_of = Progress()
        for worker in [*self.workers, *self._buried]:
            frame, role = worker.frame, worker.spec.role
            if not frame:
                continue
            if role == "read":
                sum_of.by_source = [a + b for a, b in zip(sum_of.by_source, frame["by_source"], strict=True)]
            sum_of.probe_reads += sum(frame["by_source"]) if role == "probe" else 0
            sum_of.writes[role] += frame["writes"]
            sum_of.errors.update(frame["errors"])
            sum_of.counters.update(frame["counters"])
        return sum_of

    def close(self) -> None:
        """End whatever still runs."""
        for worker in [*self.workers, *self._buried]:
            if worker.alive:
                worker.kill()
            else:
                worker.join(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
