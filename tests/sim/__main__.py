"""Run seeds: `make sim SEED_START=… SEEDS=…`. A failing seed is run again, shortened and told.

The last line is the verdict, the exit code is 0 where every seed held.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pool
from typing import Any

from cachelib.testing.sim import Runner, plan_of, simulation
from tests.sim.daemon import daemon_of

CHUNK = 50
LITTER = 5
"""Worlds that are thrown away together."""
FAILURES_TOLD = 3


def chunk(seeds: range) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Run these; what was counted, and the seeds that failed."""
    counts: Counter[str] = Counter()
    failed: list[tuple[int, str]] = []
    runner = Runner(daemon_of)
    with simulation("invalidator"):
        for seed in seeds:
            if not seed % LITTER:
                gc.collect()  # worlds are full of circles: soon, while they are still near
            outcome = runner.run(plan_of(seed))
            counts += Counter(
                seeds=1, reads=outcome.reads, writes=outcome.writes, errors=outcome.errors, checks=outcome.checked,
                events=outcome.events,
            )  # fmt: skip
            if not outcome.well:
                failed.append((seed, outcome.what))
    return counts, failed


def tell(seed: int, *, shrink: bool = True) -> Iterator[str]:
    """The order of events of one seed, as short as it can be made."""
    runner = Runner(daemon_of)
    with simulation("invalidator"):
        plan = plan_of(seed)
        if shrink:
            plan = runner.shrunk(plan)
        outcome = runner.run(plan, told=True)
    yield f"seed {seed}: {plan.profile}"
    for deed in plan.deeds:
        yield f"    at {deed.at_us / 1000:.3f} ms, {deed.who}: {deed.told()}"
    yield f"  as it goes, {len(outcome.story)} events:"
    yield from (f"  {event}" for event in outcome.story)
    yield f"  {outcome.what or 'nothing is wrong'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--start", type=int, default=int(os.environ.get("SEED_START") or 0))
    parser.add_argument("--seeds", type=int, default=int(os.environ.get("SEEDS") or 10_000))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tell", type=int, metavar="SEED", help="tell the story of one seed")
    parser.add_argument("--whole", action="store_true", help="tell it as it is, not shortened")
    chosen = parser.parse_args(arguments)
    if chosen.tell is not None:
        print("\n".join(tell(chosen.tell, shrink=not chosen.whole)))
        return 0
    last = chosen.start + chosen.seeds
    chunks = [range(at, min(at + CHUNK, last)) for at in range(chosen.start, last, CHUNK)]
    began, counts, failed = time.monotonic(), Counter[str](), []
    with Pool(chosen.workers) as pool:
        for some, wrong in pool.imap_unordered(chunk, chunks):
            counts += some
            failed += wrong
            _progress(counts, failed)
    for seed, what in sorted(failed):
        print(f"seed {seed}: {what}")
    for seed, _ in sorted(failed)[:FAILURES_TOLD]:
        print("\n".join(tell(seed)), flush=True)
    seconds = time.monotonic() - began
    print(
        f"{'every promise held' if not failed else f'{len(failed)} SEEDS FAILED'}: seeds {chosen.start} to {last - 1},"
        f" {counts['reads']} reads and {counts['writes']} writes, {counts['checks']} checks, {counts['errors']} calls"
        f" that raised, {counts['events']} events, {seconds:.1f} s"
    )
    return 1 if failed else 0


def _progress(counts: Counter[str], failed: list[Any]) -> None:
    if sys.stderr.isatty():
        print(f"\r{counts['seeds']} seeds, {len(failed)} failed ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
