"""Every dropped rule is missed, and a naive cache fails where ours does not.

A mutant is tried with the seed that found it once; where the code has moved on, and that seed no longer does, seeds are
searched. `python -m tests.sim.mutants` searches all anew and prints the table of README.md.
"""

from __future__ import annotations

import pytest

from cachelib.testing.sim import Runner, plan_of, simulation
from tests.sim.daemon import daemon_of
from tests.sim.mutants import MUTANTS, SEEDS_FOUND, search
from tests.sim.naive import NaiveCache

SEEDS = 2_000


def test_every_dropped_rule_has_a_seed_that_misses_it() -> None:
    assert set(SEEDS_FOUND) == set(MUTANTS)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SEEDS_FOUND)
def test_a_dropped_rule_is_missed(name: str) -> None:
    mutant, seed = MUTANTS[name], SEEDS_FOUND[name]
    with simulation("invalidator"):
        assert Runner(daemon_of).run(plan_of(seed)).well, "the seed fails with the rule in place, too"
        found = search(mutant, range(seed, seed + 1))
        if found.outcome is None:
            found = search(mutant, range(SEEDS))
    assert found.outcome is not None, f"{found.runs} runs, and nothing was wrong"


def test_a_story_is_short_and_ends_with_what_is_wrong() -> None:
    mutant = MUTANTS["content below the floor is served"]
    runner = Runner(daemon_of)
    with simulation("invalidator"), mutant.applied():
        plan = next(plan for plan in mutant.plans(range(200)) if not runner.run(plan).well)
        shrunk = runner.shrunk(plan)
        outcome = runner.run(shrunk, told=True)
    assert len(shrunk.deeds) <= 5
    assert outcome.promise == "strong"
    assert "has committed" in "\n".join(outcome.story)


def test_a_naive_cache_is_found_stale() -> None:
    runner, stale = Runner(cache_of=NaiveCache), 0
    with simulation():
        plans = [plan for plan in map(plan_of, range(400)) if plan.profile.level == "strong"]
        alone = [plan for plan in plans if plan.profile.source == "none"]
        stale = sum(runner.run(plan).promise == "strong" for plan in alone)
        ours = sum(Runner().run(plan).promise == "strong" for plan in alone)
    assert stale > len(alone) // 40
    assert ours == 0
