"""What a call costs, counted and not timed: round trips, receives, polls, loads, and Python calls.

A figure that rises is a regression that a busy machine would hide from a clock. Where one falls,
lower it here. The times are those of `tests/bench`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from cachelib import L1, AsyncCache, Cache, Entity, Row
from cachelib.drivers import run_now
from cachelib.model import Get, Leased
from cachelib.stores import SqlStore
from cachelib.stores.base import Loaded
from tests.bench._cost import Cost
from tests.bench._one_row import OneRow, customers

KEYS = list(range(1, 101))


class Shop:
    """Customers in SQLite behind a cache of one server."""

    def __init__(self, store: SqlStore, url: str, **settings: Any) -> None:
        self.loads = 0
        self.customers = Entity(
            "customer:{id:int}", table="customers", key="id", load=self._load, save=self._save, ttl="1d"
        )
        self.cache = Cache(url, store=store, entities=[self.customers], **settings)
        self.cache.get(self.customers, 10**6)  # the layout is read, the connection made, the script loaded
        self.loads = 0

    def _load(self, tx: Any, keys: Sequence[int]) -> dict[int, Row]:
        self.loads += 1
        sql = "select id, name, row_version from customers where id in :keys"
        return {key: Row({"name": name}, version) for key, name, version in tx.execute(sql, {"keys": list(keys)})}

    def _save(self, tx: Any, key: int, value: dict[str, Any]) -> None:
        tx.execute("update customers set name = :name where id = :id", {"name": value["name"], "id": key})

    def warm(self, keys: Sequence[int]) -> None:
        """The keys are cached, the hit path is open, and the layout was looked at a moment ago."""
        for _ in range(2):
            self.cache.get_many(self.customers, keys)
        self.cache._layout.view.refresh_at = time.monotonic() + 60


@pytest.fixture(params=["redis", "memcached"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shop(request: pytest.FixtureRequest, server: str, sqlite_url: str) -> Iterator[Shop]:
    with SqlStore(sqlite_url) as store:
        with store.transaction() as tx:
            tx.execute("create table customers (id integer primary key, name text)")
            for key in KEYS:
                tx.execute("insert into customers values (:id, 'x')", {"id": key})
            tx.commit()
        store.install("customers", key="id")
        shop = Shop(store, request.getfixturevalue(f"{server}_url"))
        yield shop
        shop.cache.close()


def test_a_hit_is_one_write_one_read_and_few_python_calls(shop: Shop, server: str) -> None:
    shop.warm([1])
    calls = 3
    for _ in range(16):  # one hit of 16 is timed; this is not that one
        cost = Cost(lambda: shop.cache.get(shop.customers, 1))
        if cost.python <= calls:
            break
    assert cost.result == {"name": "x"}
    assert cost.system == {"sendall": 1, "recv": 1}
    assert cost.python <= calls


def test_a_stale_value_while_another_loads_is_one_round_trip(shop: Shop, server: str) -> None:
    """The item shows that its lease is held, so nobody is asked for it."""
    shop.warm([1])
    shop.cache.invalidate(shop.customers, 1)
    core = shop.cache._core
    (name,) = core.names(shop.cache._layout.view, shop.customers, b"customer:1")
    assert isinstance(run_now(core.node.execute(name, Get(99, 60_000))), Leased)
    cost = Cost(lambda: shop.cache.read(shop.customers, 1))
    assert (cost.result.value, cost.result.source) == ({"name": "x"}, "stale")
    assert cost.system == {"sendall": 1, "recv": 1}
    many = Cost(lambda: shop.cache.get_many(shop.customers, [1, 1]))
    assert many.result == {1: {"name": "x"}}
    assert many.system["sendall"] == 1
    assert shop.loads == 1


def test_a_local_hit_asks_nobody(server: str, sqlite_url: str, request: pytest.FixtureRequest) -> None:
    entity = Entity("customer:{id:int}", load=lambda tx, keys: dict.fromkeys(keys, "x"))
    url, l1 = request.getfixturevalue(f"{server}_url"), L1(ttl="60s")
    with SqlStore(sqlite_url) as store, Cache(url, store=store, l1=l1) as cache:
        for _ in range(3):
            cache.get(entity, 1)
        cache._layout.view.refresh_at = time.monotonic() + 60
        cost = Cost(lambda: cache.get(entity, 1))
    assert (cost.result, cost.system) == ("x", {})
    assert cost.python <= 2


def test_a_miss_is_a_look_a_lease_and_a_fill(shop: Shop, server: str) -> None:
    shop.warm([1])
    cost = Cost(lambda: shop.cache.get(shop.customers, 2))
    assert (cost.result, shop.loads) == ({"name": "x"}, 2)
    # memcached: a look, then for lease and fill a read and a write each, as it cannot run the rules
    assert cost.trips == {"redis": 3, "memcached": 5}[server]
    assert cost.system["poll"] + cost.system["select"] <= 2


def test_a_miss_takes_few_python_calls(server: str, request: pytest.FixtureRequest) -> None:
    entity = customers()
    with Cache(request.getfixturevalue(f"{server}_url"), store=OneRow()) as cache:  # type: ignore[arg-type]
        for key in range(3):
            cache.get(entity, key)
        cache._layout.view.refresh_at = time.monotonic() + 60
        # A reply that comes in two pieces is a few calls more, now and then.
        fewest = min(Cost(partial(cache.get, entity, key)).python for key in range(3, 8))
    assert fewest <= {"redis": 195, "memcached": 320}[server]


def test_a_miss_of_a_batch_is_as_many_round_trips_and_one_load(shop: Shop, server: str) -> None:
    shop.warm([1])
    cost = Cost(lambda: shop.cache.get_many(shop.customers, KEYS))
    assert len(cost.result) == 100
    assert (cost.trips, shop.loads) == ({"redis": 3, "memcached": 5}[server], 2)


def test_an_absent_row_is_one_round_trip(shop: Shop) -> None:
    shop.warm([1])
    shop.cache.get(shop.customers, 555)
    cost = Cost(lambda: shop.cache.get(shop.customers, 555, default="none"))
    assert (cost.result, cost.trips) == ("none", 1)


def test_a_put_of_a_hot_key_is_one_step_after_the_commit(shop: Shop, server: str) -> None:
    shop.warm([1])
    cost = Cost(lambda: shop.cache.put(shop.customers, 1, {"name": "y"}))
    assert cost.result.confirmed
    assert cost.trips == {"redis": 1, "memcached": 2}[server]
    shop.loads = 0
    assert (shop.cache.get(shop.customers, 1), shop.loads) == ({"name": "y"}, 0)


def test_a_transaction_of_100_keys_is_one_pipeline(shop: Shop, server: str) -> None:
    shop.warm(KEYS)

    def write() -> None:
        with shop.cache.transaction() as tx:
            tx.execute("update customers set name = 'z' where id <= 100")

    assert Cost(write).trips == {"redis": 1, "memcached": 2}[server]
    shop.loads = 0
    assert (shop.cache.get_many(shop.customers, KEYS), shop.loads) == ({key: {"name": "z"} for key in KEYS}, 0)


def test_a_batch_of_hits_is_one_round_trip_and_hardly_a_python_call_for_each_key(shop: Shop, server: str) -> None:
    shop.warm(KEYS)
    cost = Cost(lambda: shop.cache.get_many(shop.customers, KEYS))
    assert len(cost.result) == 100
    assert cost.trips == 1
    assert cost.python <= {"redis": 33, "memcached": 160 + 30}[server]  # memcached's replies come in some pieces


def test_tasks_of_one_turn_share_a_write(server: str, request: pytest.FixtureRequest) -> None:
    class OneRow:
        document: bytes | None = None

        async def load(self, loader: Any, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
            return Loaded(dict.fromkeys(keys, "x"), 1)

        async def read_layout(self) -> bytes | None:
            return self.document

        async def write_layout(self, document: bytes, expected: bytes | None) -> None:
            self.document = document

    entity = Entity("customer:{id:int}", load=lambda tx, keys: {})

    async def main() -> Cost:
        async with AsyncCache(request.getfixturevalue(f"{server}_url"), store=OneRow()) as cache:  # type: ignore[arg-type]
            for key in range(32):
                await cache.get(entity, key)
            cache._layout.view.refresh_at = time.monotonic() + 60
            cost = Cost()
            cost.begin()
            try:
                assert await asyncio.gather(*(cache.get(entity, key) for key in range(32))) == ["x"] * 32
            finally:
                cost.end()
            return cost

    cost = asyncio.run(main())
    assert cost.trips == 1
    assert cost.system["recv"] <= 8  # as the server's replies come
