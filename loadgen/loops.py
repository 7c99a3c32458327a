"""What one thread of a worker does until its time is over: read, write, or probe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import numpy as np

from cachelib.errors import CacheUnavailable
from loadgen.arrivals import CLOSED, schedule
from loadgen.record import Counts, How, ReadLog, Result, Source, Status, WriteLog, stamp_of
from loadgen.tables import Subject
from loadgen.targets.stamped import Behind, Target
from loadgen.workloads.popularity import Zipf, choices

now_ns = time.monotonic_ns
"""CLOCK_MONOTONIC: one clock for all processes of a machine."""

LONG_WAIT_S = 0.05
"""Longer waits are cut short by a stop."""
PROBE_RANK = 100
"""Probe keys are from here on in popularity: read by others too, but not the hottest."""
PROBE_KEYS = 16
POLL_S = 0.003
PROBE_GIVEN_UP_S = 30.0
REINSERT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Shift:
    """When a worker's threads run."""

    start_ns: int
    end_ns: int
    stop: Event

    def wait_until(self, at_ns: int) -> bool:
        """Sleep until then. False: the time is over."""
        if at_ns >= self.end_ns:
            self.stop.wait(max(0.0, (self.end_ns - now_ns()) / 1e9))
            return False
        left_s = (at_ns - now_ns()) / 1e9
        if left_s > LONG_WAIT_S:
            self.stop.wait(left_s)
        elif left_s > 0:
            time.sleep(left_s)
        return not self.stop.is_set()


@dataclass(frozen=True, slots=True)
class Work:
    """What a thread works on. `keys` and `zipfs` by subject; `shares`: how much each subject gets."""

    target: Target
    subjects: Sequence[Subject]
    keys: Sequence[Sequence[str]]
    zipfs: list[Zipf]
    shares: list[float]
    rate_per_s: float
    arrivals: str
    random: np.random.Generator
    folder: Path
    thread: int
    """A number that no other thread of the run has, from 1 on."""
    gone_share: float
    store_url: str

    def choices(self) -> Iterator[tuple[int, int]]:
        """Which subject and key each operation takes."""
        return choices(self.zipfs, self.shares, self.random)

    def schedule(self, shift: Shift) -> Iterator[int]:
        """When each operation is to start."""
        return schedule(self.arrivals, self.rate_per_s, shift.start_ns, self.random)


class Loop(Protocol):
    """One thread's work."""

    counts: Counts

    def run(self, shift: Shift) -> None:
        """Until the shift is over."""

    def save(self) -> None:
        """Leave the records where `history` finds them."""


class Reader:
    """Reads, open or closed loop."""

    def __init__(self, work: Work) -> None:
        self.counts = Counts()
        self._work = work
        self._log = ReadLog()

    def run(self, shift: Shift) -> None:
        """See `Loop.run`."""
        work, counts = self._work, self.counts
        shift.wait_until(shift.start_ns)
        for intended_ns, (subject, key) in zip(work.schedule(shift), work.choices(), strict=False):
            if not shift.wait_until(intended_ns if intended_ns != CLOSED else now_ns()):
                return
            start_ns = now_ns()
            source = read_once(work, self._log, counts, subject, key, intended_ns, start_ns)[1]
            counts.by_source[source] += 1

    def save(self) -> None:
        """See `Loop.save`."""
        self._log.save(self._work.folder / f"reads-{self._work.thread}.npy")


def read_once(
    work: Work, log: ReadLog, counts: Counts, subject: int, key: int, intended_ns: int, start_ns: int
) -> tuple[int, int]:
    """One read, recorded; its version and source."""
    try:
        version, stamp, source = work.target.read(work.subjects[subject], work.keys[subject][key])
    except Exception as error:  # noqa: BLE001 - whatever a target raises is a finding, by its type
        counts.failed(error)
        version, stamp, source = 0, 0, int(Source.ERROR)
    log.add(
        (subject, key, intended_ns if intended_ns != CLOSED else start_ns, start_ns, now_ns(), version, stamp, source)
    )
    return version, source


