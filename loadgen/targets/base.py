"""What a worker needs of a target, and the crew of threads that most targets are run by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Protocol

from loadgen.engine.lane import Call, Lane
from loadgen.engine.pace import Shift, run_closed, run_open
from loadgen.workloads.draws import Operations


class Target(Protocol):
    """What is put under load, in one worker."""

    lanes: Sequence[Lane]
    """Its part of the schedule."""

    def run(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        """Until every operation has ended, or the shift. Raises what must end the run."""

    def logs(self) -> Mapping[str, bytes]:
        """For the oracle, by name: rows of 64-bit numbers."""

    def close(self) -> None:
        """Close every connection."""


def lanes_of(operations: Operations, count: int, *, in_order: bool) -> list[Lane]:
    """Deal the operations to so many lanes, in turn."""
    return [Lane(operations.every(count, number), in_order=in_order) for number in range(count)]


def run_threads(
    lanes: Sequence[Lane], calls: Sequence[Sequence[Call]], shift: Shift, start_ns: int, end_ns: int, *, closed: bool
) -> None:
    """One thread a lane. Raises what a thread raised: one that is missing must not go unnoticed."""
    broken: list[BaseException] = []

    def work(lane: Lane, own: Sequence[Call]) -> None:
        try:
            if shift.wait_until(start_ns) < 0:
                return
            run_closed(lane, own, shift, end_ns) if closed else run_open(lane, own, shift)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that reports
            broken.append(error)
            shift.stop()

    threads = [Thread(target=work, args=pair) for pair in zip(lanes, calls, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
