"""The naive cache's rates in tests/README.md are of races that it can lose also when nobody moves them by hand."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.races.rates import interleaved, lost, races, recorded

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("name", races())
def test_naive_cache_loses_it_in_some_random_orders(name: str) -> None:
    assert lost(*races()[name], runs=300) > 0


@pytest.mark.parametrize("name", races())
def test_random_order_keeps_that_of_each_actor_and_of_the_commits(name: str) -> None:
    events = recorded(races()[name][0])
    for seed in range(20):
        mixed = list(interleaved(events, random.Random(seed)))
        for actor in {event.actor for event in events}:
            assert [one for one in mixed if one.actor == actor] == [one for one in events if one.actor == actor]
        firsts = [events.index(one) for one in mixed if one.actor.startswith("writer") and one.after >= 0]
        assert firsts == sorted(firsts)


def test_every_race_is_in_the_readme_with_a_rate() -> None:
    told = set(re.findall(r"^\|.*`(test_\w+)`.*\| [\d.]+ % \|$", README, re.MULTILINE))
    assert set(races()) <= told
