"""Answers at once: what is measured is the generator, and its ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.engine.lane import Call, Lane, Outcome
from loadgen.engine.pace import Shift
from loadgen.targets.base import lanes_of, run_threads
from loadgen.workloads.draws import Operations
from loadgen.workloads.workload import DELETE, INSERT, OPERATIONS, RMW, SET


class Null:
    """See `Target`."""

    def __init__(self, operations: Operations, threads: int) -> None:
        self.lanes: Sequence[Lane] = lanes_of(operations, threads, in_order=True)
        writes = (SET, INSERT, RMW, DELETE)
        self._calls: list[Call] = [_write if kind in writes else _read for kind in range(len(OPERATIONS))]

    def run(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        """See `Target.run`."""
        run_threads(self.lanes, [self._calls for _ in self.lanes], shift, start_ns, end_ns, closed=closed)

    def logs(self) -> Mapping[str, bytes]:
        """See `Target.logs`."""
        return {}

    def close(self) -> None:
        """See `Target.close`."""


def _read(_place: int, _key: Any) -> int:
    return Outcome.HIT


def _write(_place: int, _key: Any) -> int:
    return Outcome.WRITTEN
