"""What the generator itself costs: its ceiling on `null` and on the wire, and what it adds to a plain loop of gets.

    python -m tests.bench.generator [seconds]

Rates are per processor second that the generator used, so that neighbours on the machine count as little
as they can. The wire's server is pinned to another processor than the generator, where there is one; the library's
to the same, as it takes turns with the loop. More is offered on the wire than the goal: below it the generator
sleeps and is woken for single requests, which a write cannot coalesce.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from loadgen.engine.bench import Bench
from loadgen.engine.lane import Lane, Outcome
from loadgen.engine.pace import Shift, run_open
from loadgen.engine.tally import Tally
from loadgen.pinning import Pins, pinned, usable
from loadgen.plan import RunPlan, TargetPlan
from loadgen.targets.base import lanes_of
from loadgen.targets.library import Library
from loadgen.targets.library_site import LibrarySite
from loadgen.workloads.draws import Operations
from loadgen.workloads.workload import GET, OPERATIONS, workload_of

NULL_GOAL, WIRE_GOAL, LIBRARY_GOAL_US, RECORD_GOAL_US = 150_000, 70_000, 3.0, 0.3
ROUNDS = 9
FIRST, LAST = min(usable()), max(usable())
WIRE_RATE = 100_000


def per_core(kind: str, backend: str, rate: float, seconds: float) -> float:
    """Operations a second that one processor would do, from what this rate cost."""
    plan = RunPlan(
        workload=replace(workload_of("ycsb-c"), keys=10_000),
        target=TargetPlan(kind=kind, backend=backend),  # type: ignore[arg-type]
        rate=rate,
        seconds=seconds,
        warmup_s=1.0,
        lag_p99_ms_max=60_000.0,
        pins=Pins(generator=(FIRST,), cache=(LAST,)),
    )
    with Bench(plan) as bench:
        result = bench.run(plan)
    cores = sum(one.cores for one in result.generator)
    if not cores:  # it began after its time was over
        sys.exit(f"{kind} on {backend}: the machine is too busy: {'; '.join(result.invalid) or result.lag}")
    return result.achieved_per_s / cores


def gets(count: int, keys: int) -> Operations:
    """All due at once."""
    drawn = np.random.default_rng(1).integers(0, keys, count)
    return Operations(np.zeros(count), np.full(count, GET), drawn, np.arange(count + 1))


def best_us(measure: Callable[[], float]) -> float:
    """Of several rounds: the code's cost, not the neighbours'."""
    return min(measure() for _ in range(ROUNDS))


def recording_us(count: int = 100_000) -> tuple[float, float]:
    """What the hot loop adds to a bare call, and what counting adds after the run; microseconds an operation."""

    def call(_place: int, _key: int) -> int:
        return Outcome.HIT

    def bare() -> float:
        began = time.process_time()
        now = time.monotonic_ns
        for place in range(count):
            now()
            call(place, place)
        return (time.process_time() - began) / count * 1e6

    def looped() -> tuple[Lane, float]:
        lane = lanes_of(gets(count, 100), 1, in_order=True)[0]
        lane.begin(time.monotonic_ns() - 1_000_000_000)
        began = time.process_time()
        run_open(lane, [call] * len(OPERATIONS), Shift(time.monotonic_ns() + 10**12))
        return lane, (time.process_time() - began) / count * 1e6

    def counted() -> float:
        lane, _ = looped()
        began = time.process_time()
        list(Tally([lane], int(lane.at_ns[0]), closed=False).seconds())
        return (time.process_time() - began) / count * 1e6

    return best_us(lambda: looped()[1]) - best_us(bare), best_us(counted)


def library_us(count: int = 5000) -> tuple[float, float]:
    """A plain loop of `Cache.get`, and the same keys through the generator; microseconds an operation."""
    plan = RunPlan(
        workload=replace(workload_of("ycsb-c"), keys=1000),
        target=TargetPlan(kind="library", invalidator=False),
        pins=Pins(cache=(FIRST,)),
    )
    site = LibrarySite(plan)
    site.open(lambda *_: None)
    try:
        operations = gets(count, 1000)
        library = Library(replace(plan, target=site.target), site.stage.items.space, operations, 1)
        lane, calls = library.lanes[0], library.hands[0].calls
        get, entities, names = library.cache.get, library.entity, library.names
        keys = operations.key.tolist()

        def plain() -> float:
            began = time.process_time()
            for key in keys:
                get(entities[key], names[key])
            return (time.process_time() - began) / count * 1e6

        def offered() -> float:
            lane.begin(time.monotonic_ns() - 1_000_000_000)
            began = time.process_time()
            run_open(lane, calls, Shift(time.monotonic_ns() + 10**12))
            return (time.process_time() - began) / count * 1e6

        plain()
        pairs = [(plain(), offered()) for _ in range(ROUNDS)]
        library.close()
    finally:
        site.close()
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def main() -> None:
    """The table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    table = Table("what", "figure", "goal", title="the generator")
    rate = per_core("null", "redis", 200_000, seconds)
    table.add_row("null, operations per processor second", f"{rate:,.0f}", f">= {NULL_GOAL:,}")
    for backend in ("redis", "memcached"):
        rate = per_core("wire", backend, WIRE_RATE, seconds)
        table.add_row(f"wire ({backend}), operations per processor second", f"{rate:,.0f}", f">= {WIRE_GOAL:,}")
    loop, counting = recording_us()
    table.add_row("hot loop over a call and a clock, µs", f"{loop:.3f}", f"<= {RECORD_GOAL_US}")
    table.add_row("counting after the run, µs", f"{counting:.3f}", "")
    with pinned((FIRST,)):
        plain, offered = library_us()
    table.add_row("plain loop of Cache.get, µs", f"{plain:.2f}", "")
    table.add_row("the same through the generator: more, µs", f"{offered - plain:.2f}", f"<= {LIBRARY_GOAL_US}")
    Console().print(table)


if __name__ == "__main__":
    main()
