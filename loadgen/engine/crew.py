"""The coordinator's side of the workers: starts them, hears them, ends them whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from cachelib.errors import CacheError
from loadgen.engine.frames import Beat, Block, Channel, Done, Failed, Go, Hello, Ready, Second
from loadgen.engine.worker import GRACE_S
from loadgen.pinning import pinned
from loadgen.plan import RunPlan

READY_S = 180.0
"""Drawing the schedule of a long run takes a while."""
REPORT_S = 120.0
HEAD_START_NS = 300_000_000
"""Between the order to start and the start, so that every worker has it in time."""
TICK_S = 0.5


class WorkerLost(CacheError):
    """A worker did not start."""


@dataclass(slots=True)
class Heard:
    """What one worker has said."""

    ready: Ready | None = None
    beats: list[Beat] = field(default_factory=list)
    seconds: list[Second] = field(default_factory=list)
    logs: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    done: Done | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """All workers together, for whoever watches. `late_ms` and `p99_ms` are those of the worst worker."""

    at_s: float
    length_s: float
    done: int
    offered: int
    errors: int
    late_ms: float
    p99_ms: float
    cores: float


class Member:
    """One worker process."""

    def __init__(self, hello: Hello, folder: Path) -> None:
        self.number = hello.worker
        self.heard = Heard()
        self._log = folder / f"worker-{self.number}.log"
        with self._log.open("ab") as log, pinned(hello.plan.pins.generator):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadgen.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.tell(hello)

    def tell(self, frame: Hello | Go) -> None:
        """A worker that is gone is noticed by whoever waits for it."""
        try:
            self._channel.send(frame)
        except OSError:
            pass

    def _listen(self) -> None:
        heard = self.heard
        while (frame := self._channel.receive()) is not None:
            match frame:
                case Ready():
                    heard.ready = frame
                case Beat():
                    heard.beats.append(frame)
                case Second():
                    heard.seconds.append(frame)
                case Block(log=log, rows=rows):
                    heard.logs[log].append(rows)
                case Done():
                    heard.done = frame
                case Failed(why=why):
                    heard.failed = why

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """It runs, or has more to say."""
        return self._process.poll() is None or self._listener.is_alive()

    def last_words(self) -> str:
        """Why it ended, as far as it is known."""
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        code = self._process.poll()
        if self.heard.failed:
            return self.heard.failed
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return text.splitlines()[-1] if text else f"it said nothing (exit code {code})"

    def end(self) -> None:
        """End its input, wait a little, then kill it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it is gone already
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        self._process.stdout.close()


class Crew:
    """All workers of a run, from their start to their end."""

    def __init__(self, plan: RunPlan, run: int = 0) -> None:
        self._plan, self._run = plan, run
        self._folder = tempfile.TemporaryDirectory(prefix="loadgen-crew-")
        self.members: list[Member] = []
        self.start_ns = 0

    def __enter__(self) -> Self:
        try:
            for number in range(self._plan.processes):
                self.members.append(Member(Hello(self._plan, number, self._run), Path(self._folder.name)))
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        for member in self.members:
            while member.heard.ready is None:
                if not member.alive or time.monotonic() > deadline:
                    raise WorkerLost(f"worker {member.number} did not start: {member.last_words()}")
                time.sleep(0.01)

    def start(self) -> int:
        """Order the shared start; the moment on the monotonic clock."""
        self.start_ns = time.monotonic_ns() + HEAD_START_NS
        for member in self.members:
            member.tell(Go(self.start_ns))
        return self.start_ns

    def wait(self, tick: Callable[[Progress], None]) -> list[str]:
        """Until every worker has reported or is gone. What was lost, in sentences."""
        deadline = time.monotonic() + self._plan.length_s + GRACE_S + REPORT_S
        while any(member.alive and member.heard.done is None for member in self.members):
            if time.monotonic() > deadline:
                return self.lost() + self._silent()
            if self.lost():
                break  # the rest measured a smaller load than was asked: no need to wait for it
            time.sleep(0.02 if self._over else TICK_S)
            tick(self.progress())
        return self.lost()

    @property
    def _over(self) -> bool:
        return time.monotonic_ns() > self.start_ns + int(self._plan.length_s * 1e9)

    def lost(self) -> list[str]:
        """Workers that ended without their report, in sentences."""
        # In this order: who is gone has said all that it will say.
        gone = [member for member in self.members if not member.alive and member.heard.done is None]
        return [f"worker {member.number} was lost: {member.last_words()}" for member in gone]

    def _silent(self) -> list[str]:
        """Workers that still run and have not reported in all the time there was: what they did nobody knows."""
        hang = [member for member in self.members if member.heard.done is None and member.alive]
        after_s = GRACE_S + REPORT_S
        return [f"worker {member.number} was lost: it did not report within {after_s:g} s" for member in hang]

    def progress(self) -> Progress:
        """As of the last beats."""
        beats = [member.heard.beats[-1] for member in self.members if member.heard.beats]
        ready = [member.heard.ready for member in self.members if member.heard.ready]
        return Progress(
            at_s=(time.monotonic_ns() - self.start_ns) / 1e9,
            length_s=self._plan.length_s,
            done=sum(beat.done for beat in beats),
            offered=sum(one.offered for one in ready),
            errors=sum(beat.errors for beat in beats),
            late_ms=max((beat.late_ms for beat in beats), default=0.0),
            p99_ms=max((beat.p99_ms for beat in beats), default=0.0),
            cores=sum(_cores(member.heard.beats) for member in self.members),
        )

    def close(self) -> None:
        """End whatever still runs."""
        for member in self.members:
            member.end()
        self._folder.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cores(beats: list[Beat]) -> float:
    """Between the last two beats."""
    if len(beats) < 2 or beats[-1].at_s <= beats[-2].at_s:
        return 0.0
    return (beats[-1].cpu_s - beats[-2].cpu_s) / (beats[-1].at_s - beats[-2].at_s)


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
