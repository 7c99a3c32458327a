"""What is generated has the stated distribution.

Each test draws with a fixed seed and compares by a stated test. Power: a test that compares n draws with a
stated distribution by Kolmogorov and Smirnov at level 0.001 rejects with at least 99 % power whatever differs from it
by more than `CRITICAL + 1.63 / sqrt(n)` anywhere (n = 200 000: by 0.8 percentage points); the last tests of the file
show it by distributions that are wrong by a little more.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from loadgen.workloads.draws import Draws
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.popularity import Hotspot, Latest, Lorenz, Zipfian
from loadgen.workloads.sizes import GeneralisedExtreme, GeneralisedPareto, Table
from loadgen.workloads.workload import OPERATIONS, Workload, presets, workload_of

N = 200_000
CRITICAL = 1.95 / np.sqrt(N)
"""Of the Kolmogorov-Smirnov distance at level 0.001."""
ZERO = np.zeros(N)
NEWEST = np.zeros(N, dtype=np.int64)


def random(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def distance(drawn: np.ndarray, share_up_to: object) -> float:
    """Kolmogorov-Smirnov of whole numbers: the largest difference of the shares up to each of them."""
    values, counts = np.unique(drawn, return_counts=True)
    return float(np.abs(np.cumsum(counts) / len(drawn) - share_up_to(values)).max())  # type: ignore[operator]


def by_rank(keys: np.ndarray, count: int) -> np.ndarray:
    """Draws of each key, the most drawn first."""
    return np.sort(np.bincount(keys, minlength=count))[::-1]


def fitted_exponent(drawn: np.ndarray, keys: int) -> float:
    """Maximum likelihood of a Zipf law's exponent, from ranks that are known."""
    logs, mean = np.log(np.arange(1, keys + 1)), float(np.log(drawn + 1).mean())
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(-middle * logs)
        # The likelihood's slope: what is expected at this exponent, less what was seen.
        low, high = (middle, high) if (weights * logs).sum() / weights.sum() > mean else (low, middle)
    return (low + high) / 2


# --- popularity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.02, 0.3, 0.63, 0.99, 1.0, 1.21, 1.51, 2.68])
def test_zipf_has_its_exponent(exponent: float) -> None:
    keys = 10_000
    drawer = Zipfian(exponent=exponent, scrambled=False).over(keys, seed=1)
    drawn = drawer.draw(random(), ZERO, NEWEST)
    # Five standard errors: one over the root of the Fisher information, n times the variance of log rank.
    logs = np.log(np.arange(1, keys + 1))
    weights = np.exp(-exponent * logs) / np.exp(-exponent * logs).sum()
    error = 1 / np.sqrt(N * ((weights * logs**2).sum() - (weights * logs).sum() ** 2))
    assert fitted_exponent(drawn, keys) == pytest.approx(exponent, abs=5 * error)


def test_scrambling_changes_which_key_is_popular_and_not_how_popular() -> None:
    plain = Zipfian(scrambled=False).over(1000, seed=1).draw(random(), ZERO, NEWEST)
    scrambled = Zipfian(scrambled=True).over(1000, seed=1).draw(random(), ZERO, NEWEST)
    assert by_rank(plain, 1000).tolist() == by_rank(scrambled, 1000).tolist()
    assert plain.tolist() != scrambled.tolist()


def test_a_hotspot_gets_its_share() -> None:
    drawn = Hotspot(hot_keys=0.2, hot_operations=0.8).over(1000, seed=1).draw(random(), ZERO, NEWEST)
    assert by_rank(drawn, 1000)[:200].sum() / N == pytest.approx(0.8, abs=5 * np.sqrt(0.16 / N))


def test_a_moving_hotspot_is_elsewhere_later_and_keeps_what_it_does_not_replace() -> None:
    spot = Hotspot(hot_keys=0.1, hot_operations=1.0, move_every_s=10.0, move_keys=30).over(1000, seed=1)
    hot = [set(spot.draw(random(), np.full(20_000, at), NEWEST[:20_000]).tolist()) for at in (0.0, 9.99, 10.0, 20.0)]
    assert [len(keys) for keys in hot] == [100] * 4
    assert hot[0] == hot[1]
    assert (len(hot[0] & hot[2]), len(hot[0] & hot[3])) == (70, 40)


