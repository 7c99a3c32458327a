"""Does `loadgen search` find the same capacity again, and is it one? On the real stack, started for it.

    python -m tests.bench.search [library|wire] [redis|memcached] [times] [--one] [--new]

Searches so often (5) with other arrivals each time, each on a stack of its own: a store that has taken the writes of
a search is another one for the next. After each search, on its stack, the confirmed rate is offered again and must
hold, and 1.3 times it must not. All is in `build/bench/search.json`, written after each search; a call goes on where
the last one ended (`--new`: from the beginning), and `--one` ends it after one search, which takes two to three
minutes. A search that other work or a late generator ended is told and not counted: it says nothing of the stack.
The last line is the verdict; exit code 1: not met (or, with `--one`, the search was not counted or not right).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from loadgen.calibrate import SHARE, calibrate
from loadgen.engine.bench import Bench
from loadgen.engine.crew import Progress, processors
from loadgen.measures import slices
from loadgen.objective import Objective, parse
from loadgen.pinning import Pins, usable
from loadgen.plan import RunPlan, TargetPlan
from loadgen.probing import LONG_SHARE, End, Plan
from loadgen.searched import SearchResult
from loadgen.seek import OTHERS_MOST, Pace, Seeker, lag_allowed_ms
from loadgen.workloads.workload import workload_of

OUT = Path("build/bench/search.json")
MEMORY = Path("/dev/shm")
"""Where the stack keeps its files, if it is there. A disk that is shared with others holds a commit up for 50 to
300 ms now and then, which no share of the processors shows, and a rate near the capacity is missed for seconds."""
TOLERANCE = 0.1
"""Of a search; at 5 % it takes half as long again."""
STEP_DOWN = 0.4 * TOLERANCE
APART_MOST = 0.15
"""Of the median, between the lowest and the highest that was found."""
BEYOND = 1.3
MORE = 1_600_000.0
"""Offered to find the generator's ceiling, operations a second: more than it does, so that one run is enough."""
VOTES = 9
"""Windows of the run that offers again what was found."""
VOTES_LEAST = 5
"""So many of them at least; and of the run beyond it, where nothing is near its bound."""
TRIES = 3
"""Runs to get so many votes: seconds that the generator or other work spoiled are none."""
NOT_COUNTED = (End.DISTURBED.value, End.SPOILED.value)
WINDOW_S = 1
WARMUP_S = 1.0
REST_S = 0.5


def places() -> Pins:
    """Client and cache, which take turns, on one processor; the invalidator on another. Left to itself the kernel
    changes its mind about that every few minutes, and a round trip takes 45 or 90 microseconds."""
    processors = sorted(usable())
    return Pins(generator=(processors[0],), cache=(processors[0],), invalidator=(processors[-1],))


@dataclass(frozen=True)
class Case:
    """What is searched: `start` is the first rate, operations a second."""

    objective: str
    start: float
    plan: RunPlan


CASES = {
    "library": Case(
        "get.p99<50ms & stale.ratio<5% & vis.p99<1s & errors<0.1% & achieved>=0.95*offered",
        4000.0,
        RunPlan(
            workload=replace(workload_of("ycsb-b"), keys=3000),
            target=TargetPlan(kind="library", strong_share=0.2, behind_share=0.3, probes_per_s=10.0),
            pins=places(),
        ),
    ),
    "wire": Case(
        "get.p99<10ms & errors<0.1% & achieved>=0.95*offered",
        10_000.0,
        RunPlan(workload=replace(workload_of("ycsb-b"), keys=3000), target=TargetPlan(kind="wire"), pins=places()),
    ),
}


def quiet(_: Progress) -> None:
    """Progress is not shown."""


