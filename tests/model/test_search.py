"""The code's own machines, searched exhaustively on bounds for every day; `make model` takes larger ones."""

from __future__ import annotations

import pytest

from tests.model.configs import BEYOND, CONFIGS
from tests.model.mutants import MUTANTS
from tests.model.search import search

WHOLE = {"write-through"}
"""Searched every day as they are: with evictions and leases that expire."""


@pytest.mark.parametrize("name", CONFIGS)
def test_no_interleaving_breaks_a_rule(name: str) -> None:
    outcome = search(CONFIGS[name] if name in WHOLE else CONFIGS[name].smaller())
    assert not outcome.violation, "\n".join((*outcome.story, outcome.violation))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_dropped_rule_is_missed(name: str) -> None:
    mutant = MUTANTS[name]
    with mutant.applied():
        outcome = search(mutant.config)
    assert outcome.violation, f"{outcome.states} states, and nothing was wrong"
    assert outcome.story


@pytest.mark.parametrize("name", BEYOND)
def test_what_the_protocol_does_not_promise_is_known_to_break(name: str) -> None:
    assert search(BEYOND[name]).violation, "it holds now: promise it"
