"""What all votes of a search say together."""

from __future__ import annotations

import random

import pytest

from loadgen.evidence import NEVER, between, falling


def test_votes_that_agree_leave_the_gap_between_held_and_missed() -> None:
    assert between([(1000, 1, 0), (2000, 0, 1), (1400, 3, 0), (1450, 0, 3)]) == (1400, 1450)


def test_one_miss_among_rates_that_hold_bounds_nothing_above_it() -> None:
    """A burst at 500/s, and everything above it held: the capacity is where the others say."""
    low, high = between([(500, 0, 1), (1000, 3, 0), (1400, 3, 0), (1450, 0, 3)])
    assert (low, high) == (1400, 1450)


def test_contradiction_widens_the_interval() -> None:
    low, high = between([(1000, 3, 0), (1100, 1, 2), (1200, 2, 1), (1300, 0, 3)])
    assert (low, high) == (1000, 1300)


@pytest.mark.parametrize(
    ("votes", "wanted"),
    [([], (0, NEVER)), ([(10, 3, 0)], (10, NEVER)), ([(10, 0, 3)], (0, 10)), ([(10, 0, 0)], (0, NEVER))],
)
def test_what_nothing_bounds_is_open(votes: list[tuple[float, float, float]], wanted: tuple[float, float]) -> None:
    assert between(votes) == wanted


def test_votes_of_one_rate_are_put_together() -> None:
    assert between([(10, 1, 0), (10, 1, 0), (10, 1, 0), (20, 0, 1), (20, 0, 2)]) == (10, 20)


def test_shares_that_would_rise_are_pooled() -> None:
    assert falling([(1, 3, 0), (2, 1, 2), (3, 2, 1), (4, 0, 3)]) == pytest.approx([1, 0.5, 0.5, 0])
    drawn = random.Random(1)
    shares = falling([(rate, drawn.randint(0, 3), drawn.randint(1, 3)) for rate in range(50)])
    assert shares == sorted(shares, reverse=True)


def test_interval_has_the_capacity_in_it_as_often_as_it_says() -> None:
    """Votes drawn from a known curve at the rates of an even grid."""
    inside = 0
    for seed in range(60):
        drawn, votes = random.Random(seed), []
        for rate in range(500, 1501, 25):
            share = 1 / (1 + (rate / 1000) ** 20)
            votes.append((float(rate), *((1.0, 0.0) if drawn.random() < share else (0.0, 1.0))))
        low, high = between(votes)
        inside += low <= 1000 <= high
    assert inside >= 0.9 * 60
