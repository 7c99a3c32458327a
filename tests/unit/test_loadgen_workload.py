"""Keys by popularity and intended starts: statistical claims, each with a fixed seed."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from cachelib.errors import ConfigError
from loadgen.arrivals import CLOSED, schedule
from loadgen.workloads.popularity import Zipf, choices

DRAWS = 200_000


def shares(zipf: Zipf, seed: int = 7) -> np.ndarray:
    """The share of draws that each rank got."""
    drawn = zipf.sample(np.random.default_rng(seed), DRAWS)
    return np.bincount(drawn, minlength=len(zipf.by_rank))[zipf.by_rank] / DRAWS


def test_each_rank_is_drawn_as_often_as_its_law_says() -> None:
    weights = np.arange(1, 1001) ** -0.99
    expected = weights / weights.sum()
    got = shares(Zipf(1000, 0.99, seed=1))
    # Five standard deviations of a binomial share, for every rank at once.
    assert (np.abs(got - expected) < 5 * np.sqrt(expected / DRAWS) + 1e-9).all()


def test_exponent_zero_is_uniform() -> None:
    got = shares(Zipf(100, 0.0, seed=1))
    assert got.max() / got.min() < 1.25


def test_every_key_has_one_rank() -> None:
    assert sorted(Zipf(500, 1.2, seed=3).by_rank.tolist()) == list(range(500))


def test_processes_with_one_seed_agree_on_the_popular_keys() -> None:
    assert Zipf(500, 1.2, seed=3).by_rank.tolist() == Zipf(500, 1.2, seed=3).by_rank.tolist()
    assert Zipf(500, 1.2, seed=3).by_rank.tolist() != Zipf(500, 1.2, seed=4).by_rank.tolist()


def test_subjects_get_their_shares() -> None:
    zipfs = [Zipf(10, 0.0, 1), Zipf(20, 0.0, 1)]
    drawn = list(islice(choices(zipfs, [0.75, 0.25], np.random.default_rng(2)), 40_000))
    assert sum(subject == 0 for subject, _ in drawn) / 40_000 == pytest.approx(0.75, abs=0.01)
    assert all(key < (10, 20)[subject] for subject, key in drawn)


def test_a_subject_without_a_share_is_never_chosen() -> None:
    drawn = islice(choices([Zipf(10, 0.0, 1), Zipf(10, 0.0, 1)], [1.0, 0.0], np.random.default_rng(2)), 20_000)
    assert {subject for subject, _ in drawn} == {0}


def test_poisson_arrivals_keep_their_rate_and_their_spread() -> None:
    times = np.asarray(list(islice(schedule("poisson", 1000.0, 0, np.random.default_rng(5)), 50_000)))
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1e6, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.03)  # exponential: as wide as its mean


def test_constant_arrivals_are_evenly_spaced_across_chunks() -> None:
    times = np.asarray(list(islice(schedule("constant", 1000.0, 0, np.random.default_rng(5)), 10_000)))
    assert set(np.diff(times).tolist()) <= {999_999, 1_000_000, 1_000_001}


def test_a_closed_loop_starts_now() -> None:
    assert set(islice(schedule("closed", 0.0, 0, np.random.default_rng(5)), 10)) == {CLOSED}


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="never comes"):
        next(schedule("poisson", 0.0, 0, np.random.default_rng(5)))
