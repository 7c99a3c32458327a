"""A seed is the same run wherever it runs; that none breaks a promise, `test_seeds_*.py` show.

`make sim SEED_START=… SEEDS=…` runs more; `python -m tests.sim --tell SEED` tells the story of one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from random import Random

from cachelib.testing.sim import Runner, plan_of, simulation
from cachelib.testing.sim.loop import START_US, Loop, Process, pause
from tests.sim.daemon import Thread, blocking, daemon_of


def digest(seeds: range) -> str:
    said = hashlib.sha256()
    with simulation("invalidator"):
        for seed in seeds:
            outcome = Runner(daemon_of).run(plan_of(seed), told=True)
            said.update(repr(outcome).encode())
    return said.hexdigest()


def test_a_seed_is_replayed_exactly_in_another_process() -> None:
    code, here = "from tests.sim.test_sim import digest; print(digest(range(60)))", digest(range(60))
    for hashing in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == here


def test_a_thread_that_another_began_waits_for_the_simulation() -> None:
    """Not for the one that began it: its waits would be none, and the other's would end too early."""
    loop, process, woke = Loop(Random(1)), Process("daemon"), list[tuple[str, int]]()

    def waits(who: str, us: int) -> None:
        for _ in range(3):
            blocking(pause(us))
            woke.append((who, loop.now_us - START_US))

    def begins() -> None:
        loop.spawn(process, Thread(lambda: waits("begun", 1_000)), Random(2))
        waits("beginner", 700)

    loop.spawn(process, Thread(begins), Random(3))
    loop.run(START_US + 10_000)
    assert [us for who, us in woke if who == "begun"] == [1_000, 2_000, 3_000]
    assert [us for who, us in woke if who == "beginner"] == [700, 1_400, 2_100]
