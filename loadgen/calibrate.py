"""What the generator reaches by itself: a target that does nothing, offered more than anybody could do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from cachelib.errors import CacheError
from loadgen.engine.bench import Bench, silent
from loadgen.engine.crew import Progress
from loadgen.plan import RunPlan, TargetPlan
from loadgen.result import RunResult

MORE = 400_000.0
"""Offered to each process at first, operations a second."""
ENOUGH = 0.9
"""A generator that does a larger share of what it is offered has not shown its ceiling."""
SECONDS = 2.0
SHARE = 0.7
"""Of the ceiling up to which a generator is trusted: beyond it, it measures itself."""


class NotCalibrated(CacheError):
    """The generator could not even be measured."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`ceiling`: operations a second of all processes; `at_share`: a run at `SHARE` of it, to see how late it is."""

    ceiling: float
    processes: int
    at_share: RunResult | None

    def sentence(self) -> str:
        """For people."""
        told = f"this generator reaches {self.ceiling:,.0f} operations a second with {self.processes} process(es)"
        if self.at_share is None:
            return told
        late = self.at_share.lag
        return (
            f"{told}; at {SHARE:.0%} of it it is {late.p50_ms:.3f} ms late at the median, {late.p99_ms:.2f} ms at p99"
        )


def calibrate(
    plan: RunPlan,
    tick: Callable[[Progress], None] = silent,
    *,
    seconds: float = SECONDS,
    more: float = MORE,
    eased: bool = True,
) -> Calibration:
    """The ceiling of a plan's workload and processes on a target that does nothing. Raises `NotCalibrated`.

    `eased`: a second run, at `SHARE` of it, shows how late the generator is there.
    """
    bare = msgspec.structs.replace(
        plan,
        target=TargetPlan(kind="null", threads=1),
        loop="open",
        seconds=seconds,
        warmup_s=1.0,
        label="calibration",
    )
    with Bench(bare) as bench:
        rate = more * plan.processes
        flat_out = bench.run(msgspec.structs.replace(bare, rate=rate), tick)
        while flat_out.achieved_per_s > ENOUGH * rate:  # it did what it was asked: that was not enough
            rate *= 2
            flat_out = bench.run(msgspec.structs.replace(bare, rate=rate), tick)
        ceiling = flat_out.achieved_per_s
        if ceiling <= 0:
            raise NotCalibrated(
                f"the generator did nothing at all: {'; '.join(flat_out.invalid) or 'no reason is known'}"
            )
        at_share = bench.run(msgspec.structs.replace(bare, rate=SHARE * ceiling), tick) if eased else None
    return Calibration(ceiling, plan.processes, at_share)
