"""Who breaks what, and when: kill -9 at planned or random moments, and a new start after a while."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from cachelib.errors import CacheError
from loadgen.result import Mark
from loadgen.runner import Fleet
from loadgen.stage import Stage
from loadgen.visibility import Outage


class _Breaker(ABC):
    """A thread that breaks things while the block runs; what goes wrong in it is raised at the end."""

    def __init__(self, stage: Stage, said: Callable[[str], None]) -> None:
        self.outages: list[Outage] = []
        self.marks: list[Mark] = []
        """What was done, and when, from the start of the load."""
        self._start_ns = 0
        self._stage = stage
        self._said = said
        self._stop = Event()
        self._error: CacheError | None = None

    @contextmanager
    def during(self, fleet: Fleet, start_ns: int, end_ns: int) -> Iterator[None]:
        """See `scenario.Director.during`."""
        self._start_ns = start_ns
        thread = Thread(target=self._guarded, args=(fleet, start_ns, end_ns), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def _guarded(self, fleet: Fleet, start_ns: int, end_ns: int) -> None:
        try:
            self._break(fleet, start_ns, end_ns)
        except CacheError as error:
            self._error = error

    @abstractmethod
    def _break(self, fleet: Fleet, start_ns: int, end_ns: int) -> None:
        """What is broken between the start and the end of the load; returns when it is mended."""

    def _mark(self, kind: str, text: str) -> None:
        self.marks.append(Mark(round((time.monotonic_ns() - self._start_ns) / 1e9, 3), kind, text))
        self._said(text)

    def _pause(self, seconds: float) -> bool:
        """Wait; False where the load has ended meanwhile."""
        return not self._stop.wait(max(0.0, seconds))

    def _invalidator_out(self, seconds: float) -> None:
        daemon = self._stage.invalidator
        if daemon is None:
            return
        down_ns = time.monotonic_ns()
        daemon.kill()
        self._mark("invalidator killed", f"kill -9 of the invalidator; it comes back after {seconds:.1f} s")
        self._stop.wait(seconds)
        started_ns = time.monotonic_ns()
        daemon.start()  # also where the load has ended: the cache has to settle
        ready_ns = time.monotonic_ns()
        self.outages.append(Outage(down_ns, started_ns, ready_ns))
        self._mark("invalidator back", f"the invalidator is back, ready after {(ready_ns - started_ns) / 1e9:.1f} s")


class OneOutage(_Breaker):
    """The demonstration's: the invalidator is killed half-way and started again after `seconds`."""

    def __init__(self, stage: Stage, said: Callable[[str], None], seconds: float) -> None:
        super().__init__(stage, said)
        self._seconds = seconds

    def _break(self, fleet: Fleet, start_ns: int, end_ns: int) -> None:
        half_ns = (start_ns + end_ns) // 2
        if self._pause((half_ns - time.monotonic_ns()) / 1e9):
            self._invalidator_out(self._seconds)


class Killer(_Breaker):
    """At random moments: the invalidator, the cache server, a writer. The seed replays the plan, not the timing."""

    def __init__(self, stage: Stage, said: Callable[[str], None], seed: int, every_s: tuple[float, float]) -> None:
        super().__init__(stage, said)
        self._random = random.Random(seed)
        self._every_s = every_s
        self.kills: Counter[str] = Counter()

    def _break(self, fleet: Fleet, start_ns: int, end_ns: int) -> None:
        victims: list[tuple[str, Callable[[Fleet], None]]] = [
            ("invalidator", self._kill_invalidator),
            ("cache", self._kill_cache),
            ("writer", self._kill_writer),
        ]
        self._pause((start_ns - time.monotonic_ns()) / 1e9)
        while self._pause(self._random.uniform(*self._every_s)):
            # Each once in random order, so that a short run has them all.
            if not victims:
                break
            self._random.shuffle(victims)
            for number, (name, kill) in enumerate(victims):
                if number and not self._pause(self._random.uniform(*self._every_s)):
                    return
                kill(fleet)
                self.kills[name] += 1

    def _kill_invalidator(self, _: Fleet) -> None:
        self._invalidator_out(self._random.uniform(0.1, 2.0))

    def _kill_cache(self, _: Fleet) -> None:
        server = self._stage.server
        if server is None:
            return
        down_s = self._random.uniform(0.0, 1.0)
        server.kill()
        self._mark("cache killed", f"kill -9 of the cache server; it comes back empty after {down_s:.1f} s")
        self._stop.wait(down_s)
        server.start()

    def _kill_writer(self, fleet: Fleet) -> None:
        writer = self._random.choice(fleet.of_role("write"))
        writer.kill()
        self._mark("writer killed", f"kill -9 of writer process {writer.spec.number}; another takes its place")
        fleet.replace(writer)