class Pen:
    """One thread's writes, each noted before and after. `how`: through the library or behind it."""

    def __init__(self, work: Work, how: How) -> None:
        self._work = work
        self._how = how
        self._seq = 0
        self._log = WriteLog(work.folder / f"writes-{work.thread}.bin")
        self._behind = Behind(work.store_url) if how is not How.LIBRARY else None

    def write(self, counts: Counts, subject: int, key: int, *, gone: bool) -> Result:
        """One write."""
        work = self._work
        self._seq += 1
        stamp = stamp_of(work.thread, self._seq)
        start_ns = now_ns()
        self._log.begun(subject, key, stamp, self._how, gone=gone, start_ns=start_ns)
        hand: Behind | Target = self._behind or work.target
        try:
            result = hand.write(work.subjects[subject], work.keys[subject][key], work.thread, self._seq, gone=gone)
        except Exception as error:  # noqa: BLE001 - nobody knows whether it was committed: so it is recorded
            result = Result(Status.UNKNOWN, 0, error)
        times = start_ns, now_ns()
        self._log.ended(subject, key, stamp, self._how, gone=gone, times=times, result=result)
        counts.writes += 1
        if result.error is not None:
            counts.failed(result.error)
        return result

    def close(self) -> None:
        """Close file and connection."""
        self._log.close()
        if self._behind is not None:
            self._behind.close()


class Writer:
    """Writes through the library, or behind it; now and then a delete, and later the row again."""

    def __init__(self, work: Work, how: How) -> None:
        self.counts = Counts()
        self._work = work
        self._how = how

    def run(self, shift: Shift) -> None:
        """See `Loop.run`."""
        work, pen = self._work, Pen(self._work, self._how)
        gone_rows: list[tuple[int, int]] = []
        shift.wait_until(shift.start_ns)
        for intended_ns, (subject, key) in zip(work.schedule(shift), work.choices(), strict=False):
            if not shift.wait_until(intended_ns if intended_ns != CLOSED else now_ns()):
                break
            gone = bool(work.random.random() < work.gone_share)
            if gone:
                gone_rows.append((subject, key))
            elif gone_rows and work.random.random() < REINSERT_SHARE:
                subject, key = gone_rows.pop(0)
            pen.write(self.counts, subject, key, gone=gone)
        pen.close()

    def save(self) -> None:
        """See `Loop.save`: writes are in their file already."""


class Evictor:
    """Makes the cache lose keys, so that loads race with writes also where everything would be a hit."""

    def __init__(self, work: Work) -> None:
        self.counts = Counts()
        self._work = work

    def run(self, shift: Shift) -> None:
        """See `Loop.run`."""
        work = self._work
        shift.wait_until(shift.start_ns)
        for intended_ns, (subject, key) in zip(work.schedule(shift), work.choices(), strict=False):
            if not shift.wait_until(intended_ns if intended_ns != CLOSED else now_ns()):
                return
            try:
                work.target.evict(work.subjects[subject], work.keys[subject][key])
            except CacheUnavailable as error:
                self.counts.failed(error)

    def save(self) -> None:
        """See `Loop.save`: nothing was read or written."""


class Prober:
    """Changes a key behind the library, and looks until the change can be seen; again and again."""

    def __init__(self, work: Work) -> None:
        self.counts = Counts()
        self._work = work
        self._log = ReadLog()
        self._subject = next(number for number, subject in enumerate(work.subjects) if subject.behind)

    def run(self, shift: Shift) -> None:
        """See `Loop.run`."""
        work, pen = self._work, Pen(self._work, How.PROBE)
        ranks = work.zipfs[self._subject].by_rank
        first = (PROBE_RANK + work.thread * PROBE_KEYS) % max(1, len(ranks) - PROBE_KEYS)
        keys = [int(key) for key in ranks[first : first + PROBE_KEYS]]
        shift.wait_until(shift.start_ns)
        for number, intended_ns in enumerate(work.schedule(shift)):
            if not shift.wait_until(intended_ns if intended_ns != CLOSED else now_ns()):
                break
            key = keys[number % len(keys)]
            self._look(key)  # an uncached key would be seen at once, and tell nothing
            result = pen.write(self.counts, self._subject, key, gone=False)
            if result.status is Status.ACKNOWLEDGED:
                self._watch(shift, key, result.version)
        pen.close()

    def _look(self, key: int) -> int:
        start_ns = now_ns()
        return read_once(self._work, self._log, self.counts, self._subject, key, start_ns, start_ns)[0]

    def _watch(self, shift: Shift, key: int, version: int) -> None:
        given_up_ns = now_ns() + int(PROBE_GIVEN_UP_S * 1e9)
        while self._look(key) < version and now_ns() < given_up_ns:
            if not shift.wait_until(now_ns() + int(POLL_S * 1e9)):
                return

    def save(self) -> None:
        """See `Loop.save`."""
        self._log.save(self._work.folder / f"probes-{self._work.thread}.npy")
