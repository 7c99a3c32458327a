"""Hits held against the store afterwards: a correct cache has no mismatch, what stays old is counted by level."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator

import pytest

from cachelib import AsyncCache, Cache, Compare, ConfigError, Entity, Strong
from cachelib.envelope import decode, encode
from cachelib.metrics import COMPARED, MISMATCHES
from cachelib.model import value_of
from cachelib.stores import AsyncSqlStore
from tests.integration.invalidator_daemon import CUSTOMERS, Shop, until
from tests.integration.verifying import plant

ALL = Compare(share=1.0, per_s=1000, later="100ms")
STRONG = Entity.from_table("customers", key="id", consistency=Strong())


@pytest.fixture(params=["redis", "memcached"])
def cache_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def shop(sqlite_url: str) -> Iterator[Shop]:
    shop = Shop(sqlite_url)
    yield shop
    shop.close()


def counted(cache: Cache | AsyncCache, metric: str, level: str = "eventual") -> int:
    return cache.metrics.values().get((metric, "customers", level), 0)


def quiet(cache: Cache) -> None:
    """Nothing waits to be compared."""
    comparer = cache._comparer
    assert comparer is not None
    until(lambda: not comparer._working)


def test_a_correct_cache_has_no_mismatch(shop: Shop, cache_url: str) -> None:
    with Cache(cache_url, store=shop.store, entities=[CUSTOMERS], compare=ALL) as cache:
        for turn in range(60):
            with cache.transaction() as tx:
                tx.execute("update customers set tier = :tier where id = :id", tier=str(turn), id=turn % 5)
            assert cache.get(CUSTOMERS, turn % 5)["tier"] == str(turn)
            cache.get(CUSTOMERS, turn % 5)
            cache.get(CUSTOMERS, 999)  # absence
        quiet(cache)
        assert counted(cache, COMPARED) >= 60
        assert counted(cache, MISMATCHES) == 0


def test_what_nobody_told_is_a_mismatch_of_its_level(
    shop: Shop, cache_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Cache(cache_url, store=shop.store, compare=ALL) as cache, caplog.at_level(logging.WARNING, "cachelib.compare"):
        until(lambda: cache.read(CUSTOMERS, 7).source == "hit")
        shop.sql("update customers set tier = 'gold' where id = 7")  # past the library, and no invalidator
        assert cache.get(CUSTOMERS, 7)["tier"] == "plain"
        quiet(cache)
        assert counted(cache, MISMATCHES) >= 1
    assert "key 7 of customers, eventual read" in caplog.text


def test_a_change_that_is_told_soon_is_no_mismatch(shop: Shop, redis_url: str) -> None:
    late = Compare(share=1.0, per_s=1000, later="1s")
    with Cache(redis_url, store=shop.store, compare=late) as cache:
        until(lambda: cache.read(CUSTOMERS, 7).source == "hit")
        quiet(cache)
        shop.sql("update customers set tier = 'gold' where id = 7")
        assert cache.get(CUSTOMERS, 7)["tier"] == "plain"
        comparer = cache._comparer
        assert comparer is not None
        until(lambda: comparer._doubts)
        cache.invalidate(CUSTOMERS, 7)  # as the invalidator would
        quiet(cache)
        assert counted(cache, MISMATCHES) == 0


def test_a_strong_hit_with_another_content_is_a_mismatch_of_strong(shop: Shop, redis_url: str) -> None:
    with Cache(redis_url, store=shop.store, entities=[STRONG], compare=ALL) as cache:
        cache.get(STRONG, 7)
        name = cache.explain(STRONG, 7).name
        item = decode(cache.backend.get(name) or b"")
        plant(redis_url, name, encode(item.but(content=value_of(item.content.payload.replace(b"plain", b"other")))))
        cache._core.comparer.offer(STRONG, 7, cache.backend.get(name) or b"", Strong())  # type: ignore[union-attr]
        quiet(cache)
        assert counted(cache, MISMATCHES, "strong") == 1


def test_the_hit_path_stays_short_and_one_in_sixteen_of_it_is_offered(shop: Shop, redis_url: str) -> None:
    with Cache(redis_url, store=shop.store, compare=Compare(share=1 / 16, per_s=10_000)) as cache:
        for _ in range(320):
            cache.get(CUSTOMERS, 7)
        quiet(cache)
        view = cache._layout.view
        assert view is not None
        assert CUSTOMERS in view.lanes
        assert 10 <= counted(cache, COMPARED) <= 80


def test_after_a_fork_the_child_compares_by_itself(shop: Shop, redis_url: str) -> None:
    with Cache(redis_url, store=shop.store, compare=ALL) as cache:
        comparer = cache._comparer
        assert comparer is not None
        cache.get(CUSTOMERS, 7)
        cache.get(CUSTOMERS, 7)
        quiet(cache)
        comparer._working = True  # as if the parent's worker had been at it
        comparer._guard.acquire()
        pid = os.fork()
        if pid == 0:
            before = counted(cache, COMPARED)
            cache.get(CUSTOMERS, 7)
            deadline = time.monotonic() + 20
            while counted(cache, COMPARED) == before and time.monotonic() < deadline:
                time.sleep(0.02)
            os._exit(0 if counted(cache, COMPARED) > before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        comparer._guard.release()


def test_no_more_is_compared_than_the_budget_allows(shop: Shop, redis_url: str) -> None:
    with Cache(redis_url, store=shop.store, compare=Compare(share=1.0, per_s=1)) as cache:
        for _ in range(200):
            cache.get(CUSTOMERS, 7)
        until(lambda: counted(cache, COMPARED) >= 1)
        assert counted(cache, COMPARED) <= 20


def test_the_async_face_compares_too(shop: Shop, redis_url: str) -> None:
    async def run() -> tuple[int, int]:
        store = AsyncSqlStore(shop.url)
        async with AsyncCache(redis_url, store=store, compare=ALL) as cache:
            for _ in range(5):
                await cache.get(CUSTOMERS, 7)
            shop.sql("update customers set tier = 'gold' where id = 7")
            assert (await cache.get(CUSTOMERS, 7))["tier"] == "plain"
            for _ in range(500):
                if counted(cache, MISMATCHES):
                    break
                await asyncio.sleep(0.02)
            found = counted(cache, COMPARED), counted(cache, MISMATCHES)
        await store.close()
        return found

    compared, mismatches = asyncio.run(run())
    assert compared >= 5
    assert mismatches >= 1


@pytest.mark.parametrize("wrong", [2.0, -0.1, "all"])
def test_a_wrong_share_is_refused(shop: Shop, wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"Compare\.share"):
        Cache("memory://", store=shop.store, compare=wrong)  # type: ignore[arg-type]


def test_without_a_store_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ConfigError, match="store"):
        Cache("memory://", compare=1e-4)