def test_latest_counts_back_from_the_newest_key() -> None:
    newest = np.repeat([1000, 1500], N // 2)
    drawn = Latest(exponent=0.99).over(1000, seed=1).draw(random(), ZERO, newest)
    back = newest - 1 - drawn
    assert (drawn >= 0).all()
    assert fitted_exponent(back, 1000) == pytest.approx(0.99, abs=0.02)


def test_a_lorenz_curve_is_followed_and_one_hits_are_asked_once() -> None:
    curve = [(0.01, 0.5), (0.1, 0.8), (1.0, 1.0)]
    setting = Lorenz(curve=curve, one_hit=0.2, one_hit_keys=0.5)
    keys = 200_000
    drawn = setting.over(keys, seed=1).draw(random(), ZERO, NEWEST)
    once = drawn[drawn >= keys // 2]
    assert len(once) / N == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / N))
    assert len(np.unique(once)) == len(once)
    often = by_rank(drawn[drawn < keys // 2], keys // 2)
    assert often[: keys // 200].sum() / often.sum() == pytest.approx(0.5, abs=0.01)
    assert often[: keys // 20].sum() / often.sum() == pytest.approx(0.8, abs=0.01)


def test_workers_share_one_hits_without_asking_one_twice() -> None:
    setting = Lorenz(curve=[(1.0, 1.0)], one_hit=1.0, one_hit_keys=0.9)
    drawn = [setting.over(10_000, 1, (worker, 3)).draw(random(), ZERO[:2000], NEWEST[:2000]) for worker in range(3)]
    assert len(np.unique(np.concatenate(drawn))) == 6000


# --- sizes: fb-etc ---------------------------------------------------------------------------------------


def test_fb_etc_keys_have_the_published_lengths() -> None:
    lengths = np.asarray([len(name) for name in KeySpace(workload_of("fb-etc")).names])
    drawn = GeneralisedExtreme(location=30.7984, scale=8.20449, shape=0.078688).sample(random(), N)

    def up_to(length: np.ndarray) -> np.ndarray:
        inside = 1 + 0.078688 * (length + 1 - 30.7984) / 8.20449  # lengths are rounded down
        return np.where(length >= 250, 1.0, np.exp(-np.maximum(inside, 1e-12) ** (-1 / 0.078688)))

    assert distance(drawn, up_to) < CRITICAL
    # Names can be no shorter than their number, which few are that short anyway.
    assert distance(lengths, up_to) < 1.95 / np.sqrt(len(lengths)) + 0.001


def fb_etc_up_to(size: np.ndarray) -> np.ndarray:
    """The share of values of at most so many bytes, from the published constants."""
    first = (0.00536, 0.00047, 0.17820, 0.09239, 0.00018, 0.02740, 0.00065, 0.00606)
    small = np.cumsum([*first, 0.00023, 0.00837, 0.00837, 0.08989, 0.00092, 0.00326, 0.01980])
    tail = 1 - (1 + 0.348238 * np.maximum(size + 1 - 15, 0) / 214.476) ** (-1 / 0.348238)
    large = small[-1] + (1 - small[-1]) * np.where(size >= 1 << 20, 1.0, tail)
    return np.where(size < 15, small[np.minimum(size, 14)], large)


def test_fb_etc_values_have_the_published_sizes() -> None:
    drawn = workload_of("fb-etc").value_bytes.sample(random(), N)
    assert distance(drawn, fb_etc_up_to) < CRITICAL


def test_fb_etc_asks_thirty_gets_an_update_and_one_key_in_a_hundred_gets_half() -> None:
    space = KeySpace(workload_of("fb-etc"))
    operations = Draws(space, seed=1, worker=0, workers=1).at(np.linspace(0, 60, N))
    gets = int((operations.kind == OPERATIONS.index("get")).sum())
    assert gets / N == pytest.approx(30 / 31, abs=5 * np.sqrt(30 / 31 / 31 / N))
    popular = by_rank(operations.keys, space.keys)[: space.keys // 100].sum() / N
    assert popular == pytest.approx(0.55, abs=0.02)


# --- Meta: against the published files, where they are ----------------------------------------------------

FILES = Path(os.environ.get("LOADGEN_TRACES", "no-traces")) / "cachelib"
META = [("meta-kvcache", "kvcache_reg"), ("meta-graph-leader", "graph_cache_leader_fbobj")]


@pytest.mark.parametrize(
    ("preset", "median", "p90", "p99", "mean"),
    [("meta-kvcache", 159, 191, 959, 335.2), ("meta-graph-leader", 223, 511, 2271, 341.2)],
)
def test_meta_values_have_the_published_quantiles(preset: str, median: int, p90: int, p99: int, mean: float) -> None:
    drawn = workload_of(preset).value_bytes.sample(random(), 1_000_000)
    assert np.quantile(drawn, 0.5) == median
    assert np.quantile(drawn, 0.9) == pytest.approx(p90, rel=0.02)
    assert np.quantile(drawn, 0.99) == pytest.approx(p99, rel=0.05)
    assert drawn.mean() == pytest.approx(mean, rel=0.05)


@pytest.mark.published
@pytest.mark.parametrize(("preset", "file"), META)
def test_meta_values_follow_the_published_file(preset: str, file: str) -> None:
    published = json.loads((FILES / f"{file}.sizes.json").read_text())
    sizes, weights = np.asarray(published["valSizeRange"]), np.asarray(published["valSizeRangeProbability"])
    cdf = np.cumsum(weights) / weights.sum()
    drawn = np.sort(workload_of(preset).value_bytes.sample(random(), N))
    found = np.searchsorted(drawn, sizes, side="right") / N
    assert np.abs(found - cdf).max() < 0.02 + CRITICAL


@pytest.mark.published
@pytest.mark.parametrize(("preset", "file"), META)
def test_meta_popularity_follows_the_published_buckets(preset: str, file: str) -> None:
    published = json.loads((FILES / f"{file}.pop.json").read_text())
    keys, weights = (np.asarray(published[f"popularity{name}"], dtype=float) for name in ("Buckets", "Weights"))
    order = np.argsort(-weights / keys)
    at, share = np.cumsum(keys[order]) / keys.sum(), np.cumsum(weights[order]) / weights.sum()
    setting = workload_of(preset).popularity
    assert isinstance(setting, Lorenz)
    x, y = np.asarray([(0.0, 0.0), *setting.curve]).T
    grid = np.logspace(-6.5, 0, 1000)
    assert np.abs(np.interp(grid, x, y) - np.interp(grid, at, share)).max() < 0.01
    assert setting.one_hit == pytest.approx(published["oneHits"], abs=0.001)


# --- mixes, and the power of these tests ------------------------------------------------------------------


@pytest.mark.parametrize("preset", presets())
def test_a_preset_asks_its_mix(preset: str) -> None:
    space = KeySpace(workload_of(preset))
    operations = Draws(space, seed=2, worker=0, workers=1).at(np.linspace(0, 60, 20_000))
    found = np.bincount(operations.kind, minlength=len(OPERATIONS)) / 20_000
    for share, (name, stated) in zip(found, space.workload.mix.shares().items(), strict=True):
        assert share == pytest.approx(stated, abs=5 * np.sqrt(stated * (1 - stated) / 20_000) + 1e-9), name
    assert operations.keys.min() >= 0
    assert operations.keys.max() < space.total


@pytest.mark.parametrize(("scale", "shape"), [(214.476 * 1.05, 0.348238), (214.476, 0.348238 + 0.05)])
def test_wrong_constants_of_fb_etc_would_be_found(scale: float, shape: float) -> None:
    right = workload_of("fb-etc").value_bytes
    small = random().random(N) < 0.44155
    wrong = GeneralisedPareto(location=15, scale=scale, shape=shape).sample(random(6), N)
    drawn = np.where(small, right.parts[0].of.sample(random(7), N), wrong)  # type: ignore[union-attr]
    assert distance(drawn, fb_etc_up_to) > CRITICAL


def test_a_wrong_exponent_would_be_found() -> None:
    drawn = Zipfian(exponent=1.02, scrambled=False).over(10_000, seed=1).draw(random(), ZERO, NEWEST)
    assert abs(fitted_exponent(drawn, 10_000) - 0.99) > 0.02


def test_a_table_draws_only_what_has_a_weight() -> None:
    drawn = Table(values=[(1, 0.0), (2, 3.0), (5, 1.0)]).sample(random(), N)
    assert set(np.unique(drawn).tolist()) == {2, 5}
    assert (drawn == 2).mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.1875 / N))


def test_names_are_all_different() -> None:
    for preset in ("fb-etc", "ycsb-d", "meta-kvcache"):
        names = KeySpace(workload_of(preset)).names
        assert len(set(names)) == len(names)


def test_every_curve_in_a_preset_rises() -> None:
    for preset in presets():
        popularity = workload_of(preset).popularity
        if isinstance(popularity, Lorenz):
            assert all(a < c and b <= d for (a, b), (c, d) in pairwise(popularity.curve))


def test_a_workload_of_ones_own_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nkeys = 10\npopularity = { kind = "empirical", counts = [9, 1] }\n')
    own = workload_of(str(path))
    assert isinstance(own, Workload)
    drawn = own.popularity.over(own.keys, seed=1).draw(random(), ZERO, NEWEST)
    assert (drawn % 2 == 0).mean() == pytest.approx(0.9, abs=0.01)
