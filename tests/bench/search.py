"""Does `loadgen search` find the same capacity again, and is it one? On the real stack, started for it.

    python -m tests.bench.search [library|wire] [redis|memcached] [times]

Searches so often (5) with other arrivals each time, each on a stack of its own: a store that has taken the writes of
a search is another one for the next. Then it offers the median of what was found, which must hold, and 1.3 times
that, which must not. The verdict is the last line and the exit code, everything else is in `build/bench/search.json`,
written after each search. Five searches take about seven minutes on a quiet machine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from loadgen.calibrate import SHARE, calibrate
from loadgen.engine.bench import Bench
from loadgen.engine.crew import Progress
from loadgen.measures import slices
from loadgen.objective import Objective, parse
from loadgen.plan import RunPlan, TargetPlan
from loadgen.probing import LONG_SHARE, Plan
from loadgen.searched import SearchResult
from loadgen.seek import Pace, Seeker, lag_allowed_ms
from loadgen.workloads.workload import workload_of

OUT = Path("build/bench/search.json")
TOLERANCE = 0.1
"""Of a search; at 5 % it takes a quarter longer."""
APART_MOST = 0.15
"""Of the median, between the lowest and the highest that was found."""
BEYOND = 1.3
VOTES = 9
"""Windows of the two runs that hold the finding against the stack."""
WINDOW_S = 1
WARMUP_S = 1.0


@dataclass(frozen=True)
class Case:
    """What is searched: `start` is the first rate, operations a second."""

    objective: str
    start: float
    plan: RunPlan


CASES = {
    "library": Case(
        "get.p99<50ms & stale.ratio<5% & vis.p99<1s & errors<0.1% & achieved>=0.95*offered",
        2000.0,
        RunPlan(
            workload=replace(workload_of("ycsb-b"), keys=3000),
            target=TargetPlan(
                kind="library", threads=2, strong_share=0.2, behind_share=0.3, probes_per_s=3.0, origin_ms=5.0
            ),
        ),
    ),
    "wire": Case(
        "get.p99<10ms & errors<0.1% & achieved>=0.95*offered",
        10_000.0,
        RunPlan(workload=replace(workload_of("ycsb-b"), keys=3000), target=TargetPlan(kind="wire")),
    ),
}


def quiet(_: Progress) -> None:
    """Progress is not shown."""


def search_once(bench: Bench, case: Case, plan: RunPlan, ceiling: float, number: int) -> SearchResult:
    """One search, with a seed of its own."""
    steps = Plan(start=case.start, ceiling=ceiling, share=SHARE, tolerance=TOLERANCE)
    own, pace = replace(plan, seed=1 + 1000 * number), Pace(WINDOW_S, WARMUP_S, rest_s=0.5)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    return Seeker(bench, own, parse(case.objective), steps, pace, lambda line: say(f"  {line}"), quiet).search()


def held(bench: Bench, plan: RunPlan, wanted: Objective, rate: float) -> tuple[int, int]:
    """Of how many windows that say something the objective held, and how many there were."""
    plan = replace(plan, rate=rate, seconds=float(VOTES * WINDOW_S), warmup_s=WARMUP_S, seed=99)
    run = bench.run(replace(plan, lag_p99_ms_max=lag_allowed_ms(plan, wanted)))
    parts = [part for part in slices(run, VOTES) if not part.invalid]
    return sum(wanted.judge(part.measures(wanted.measures)).holds for part in parts), len(parts)


def measure(kind: str, backend: str, times: int) -> dict[str, Any]:
    """All searches, and the two runs that their finding is held against."""
    case = CASES[kind]
    plan = replace(case.plan, target=replace(case.plan.target, backend=backend))  # type: ignore[arg-type]
    ceiling = calibrate(plan, eased=False).ceiling
    found: list[SearchResult] = []
    took: list[float] = []
    others: list[float] = []
    for number in range(times):
        began, before = time.monotonic(), busy_s()
        with Bench(plan) as bench:
            found.append(search_once(bench, case, plan, ceiling, number))
        took.append(time.monotonic() - began)
        others.append((busy_s() - before) / took[-1])
        what = f"{len(found[-1].probes)} probes, {took[-1]:.0f} s, others used {others[-1]:.2f} processors"
        print(f"{number + 1}: {found[-1].says} ({what})", flush=True)
        write(told(case, plan, ceiling, found, took, others))
    rate, wanted = median(one.rate for one in found), parse(case.objective)
    with Bench(plan) as bench:
        at = {share: held(bench, plan, wanted, share * rate) if rate else (0, 0) for share in (1.0, BEYOND)}
    return told(case, plan, ceiling, found, took, others) | {"held_at_median": at[1.0], "held_beyond": at[BEYOND]}


def write(result: dict[str, Any]) -> None:
    """To the file."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def busy_s() -> float:
    """Processor seconds that others have used: the whole machine's, less ours and those of children that ended."""
    machine, ours = psutil.cpu_times(), os.times()
    busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq + machine.steal
    return float(busy - ours.user - ours.system - ours.children_user - ours.children_system)