class Recheck:
    """Whether rates hold on the stack that was searched, by the rules of a long probe: two thirds of its windows."""

    def __init__(self, bench: Bench, plan: RunPlan, wanted: Objective) -> None:
        self._bench, self._wanted = bench, wanted
        self._plan = replace(plan, lag_p99_ms_max=lag_allowed_ms(plan, wanted), warmup_s=WARMUP_S)
        self.lag_ms = 0.0
        """The generator's, p99, of the worst run that counted."""

    def held(self, rate: float, votes: int) -> tuple[int, int]:
        """Of how many windows that say something the objective held, and how many there were."""
        good = of = 0
        for attempt in range(TRIES):
            time.sleep(2 * REST_S)
            run = self._bench.run(
                replace(self._plan, rate=rate, seconds=float(votes * WINDOW_S), seed=self._plan.seed + 900 + attempt)
            )
            most = OTHERS_MOST * processors()
            parts = [one for one in slices(run, votes) if not one.invalid and one.others_cores <= most]
            good += sum(self._wanted.judge(one.measures(self._wanted.measures)).holds for one in parts)
            of += len(parts)
            if of >= VOTES_LEAST:
                self.lag_ms = max(self.lag_ms, run.lag.p99_ms)
                break
        return good, of


def search(kind: str, backend: str, number: int, ceiling: float) -> dict[str, Any]:
    """One search, with a seed of its own, and what its finding is held against. `ceiling`: the generator's."""
    case, began = CASES[kind], time.monotonic()
    target = replace(case.plan.target, backend=backend)  # type: ignore[arg-type]
    plan, wanted = replace(case.plan, target=target, seed=1 + 1000 * number), parse(case.objective)
    steps = Plan(start=case.start, ceiling=ceiling, share=SHARE, tolerance=TOLERANCE, step_down=STEP_DOWN, quick=True)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    with Bench(plan) as bench:
        pace = Pace(WINDOW_S, WARMUP_S, REST_S)
        found = Seeker(bench, plan, wanted, steps, pace, lambda line: say(f"  {line}"), quiet).search()
        check = Recheck(bench, plan, wanted)
        held = beyond = (0, 0)
        if found.rate:
            held, beyond = check.held(found.rate, VOTES), check.held(BEYOND * found.rate, VOTES_LEAST)
    print(f"{number + 1}: {found.says}", flush=True)
    return _told(found, time.monotonic() - began) | {
        "held_again": held,
        "held_beyond": beyond,
        "lag_p99_ms": max(check.lag_ms, found.confirmed.lag.p99_ms if found.confirmed else 0.0),
        "lag_allowed_ms": lag_allowed_ms(plan, wanted),
    }


def _told(found: SearchResult, seconds: float) -> dict[str, Any]:
    names = ("rate", "above", "low", "high", "end", "says", "binding", "started", "seed")
    probes = [
        (one.phase, round(one.rate, 1), one.verdict, round(one.p99_ms, 2), " ".join(one.windows), one.others_cores)
        for one in found.probes
    ]
    windows = [window for one in found.probes for window in one.windows]
    return {name: getattr(found, name) for name in names} | {
        "seconds": round(seconds, 1),
        "spoiled": windows.count("invalid"),
        "disturbed": windows.count("disturbed"),
        "windows": len(windows),
        "lag_checks": not (found.confirmed is None or found.confirmed.invalid),
        "probes": probes,
    }


def failures_of(one: dict[str, Any]) -> list[str]:
    """What is wrong with one search, in sentences."""
    failures = [] if one["end"] == "found" else [f"it ended with {one['end']!r}"]
    if not one["lag_checks"]:
        failures.append("the generator was late in the run that confirmed it")
    (good, of), (beyond, of_beyond) = one["held_again"], one["held_beyond"]
    if of < VOTES_LEAST or good < LONG_SHARE * of:
        failures.append(f"what it found held again in {good} of {of} windows only")
    if of_beyond < VOTES_LEAST or beyond >= LONG_SHARE * of_beyond:
        failures.append(f"{BEYOND} times it held in {beyond} of {of_beyond} windows")
    return failures


