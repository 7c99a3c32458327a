"""The hot loop of a thread: wait for the intended start, do it, note when; again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadgen.engine.lane import Call, Lane
from loadgen.workloads.workload import MULTIGET, SCAN

CHUNK = 2048
"""Numbers become Python's a chunk at a time: all at once would cost ten times their memory."""
NAP_S = 0.05
"""Longer waits are cut short by a stop."""
now_ns = time.monotonic_ns


class Shift:
    """How long lanes may work: until `deadline_ns`, which a stop moves into the past."""

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns

    def stop(self) -> None:
        """At once."""
        self.deadline_ns = 0

    def wait_until(self, at_ns: int) -> int:
        """Sleep until then; the time now, or -1: stopped."""
        while (left_ns := at_ns - now_ns()) > 0:
            if self.deadline_ns < at_ns:
                return -1
            time.sleep(min(left_ns / 1e9, NAP_S))
        return now_ns()


def run_open(lane: Lane, calls: Sequence[Call], shift: Shift) -> None:
    """Each operation at its intended start, or as soon as the one before has ended."""
    starts, ends, outcomes = lane.start_ns, lane.end_ns, lane.outcome
    failed, wait_until, now = lane.failed, shift.wait_until, now_ns
    clock = now()
    for first in range(0, len(lane.operations), CHUNK):
        for place, at, call, key in _chunk(lane, calls, first):
            if at > clock:
                clock = now()
                if at > clock:
                    clock = wait_until(at)
                    if clock < 0:
                        return
            starts[place] = clock
            try:
                outcome = call(place, key)
            except Exception as error:  # noqa: BLE001 - whatever a target raises is a finding, by its type
                outcome = failed(error)
            ends[place] = clock = now()
            outcomes[place] = outcome
        if clock > shift.deadline_ns:
            return


def run_closed(lane: Lane, calls: Sequence[Call], shift: Shift, end_ns: int) -> None:
    """Each operation when the one before has ended, until the end: it was meant to start when it did."""
    starts, ends, outcomes, now = lane.start_ns, lane.end_ns, lane.outcome, now_ns
    clock = now()
    for first in range(0, len(lane.operations), CHUNK):
        for place, _, call, key in _chunk(lane, calls, first):
            starts[place] = clock
            try:
                outcome = call(place, key)
            except Exception as error:  # noqa: BLE001 - see above
                outcome = lane.failed(error)
            ends[place] = clock = now()
            outcomes[place] = outcome
            if clock >= end_ns:
                return
        if clock > shift.deadline_ns:
            return


def _chunk(lane: Lane, calls: Sequence[Call], first: int) -> zip[tuple[int, int, Call, Any]]:
    """The next operations: place, intended start, what to call, with what."""
    last = min(first + CHUNK, len(lane.operations))
    kinds = lane.operations.kind[first:last].tolist()
    keys = keys_of(lane, first, last)
    at = lane.at_ns[first:last].tolist()
    return zip(range(first, last), at, [calls[kind] for kind in kinds], keys, strict=True)


def keys_of(lane: Lane, first: int, last: int) -> list[Any]:
    """The key of each operation; of those that ask several, a list of them."""
    operations = lane.operations
    bounds = operations.first[first : last + 1]
    keys: list[Any] = operations.keys[bounds[:-1]].tolist()
    kinds = operations.kind[first:last]
    for place in np.flatnonzero((kinds == MULTIGET) | (kinds == SCAN)).tolist():
        keys[place] = operations.keys[bounds[place] : bounds[place + 1]].tolist()
    return keys
