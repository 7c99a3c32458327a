"""Arrivals: each kind has its rate and its spread, over all workers together."""

from __future__ import annotations

import numpy as np
import pytest

from cachelib.errors import ConfigError
from loadgen.arrivals import FLAT, Constant, Gaps, GeneralisedPareto, Poisson, Profile, Starts

RATE, SECONDS = 2000.0, 60.0


def starts(gaps: Gaps, profile: Profile = FLAT, workers: int = 1, seed: int = 3) -> np.ndarray:
    parts = [
        Starts(gaps, profile, RATE, SECONDS, seed=seed, worker=worker, workers=workers).all()
        for worker in range(workers)
    ]
    return np.sort(np.concatenate(parts))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("gaps", "variation"),
    # Standard deviation over mean; of the generalised Pareto 1 / sqrt(1 - 2 * shape).
    [(Constant(), 0.0), (Poisson(), 1.0), (GeneralisedPareto(), 1 / np.sqrt(1 - 2 * 0.154971))],
)
def test_arrivals_keep_rate_and_spread_however_many_workers(gaps: Gaps, variation: float, workers: int) -> None:
    times = starts(gaps, workers=workers)
    assert len(times) == pytest.approx(RATE * SECONDS, rel=0.02)
    found = np.diff(times)
    assert found.std() / found.mean() == pytest.approx(variation, abs=0.03)
    assert times[0] >= 0
    assert times[-1] < SECONDS


def test_poisson_gaps_are_exponential() -> None:
    found = np.sort(np.diff(starts(Poisson(), workers=2)))
    up_to = 1 - np.exp(-RATE * found)
    steps = np.arange(1, len(found) + 1) / len(found)
    assert np.abs(up_to - steps).max() < 1.95 / np.sqrt(len(found))  # Kolmogorov-Smirnov, level 0.001


def test_generalised_pareto_gaps_have_the_published_shape() -> None:
    shape = 0.154971
    found = np.sort(np.diff(starts(GeneralisedPareto(shape))))
    up_to = 1 - (1 + shape * found * RATE / (1 - shape)) ** (-1 / shape)
    steps = np.arange(1, len(found) + 1) / len(found)
    assert np.abs(up_to - steps).max() < 1.95 / np.sqrt(len(found))


def test_a_ramp_grows_evenly() -> None:
    times = starts(Constant(), Profile([(0.0, 0.0), (60.0, 2.0)]))
    by_second = np.bincount(times.astype(int), minlength=60)
    expected = RATE * 2.0 * (np.arange(60) + 0.5) / 60
    assert np.abs(by_second - expected).max() <= 2


def test_steps_change_at_their_times() -> None:
    times = starts(Constant(), Profile([(0.0, 0.5), (20.0, 2.0), (40.0, 0.0)], steps=True))
    by_second = np.bincount(times.astype(int), minlength=60)
    assert set(by_second[:20].tolist()) <= {999, 1000, 1001}
    assert set(by_second[20:40].tolist()) <= {3999, 4000, 4001}
    assert by_second[40:].sum() == 0


def test_one_seed_is_one_schedule() -> None:
    assert starts(Poisson()).tolist() == starts(Poisson()).tolist()
    assert starts(Poisson()).tolist() != starts(Poisson(), seed=4).tolist()


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="never comes"):
        Starts(Poisson(), FLAT, 0.0, 1.0, seed=1, worker=0, workers=1)
