"""The miss-ratio curve against caches that are really run: every size at once is what each size gives."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.missratio import WARM_SHARE, Fenwick, Requests, miss_ratio_curve, requests_of
from loadgen.plan import RunPlan
from loadgen.sizing import choices, drawn_requests
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.popularity import Zipfian
from loadgen.workloads.workload import Mix, Workload


def lru(requests: Requests, sizes: np.ndarray, ttl_s: np.ndarray, room: float) -> float:
    """The miss ratio of a cache of so many bytes that is run, its beginning left out."""
    cache: OrderedDict[int, float] = OrderedDict()
    held = missed = reads = 0.0
    warm = int(len(requests) * WARM_SHARE)
    for at in range(len(requests)):
        key, now = int(requests.key[at]), float(requests.at_s[at])
        write, gone = bool(requests.write[at]), bool(requests.gone[at])
        filled = cache.pop(key, None)
        held -= sizes[key] if filled is not None else 0.0
        fresh = filled is not None and now - filled < ttl_s[key]
        if not write and not gone and at >= warm:
            reads += 1
            missed += not fresh
        if gone:
            continue
        cache[key] = filled if filled is not None and fresh and not write else now
        held += sizes[key]
        while held > room:
            old, _ = cache.popitem(last=False)
            held -= sizes[old]
    return missed / reads


def zipf(count: int, keys: int, seed: int, exponent: float = 0.9) -> np.ndarray:
    weights = 1 / np.arange(1, keys + 1) ** exponent
    return np.random.default_rng(seed).choice(keys, size=count, p=weights / weights.sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.floats(0.0, 1.5))
def test_every_size_at_once_is_what_a_cache_of_that_size_does(seed: int, keys: int, exponent: float) -> None:
    requests = requests_of(zipf(900, keys, seed, exponent).tolist())
    sizes = np.random.default_rng(seed).integers(50, 60, keys).astype(np.float64)
    curve = miss_ratio_curve(requests, np.full(keys, 50.0), np.full(keys, 1e9), points=400)
    for room in (50.0, 50.0 * max(1, keys // 3), 50.0 * keys):
        exact = lru(requests, np.full(keys, 50.0), np.full(keys, 1e9), room)
        assert curve.miss_at(room * 1.02) == pytest.approx(exact, abs=1e-9)
    # Of items of different sizes a real cache may keep the small ones behind a large one: near, not equal.
    curve = miss_ratio_curve(requests, sizes, np.full(keys, 1e9), points=400)
    room = float(sizes.sum() / 2)
    assert abs(curve.miss_at(room) - lru(requests, sizes, np.full(keys, 1e9), room)) < 0.15


def test_sample_gives_the_same_curve() -> None:
    keys = 20_000
    requests = requests_of(zipf(120_000, keys, 3).tolist())
    sizes, lives = np.full(keys, 100.0), np.full(keys, 1e9)
    whole = miss_ratio_curve(requests, sizes, lives, sample=10**9)
    sampled = miss_ratio_curve(requests, sizes, lives, sample=20_000)
    for room in np.geomspace(20_000, 1.8e6, 12):
        assert sampled.miss_at(room) == pytest.approx(whole.miss_at(room), abs=0.03)


def test_items_that_outlive_their_ttl_miss_at_every_size() -> None:
    requests = requests_of([0] * 300, at_s=[float(at) for at in range(300)])
    curve = miss_ratio_curve(requests, np.full(1, 10.0), np.full(1, 10.0))
    assert curve.least == pytest.approx(0.1, abs=0.01)
    assert curve.miss_at(1e9) == pytest.approx(0.1, abs=0.01)


def test_deletes_and_writes_are_what_they_are() -> None:
    read, write, gone = (0, 0), (1, 0), (0, 1)
    parts = [read, read, gone, read, write, read] * 100
    requests = Requests(
        np.zeros(600, dtype=np.int64),
        np.arange(600, dtype=np.float64),
        np.asarray([one[0] for one in parts], dtype=np.bool_),
        np.asarray([one[1] for one in parts], dtype=np.bool_),
    )
    curve = miss_ratio_curve(requests, np.full(1, 10.0), np.full(1, 1e9))
    assert curve.miss_at(1e6) == pytest.approx(0.25, abs=0.01)  # one of four reads follows the delete
    assert curve.miss_at(1e6) == pytest.approx(lru(requests, np.full(1, 10.0), np.full(1, 1e9), 1e6))


@given(st.lists(st.tuples(st.integers(0, 39), st.floats(0, 100)), max_size=60), st.integers(0, 40), st.integers(0, 40))
def test_sums_over_ranges(changes: list[tuple[int, float]], a: int, b: int) -> None:
    tree, plain = Fenwick(40), [0.0] * 40
    for place, value in changes:
        tree.add(place, value)
        plain[place] += value
    first, last = min(a, b), max(a, b)
    assert tree.between(first, last) == pytest.approx(sum(plain[first:last]), abs=1e-6)


def test_size_is_told_for_each_hit_ratio_that_can_be_had() -> None:
    workload = Workload(name="one", keys=5000, popularity=Zipfian(exponent=0.9), mix=Mix(get=0.9, set=0.1))
    plan = RunPlan(workload=workload, rate=1000.0)
    space = KeySpace(workload, plan.data_seed)
    requests = drawn_requests(plan, space, 60_000)
    assert requests.write.mean() == pytest.approx(0.1, abs=0.01)
    curve = miss_ratio_curve(requests, np.full(5000, 200.0), np.full(5000, 1e9))
    found = list(choices(curve, 200.0, 900.0))
    assert [one.hit_ratio for one in found] == sorted(one.hit_ratio for one in found)
    assert [one.bytes for one in found] == sorted(one.bytes for one in found)
    for one in found:
        exact = lru(requests, np.full(5000, 200.0), np.full(5000, 1e9), one.bytes)
        assert exact == pytest.approx(1 - one.hit_ratio, abs=0.02)
        assert one.origin_per_s <= 900 * (1 - one.hit_ratio) + 1e-6
