"""One line of operations, one after the other or side by side: when each was meant to start, did start, and ended.

The hot loop only stores numbers in arrays that stand ready; everything is counted after the run.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.record import ABSENT
from loadgen.workloads.draws import Operations

NS = 1e9


class Outcome(IntEnum):
    """How an operation ended; the first ones are `record.Source`. Below 0: an error, by its number."""

    UNFINISHED = 0
    HIT = 1
    FILLED = 2
    JOINED = 3
    STALE = 4
    STORE = 5
    OTHER = 6
    LOCAL = 7
    MISS = 8
    """The cache has it not (`wire`, which has no store)."""
    WRITTEN = 9
    MANY = 10
    """Several keys; where each came from is in `Lane.sources`."""


SOURCES = {one: one.name.lower() for one in Outcome if Outcome.UNFINISHED < one < Outcome.WRITTEN}
"""Outcomes of reads, by name."""


class Lane:
    """The operations of one thread, connection or event loop, and what became of them."""

    def __init__(self, operations: Operations, *, in_order: bool) -> None:
        self.operations = operations
        self.in_order = in_order
        """One after the other: an operation can begin only when the one before has ended."""
        count = len(operations)
        self.start_ns = array("q", bytes(8 * count))
        self.end_ns = array("q", bytes(8 * count))
        self.outcome = array("b", bytes(count))
        self.stamp = array("q", [ABSENT]) * count
        """The stamp of what a read returned, where there is an oracle."""
        self.sources: Counter[tuple[int, int]] = Counter()
        """Of operations of several keys: second and outcome."""
        self.errors: list[str] = []
        self.at_ns: NDArray[np.int64] = np.zeros(count, dtype=np.int64)

    def begin(self, start_ns: int) -> None:
        """Give every operation its intended start."""
        self.at_ns = start_ns + (self.operations.at_s * NS).astype(np.int64)

    def failed(self, error: BaseException | str) -> int:
        """The outcome of an error: its type's number, below 0."""
        name = error if isinstance(error, str) else type(error).__name__
        if name not in self.errors:
            if len(self.errors) == -int(np.iinfo(np.int8).min):
                name = self.errors[-1]
            else:
                self.errors.append(name)
        return -1 - self.errors.index(name)

    # --- after the run ------------------------------------------------------------------------------

    def columns(self) -> dict[str, NDArray[np.int64]]:
        """Start, end and outcome as numbers; 0 where it never came so far."""
        return {
            "start": np.frombuffer(self.start_ns, dtype=np.int64),
            "end": np.frombuffer(self.end_ns, dtype=np.int64),
            "outcome": np.frombuffer(self.outcome, dtype=np.int8).astype(np.int64),
            "stamp": np.frombuffer(self.stamp, dtype=np.int64),
        }

    def due_ns(self) -> NDArray[np.int64]:
        """When each operation would have begun with a generator that costs nothing and is never late.

        Where they come one after the other that is Lindley's recursion, of what the target took: at its
        intended start, or when the one before would have ended. What an actual start is later than this,
        the generator alone has caused; a pause of it delays also those that queued behind it.
        """
        if not self.in_order or not len(self.at_ns):
            return self.at_ns
        columns = self.columns()
        # An operation that never began or never ended delays nothing that this could still tell.
        took = np.where(columns["end"] > 0, columns["end"] - columns["start"], 0)
        before = np.concatenate(([0], np.cumsum(took)[:-1]))
        due: NDArray[np.int64] = before + np.maximum.accumulate(self.at_ns - before)
        return due


Call = Callable[[int, Any], int]
"""Do one operation, told its place in the lane and its key (or keys); its outcome."""