def before(kind: str, backend: str, times: int) -> dict[str, Any]:
    """A measurement that was not ended, or a new one."""
    new = _asked(kind, backend, times) | {"searches": [], "not_counted": []}
    try:
        found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return new
    same = all(found.get(name) == value for name, value in _asked(kind, backend, times).items())
    goes_on = same and len(found["searches"]) < times and len(found["not_counted"]) <= times
    return found if goes_on else new


def _asked(kind: str, backend: str, times: int) -> dict[str, Any]:
    return {"target": kind, "backend": backend, "objective": CASES[kind].objective, "times": times}


def write(result: dict[str, Any]) -> None:
    """What was found so far, to the file."""
    searches = result["searches"]
    rates = [one["rate"] for one in searches] or [0.0]
    middle = median(rates)
    apart = (max(rates) - min(rates)) / middle if middle else None
    failures = [f"search {number}: {what}" for number, one in enumerate(searches, 1) for what in failures_of(one)]
    if searches and (apart is None or apart > APART_MOST):
        failures.append(f"the findings are {apart or 1:.0%} apart, {APART_MOST:.0%} is allowed")
    whole = len(searches) == result["times"]
    result |= {"median": middle, "apart": apart, "failures": failures, "met": not failures if whole else None}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def show(result: dict[str, Any]) -> None:
    """The table and the verdict."""
    head = ("search", "capacity", "refuted", "all votes leave open", "gives way", "held again", f"{BEYOND} times it")
    title = f"{result['target']} on {result['backend']}"
    table = Table(*head, "lag p99", "probes", "disturbed", "seconds", title=title)
    for number, one in enumerate(result["searches"], 1):
        above, high = (f"{one[name]:,.0f}" if one[name] else "–" for name in ("above", "high"))
        again, beyond = (f"{one[name][0]} of {one[name][1]}" for name in ("held_again", "held_beyond"))
        lag = f"{one['lag_p99_ms']:.2f} of {one['lag_allowed_ms']:g} ms"
        counts = f"{len(one['probes'])}", f"{one['disturbed']} of {one['windows']}", f"{one['seconds']:.0f}"
        found = f"{one['rate']:,.0f}/s", above, f"{one['low']:,.0f} to {high}", one["binding"]
        table.add_row(str(number), *found, again, beyond, lag, *counts)
    Console(width=180).print(table)
    for one in result["not_counted"]:
        print(f"not counted: {one['says']} ({one['disturbed']} of {one['windows']} windows were disturbed)")
    count = f"{len(result['searches'])} of {result['times']} searches"
    print(f"{count}: median {result['median']:,.0f}/s, {result['apart'] or 0:.1%} apart, {APART_MOST:.0%} allowed")
    if result["met"] is None:
        print("Not all yet: call it again." + "".join(f"\n  {one}" for one in result["failures"]))
    else:
        print("MET" if result["met"] else f"NOT MET: {'; '.join(result['failures'])}")


def main() -> None:
    """See the module."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    kind, backend, count = [*words, *("library", "redis", "5")[len(words) :]]
    times = int(count)
    if "--new" in sys.argv:
        OUT.unlink(missing_ok=True)
    if os.access(MEMORY, os.W_OK):
        tempfile.tempdir = str(MEMORY)
    result = before(kind, backend, times)
    searches, refused = result["searches"], result["not_counted"]
    while len(searches) < times and len(refused) <= times:
        if "ceiling" not in result:  # kept, also where what follows is cut off
            result["ceiling"] = round(calibrate(CASES[kind].plan, seconds=1.0, more=MORE, eased=False).ceiling)
            write(result)
        found = search(kind, backend, len(searches) + len(refused), result["ceiling"])
        (refused if found["end"] in NOT_COUNTED else searches).append(found)
        write(result)
        if "--one" in sys.argv:
            break
    show(result)
    good = result["met"] if result["met"] is not None else found["end"] not in NOT_COUNTED and not failures_of(found)
    sys.exit(not good)


if __name__ == "__main__":
    main()