def told(
    case: Case,
    plan: RunPlan,
    ceiling: float,
    found: list[SearchResult],
    took: list[float],
    others: list[float],
) -> dict[str, Any]:
    """What was found so far."""
    rate = median(one.rate for one in found)
    return {
        "target": plan.target.kind,
        "backend": plan.target.backend,
        "objective": case.objective,
        "ceiling": ceiling,
        "searches": [
            {"rate": one.rate, "above": one.above, "end": one.end, "binding": one.binding, "seconds": round(seconds, 1)}
            | {"others_cores": round(cores, 3)}
            | {"probes": [(p.phase, round(p.rate, 1), p.verdict, round(p.p99_ms, 2)) for p in one.probes]}
            for one, seconds, cores in zip(found, took, others, strict=True)
        ],
        "median": rate,
        "apart": (max(one.rate for one in found) - min(one.rate for one in found)) / rate if rate else None,
        "found": sum(one.found for one in found),
    }


def failures_of(result: dict[str, Any]) -> list[str]:
    """What is not as it should be, in sentences."""
    failures = []
    if result["found"] < len(result["searches"]):
        failures.append(f"{len(result['searches']) - result['found']} searches found nothing: the machine was too busy")
    if result["apart"] is None or result["apart"] > APART_MOST:
        failures.append(f"the findings are {result['apart'] or 1:.0%} apart, {APART_MOST:.0%} is allowed")
    (good, of), (beyond, of_beyond) = result["held_at_median"], result["held_beyond"]
    if of == 0 or good < LONG_SHARE * of:
        failures.append(f"the median holds in {good} of {of} windows only")
    if of_beyond and beyond >= LONG_SHARE * of_beyond:
        failures.append(f"{BEYOND} times the median holds in {beyond} of {of_beyond} windows, too")
    return failures


def main() -> None:
    """The table and the verdict."""
    kind, backend, times = [*sys.argv[1:], *("library", "redis", "5")[len(sys.argv) - 1 :]]
    result = measure(kind, backend, int(times))
    result["failures"] = failures_of(result)
    write(result)
    head = ("search", "found", "refuted", "gives way", "probes", "seconds", "others' processors")
    table = Table(*head, title=f"search, {kind} on {backend}")
    for number, one in enumerate(result["searches"], 1):
        above = f"{one['above']:,.0f}/s" if one["above"] else "–"
        counts = f"{len(one['probes'])}", f"{one['seconds']:.0f}", f"{one['others_cores']:.2f}"
        table.add_row(str(number), f"{one['rate']:,.0f}/s", above, one["binding"], *counts)
    Console().print(table)
    (good, of), (beyond, of_beyond) = result["held_at_median"], result["held_beyond"]
    print(
        f"median {result['median']:,.0f}/s, {result['apart'] or 0:.1%} apart; it held in {good} of {of} windows,"
        f" {BEYOND} times it in {beyond} of {of_beyond}"
    )
    print(f"FAILED: {'; '.join(result['failures'])}" if result["failures"] else "PASSED")
    sys.exit(bool(result["failures"]))


if __name__ == "__main__":
    main()
