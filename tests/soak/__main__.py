"""`python -m tests.soak`: load through the whole chain while parts of it are killed; the last line is the verdict.

SOAK_SECONDS (600), SOAK_RATE (500 commits a second), SOAK_SEED (1), SOAK_FOLDER (logs; a temporary one by default).
The seed replays the plan of what breaks, not the timing. Exit code 0: passed, 1: failed, 3: the run says nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.check import Compared, settle
from tests.soak.faults import Faults
from tests.soak.work import Shared, keep_full, start, write
from tests.soak.world import NAMESPACE, Member, World, until

READY_S = 60.0
SETTLE_S = 120.0
WARM_S = 30.0
"""Memory is taken as settled after so long: the rooms that the daemon keeps are small here, see `World`."""
GROWTH = 1.25
SLACK_MB = 25.0
_TEND_S = 1.0
_SAY_S = 15.0
FAILED, INVALID = 1, 3

_began_s = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - _began_s:6.1f} s  {text}", flush=True)


def run(folder: Path, seconds: float, rate: float, seed: int) -> int:
    """The soak; its exit code."""
    with World(folder) as world:
        say("three brokers, Connect, PostgreSQL and Redis run")
        shared = Shared()
        for member in world.members:
            member.start()
        if not until(lambda: all(member.answers("/readyz") for member in world.members), READY_S):
            print(f"INVALID: the members did not become ready: {world.members[0].last_words()}")
            return INVALID
        workers = [
            start(keep_full, world.store_url, world.redis.url, NAMESPACE, shared),
            start(write, world.dsn, rate, shared, seed),
        ]
        scale = min(1.0, seconds / 300)
        faults = Faults(world, shared, seed, (4.0 + 4.0 * scale, 7.0 + 13.0 * scale), say)
        load_s = _load(world, shared, faults, seconds)
        shared.stop.set()
        for worker in workers:
            worker.join(20)
        faults.mend_connect()
        say("the load has ended; comparing every key")
        found, settled_s = settle(world, SETTLE_S)
        done = until(lambda: world.behind() == 0, SETTLE_S)
        stuck = [member for member in world.members if not (member.answers("/healthz") and member.answers("/readyz"))]
        failures = [
            *([f"{found.stale} of {found.keys} keys stale, such as {found.example}"] if found.stale else []),
            *([] if done else ["the committed offsets did not come to the log's end"]),
            *(f"{member.name} is not well" for member in stuck),
            *(f"{member.name}: {said}" for member in world.members for said in _grown(member)),
            *(said for member in world.members for said in member.ended if "after it was ready" in said),
            *([] if until(world.debezium.answers, 5.0) else ["Debezium does not stream"]),
            *(f"worker {worker.name} ended with {worker.exitcode}" for worker in workers if worker.exitcode),
        ]
        figures = _figures(world, shared, faults, found, load_s, settled_s)
    if faults.failed:
        print(f"INVALID: the faults themselves failed: {faults.failed}; {figures}", flush=True)
        return INVALID
    print(f"FAILED: {'; '.join(failures)}; {figures}" if failures else f"PASSED: {figures}", flush=True)
    return FAILED if failures else 0


def _load(world: World, shared: Shared, faults: Faults, seconds: float) -> float:
    """Until the time is up and what was broken is mended; how long that took."""
    began_s = said_s = time.monotonic()
    time.sleep(min(10.0, seconds / 10))
    faults.start()
    while (now_s := time.monotonic()) - began_s < seconds and not faults.failed:
        for member in world.members:
            member.tend()
        if now_s - said_s > _SAY_S:
            said_s = now_s
            say(f"{shared.committed.value:,} commits, {shared.reads.value:,} keys read, {shared.armed.value:,} armed")
        time.sleep(_TEND_S)
    load_s = time.monotonic() - began_s
    faults.stop()
    for member in world.members:
        if not member.wanted:
            member.start()
    until(lambda: _all_ready(world), READY_S)
    return load_s


def _all_ready(world: World) -> bool:
    for member in world.members:
        member.tend()
    return all(member.answers("/readyz") for member in world.members)


def _grown(member: Member) -> list[str]:
    """Lives whose memory was not flat once it was warm."""
    warm = int(WARM_S / _TEND_S)
    said = []
    for life in member.rss_mb:
        if len(life) > 2 * warm and max(life[warm:]) > life[warm] * GROWTH + SLACK_MB:
            said.append(f"memory grew from {life[warm]:.0f} to {max(life[warm:]):.0f} MB in {len(life)} s")
    return said


def _figures(world: World, shared: Shared, faults: Faults, found: Compared, load_s: float, settled_s: float) -> str:
    rss = [one for member in world.members for life in member.rss_mb for one in life]
    longest = max((life for member in world.members for life in member.rss_mb), key=len)
    epochs = {reason for member in world.members for reason in member.epochs()}
    given = {why: sum(member.epochs().get(why, 0) for member in world.members) for why in sorted(epochs)}
    starts = sum(len(member.ended) for member in world.members)
    parts = [
        f"{shared.committed.value:,} commits in {load_s:.0f} s ({shared.committed.value / load_s:.0f}/s)",
        f"{shared.armed.value:,} events whose loss would show",
        f"{found.keys:,} keys compared ({found.hits:,} hits), {found.stale} stale, settled after {settled_s:.1f} s",
        f"faults: {', '.join(f'{what} {count}' for what, count in sorted(faults.counts.items()))}",
        f"starts that failed while brokers were away {starts}",
        f"new epochs {given or 'none'}",
        f"memory of a member {min(rss):.0f} to {max(rss):.0f} MB; in its longest life ({len(longest)} s)"
        f" {longest[min(len(longest) - 1, 30)]:.0f} to {longest[-1]:.0f}",
    ]
    return "; ".join(parts)


def main() -> int:
    """From the environment."""
    seconds, rate = float(os.environ.get("SOAK_SECONDS", "600")), float(os.environ.get("SOAK_RATE", "500"))
    seed = int(os.environ.get("SOAK_SEED", "1"))
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = Path(os.environ.get("SOAK_FOLDER") or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return run(folder, seconds, rate, seed)


if __name__ == "__main__":
    sys.exit(main())
