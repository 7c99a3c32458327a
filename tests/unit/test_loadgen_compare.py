"""Two runs beside each other: what differs is found, what does not is not, and the interval means what it says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from loadgen.compare import Change, InvalidRun, compare, drawn_percentiles
from loadgen.histogram import Histogram
from loadgen.result import Host
from tests.unit.loadgen_results import run


def changes(**b: float) -> dict[str, Change]:
    found = compare(run(seed=1, seconds=30), run(seed=2, seconds=30, **b))
    return {one.name: one.change for one in found.figures}


def test_slower_run_is_a_regression() -> None:
    found = compare(run(seed=1, seconds=30), run(seed=2, seconds=30, median_ms=1.0))
    by_name = {one.name: one for one in found.regressions}
    assert "get.p50" in by_name
    assert by_name["get.p50"].low < 1.25 < by_name["get.p50"].high
    assert by_name["get.p50"].ratio == pytest.approx(1.25, rel=0.03)


def test_faster_run_is_none() -> None:
    found = changes(median_ms=0.5)
    assert found["get.p99"] is Change.BETTER
    assert Change.WORSE not in found.values()


def test_same_system_twice_is_no_regression() -> None:
    for seed in range(5):
        found = compare(run(seed=seed, seconds=20), run(seed=100 + seed, seconds=20))
        assert not found.regressions, seed


def test_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    """95 % intervals of a ratio that is known, over runs whose seconds are noisy in blocks of three."""
    random, within, runs = np.random.default_rng(7), 0, 50
    for _ in range(runs):
        a, b = _noisy(random, 1.0), _noisy(random, 1.3)
        ratios = _drawn(b, random) / _drawn(a, random)
        low, high = np.percentile(ratios, (2.5, 97.5))
        within += low <= 1.3 <= high
    # Of 50 at 95 % fewer than 42 would be a chance of 0.2 %, and a bootstrap over few blocks is a little narrow.
    assert within >= 41


def _drawn(seconds: list[Histogram], random: np.random.Generator) -> NDArray[np.float64]:
    return drawn_percentiles(seconds, [99.0], random, draws=300)[0]


def _noisy(random: np.random.Generator, factor: float) -> list[Histogram]:
    level = np.repeat(random.lognormal(0, 0.08, 15), 3)
    return [Histogram.of((random.exponential(factor * one, 300) * 1e6).astype(np.int64)) for one in level]


def test_percentile_without_enough_samples_is_not_compared() -> None:
    names = {one.name for one in compare(run(seconds=10, rate=200), run(seed=2, seconds=10, rate=200)).figures}
    assert "get.p50" in names
    assert "get.p99.9" not in names


def test_stale_reads_that_were_not_there_before_are_a_regression() -> None:
    found = compare(run(seed=1, seconds=30), run(seed=1, seconds=30, fault=True))
    assert "stale.ratio" in {one.name for one in found.regressions}


def test_what_makes_runs_incomparable_is_told() -> None:
    a = run(seconds=10)
    b = run(seconds=10, rate=500, host=Host("other", "Linux", 64, 1), versions=a.versions | {"redis": "8.0"})
    notes = "\n".join(compare(a, b).notes)
    assert "the hosts differ" in notes
    assert "version of redis: 7.0.15, 8.0" in notes
    assert "setting rate: 1000, 500" in notes


def test_invalid_run_is_not_compared() -> None:
    with pytest.raises(InvalidRun, match="worker 1 was lost"):
        compare(run(seconds=10), run(seconds=10, invalid=["worker 1 was lost"]))


def test_run_of_a_few_seconds_is_not_compared() -> None:
    with pytest.raises(InvalidRun, match="run longer"):
        compare(run(seconds=10), run(seconds=3))
