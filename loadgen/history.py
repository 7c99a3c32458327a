"""Everything that was read and written, put together from the files of all workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from loadgen.record import READ_FIELDS, WRITE_FIELDS

Numbers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads, a column each; times in nanoseconds of the monotonic clock."""

    subject: Numbers
    key: Numbers
    intended: Numbers
    start: Numbers
    end: Numbers
    version: Numbers
    stamp: Numbers
    source: Numbers
    thread: Numbers

    def __len__(self) -> int:
        return len(self.key)

    def where(self, chosen: Flags) -> Reads:
        """Some of them."""
        return Reads(*(getattr(self, name)[chosen] for name in self.__slots__))

    def of(self, subject: int) -> Reads:
        """Those of one subject."""
        return self.where(self.subject == subject)


@dataclass(frozen=True, slots=True)
class Writes:
    """Writes, a column each, in no order. `end` is 0 for a write that was cut off."""

    subject: Numbers
    key: Numbers
    stamp: Numbers
    how: Numbers
    gone: Numbers
    status: Numbers
    version: Numbers
    start: Numbers
    end: Numbers

    def __len__(self) -> int:
        return len(self.key)

    def where(self, chosen: Flags) -> Writes:
        """Some of them."""
        return Writes(*(getattr(self, name)[chosen] for name in self.__slots__))

    def of(self, subject: int) -> Writes:
        """Those of one subject."""
        return self.where(self.subject == subject)


@dataclass(frozen=True, slots=True)
class History:
    """One run. `probes` are the reads by which the probers watched their own writes."""

    reads: Reads
    probes: Reads
    writes: Writes


def load(folder: Path) -> History:
    """What the workers have left in the run's folder."""
    return History(_reads(folder, "reads"), _reads(folder, "probes"), _writes(folder))


def reads_of(rows: Numbers) -> Reads:
    """Reads from rows in the order of `READ_FIELDS`, then the thread."""
    return Reads(*rows.reshape(-1, len(READ_FIELDS) + 1).T)


def writes_of(rows: Numbers) -> Writes:
    """Writes from rows in the order of `WRITE_FIELDS`; of two rows with one stamp the one with the end counts."""
    rows = rows.reshape(-1, len(WRITE_FIELDS))
    stamps, statuses = rows[:, WRITE_FIELDS.index("stamp")], rows[:, WRITE_FIELDS.index("status")]
    rows = rows[np.lexsort((statuses, stamps))]
    stamps = rows[:, WRITE_FIELDS.index("stamp")]
    last = np.append(stamps[1:] != stamps[:-1], True) if len(rows) else np.zeros(0, dtype=np.bool_)
    return Writes(*rows[last].T)


def _reads(folder: Path, kind: str) -> Reads:
    parts = [np.zeros((0, len(READ_FIELDS) + 1), dtype=np.int64)]
    for path in sorted(folder.glob(f"{kind}-*.npy")):
        rows = np.load(path)
        thread = int(path.stem.partition("-")[2])
        parts.append(np.column_stack((rows, np.full(len(rows), thread, dtype=np.int64))))
    return reads_of(np.concatenate(parts))


def _writes(folder: Path) -> Writes:
    parts = [np.zeros(0, dtype=np.int64)]
    parts += [np.fromfile(path, dtype=np.int64) for path in sorted(folder.glob("writes-*.bin"))]
    return writes_of(np.concatenate(parts))
