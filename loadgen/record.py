"""What each operation leaves behind: eight numbers for a read, in memory; ten for a write, in a file.

Reads are many, and a reader that is killed takes them with it. Writes are few, and a writer that
is killed must leave what it began: a write is noted before it starts and again when it ended,
with one `write` to the file each, which survives the process.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

STAMP_BITS = 32
ABSENT: Final = -1
"""The stamp of a row that does not exist."""
WRONG: Final = -2
"""The stamp of a value of another key."""


def stamp_of(writer: int, seq: int) -> int:
    """One number for a writer's write; 0 for rows as they were filled."""
    return writer << STAMP_BITS | seq


class Source(IntEnum):
    """Where a read's value came from; the names are `cachelib.Read.source`."""

    ERROR = 0
    HIT = 1
    FILLED = 2
    JOINED = 3
    STALE = 4
    STORE = 5
    OTHER = 6


SOURCES: Final[dict[str, int]] = {one.name.lower(): int(one) for one in Source}


class How(IntEnum):
    """Who wrote: the library, or SQL that it does not see, of the load or of a prober."""

    LIBRARY = 0
    BEHIND = 1
    PROBE = 2


class Status(IntEnum):
    """How a write ended. Only `ACKNOWLEDGED` promises anything; `BEGUN` was cut off."""

    BEGUN = 0
    ACKNOWLEDGED = 1
    UNCONFIRMED = 2
    """Committed, but the cache did not say that it knows."""
    UNKNOWN = 3
    """The store did not say whether it committed."""
    REFUSED = 4
    """Not committed."""
    NOTHING = 5
    """There was no row to change."""


READ_FIELDS: Final = ("subject", "key", "intended", "start", "end", "version", "stamp", "source")
WRITE_FIELDS: Final = ("subject", "key", "stamp", "how", "gone", "status", "version", "start", "end")


class ReadLog:
    """The reads of one thread."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self.add = self._numbers.extend
        """Eight numbers in the order of `READ_FIELDS`."""

    def save(self, path: Path) -> None:
        """Write them where `history` finds them."""
        numbers: NDArray[np.int64] = np.frombuffer(self._numbers, dtype=np.int64)
        np.save(path, numbers.reshape(-1, len(READ_FIELDS)))


class WriteLog:
    """The writes of one thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def begun(self, subject: int, key: int, stamp: int, how: How, *, gone: bool, start_ns: int) -> None:
        """Before anything is sent. `gone`: a delete."""
        self._note(subject, key, stamp, how, int(gone), Status.BEGUN, 0, start_ns, 0)

    def ended(
        self, subject: int, key: int, stamp: int, how: How, *, gone: bool, times: tuple[int, int], result: Result
    ) -> None:
        """After it was acknowledged, or failed."""
        self._note(subject, key, stamp, how, int(gone), result.status, result.version, *times)

    def _note(self, *numbers: int) -> None:
        os.write(self._file, array("q", numbers).tobytes())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class Result:
    """How a write ended, the version that it made (0: unknown or none), and what was raised."""

    status: Status
    version: int = 0
    error: BaseException | None = None


class Counts:
    """What one thread has done so far, for the live view: read by another thread without a lock."""

    __slots__ = ("by_source", "errors", "late_ns_max", "writes")

    def __init__(self) -> None:
        self.by_source = [0] * len(Source)
        self.writes = 0
        self.errors: dict[str, int] = {}
        self.late_ns_max = 0

    def failed(self, error: BaseException) -> None:
        """Count an error by its type."""
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1
