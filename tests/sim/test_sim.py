"""The simulation: no seed breaks a promise, and a seed is the same run wherever it runs.

`make sim SEED_START=… SEEDS=…` runs more; `python -m tests.sim --tell SEED` tells the story of one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from unittest.mock import patch

import pytest

from cachelib.testing.sim import Runner, plan_of, simulation
from invalidator.work import Work
from tests.sim.__main__ import chunk, tell
from tests.sim.daemon import daemon_of
from tests.sim.mutants import told

SEEDS = 4_000
CHUNK = 400


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_no_seed_breaks_a_promise(start: int) -> None:
    counts, failed = chunk(range(start, start + CHUNK))
    assert not failed, "\n".join([*map(str, failed), *tell(failed[0][0])])
    assert counts["checks"] > 5 * CHUNK


REFRESHED = range(0, 450)
EARLY_PUT = 14_856
"""A seed that shows what a put does that comes before its commit can be read: nobody else can see that value yet."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_refresh_by_the_invalidator_makes_no_strong_read_stale() -> None:
    with simulation("invalidator"):
        plans = [plan for plan in map(plan_of, REFRESHED) if told(plan.profile) and plan.profile.level != "eventual"]
        for plan in plans:
            outcome = Runner(daemon_of).run(plan.refreshing())
            assert outcome.well, f"seed {plan.seed}: {outcome.what}"
        assert len(plans) > len(REFRESHED) // 50


def test_refresh_at_the_first_look_is_found() -> None:
    with simulation("invalidator"):
        plan = plan_of(EARLY_PUT).refreshing()
        assert Runner(daemon_of).run(plan).well
        with patch.object(Work, "early", Work.first_look):
            assert not Runner(daemon_of).run(plan).well


def digest(seeds: range) -> str:
    said = hashlib.sha256()
    with simulation("invalidator"):
        for seed in seeds:
            outcome = Runner(daemon_of).run(plan_of(seed), told=True)
            said.update(repr(outcome).encode())
    return said.hexdigest()


def test_a_seed_is_replayed_exactly_in_another_process() -> None:
    code = "from tests.sim.test_sim import digest; print(digest(range(100)))"
    for hashing in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == digest(range(100))
