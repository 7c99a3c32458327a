"""What reads and writes of the library leave for the oracle, as rows of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.engine.lane import Lane, Outcome
from loadgen.record import READ_FIELDS, How, Result, Status
from loadgen.workloads.sizes import Sizes
from loadgen.workloads.workload import GET, LONE_GET

OF_A_SOURCE = (Outcome.HIT, Outcome.LOCAL)
UNKNOWN_VERSION = 0
SHOWN = "\0shown"
"""A field of a value that was returned before; no column is called so."""


def shown_before(value: dict[str, Any]) -> bool:
    """Whether this very object was returned before: then it is a copy that the process kept. Marks it.

    What a cache server answers is decoded into an object of its own each time, so all but one of the reads that
    return it, in whichever thread, were served from the copy; and no listener is told of those.
    """
    mark = object()
    return value.setdefault(SHOWN, mark) is not mark


def read_rows(lane: Lane, subject: Sizes, thread: int) -> bytes:
    """`READ_FIELDS` and the thread, of every single read that ended. Versions follow from the stamps later."""
    columns, operations = lane.columns(), lane.operations
    single = (operations.kind == GET) | (operations.kind == LONE_GET)
    outcome = columns["outcome"]
    chosen = single & (outcome > 0) & (outcome < Outcome.WRITTEN)
    key = operations.key[chosen]
    table: NDArray[np.int64] = np.stack(
        (
            subject[key],
            key,
            lane.at_ns[chosen],
            columns["start"][chosen],
            columns["end"][chosen],
            np.full(len(key), UNKNOWN_VERSION, dtype=np.int64),
            columns["stamp"][chosen],
            outcome[chosen],
            np.full(len(key), thread, dtype=np.int64),
        ),
        axis=1,
    )
    assert table.shape[1] == len(READ_FIELDS) + 1
    return table.tobytes()


def write_row(at: Sequence[int], how: How, *, gone: bool, result: Result, times: tuple[int, int]) -> tuple[int, ...]:
    """`WRITE_FIELDS`; `at`: subject, key and stamp."""
    return (*at, how, int(gone), result.status, result.version, *times)


def begun_row(at: Sequence[int], how: How, *, gone: bool, start_ns: int) -> tuple[int, ...]:
    """The same of a write that has not ended: what the oracle must count with if it never does."""
    return (*at, how, int(gone), Status.BEGUN, 0, start_ns, 0)


def joined(logs: Sequence[array[int]]) -> bytes:
    """Several logs as one."""
    return b"".join(log.tobytes() for log in logs)
