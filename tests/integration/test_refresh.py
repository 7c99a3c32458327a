"""Refresh on real servers: what somebody changed past the library is hit, not loaded, wherever it was cached."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachelib import Cache
from cachelib.backends import from_url
from cachelib.layout import decode_layout
from invalidator.formats.base import Changes
from invalidator.formats.debezium import Debezium
from invalidator.rules import Rules
from invalidator.session import batch_for
from invalidator.sources.base import Event
from tests.integration.invalidator_daemon import Daemon, Shop, until
from tests.integration.refresh_entities import CUSTOMERS


@pytest.fixture(params=["redis_url", "memcached_url"])
def cache_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(f"sqlite:///{tmp_path / 'shop.db'}")
    made.store.install("customers", key="id", watch="tier")
    yield made
    made.close()


def daemon(shop: Shop, folder: Path, cache_url: str, **apply: Any) -> Daemon:
    made = Daemon(folder, shop.url, [cache_url], apply=apply)
    made.settings["entities"] = ["tests.integration.refresh_entities:entities"]
    made.write()
    return made


def hit(cache: Cache, number: int) -> Any:
    read = cache.read(CUSTOMERS, number)
    return read.value if read.source == "hit" else f"not a hit: {read.source}"


def test_change_past_the_library_is_a_hit_where_the_key_was_cached(shop: Shop, cache_url: str, tmp_path: Path) -> None:
    with (
        Cache(cache_url, store=shop.store, entities=[CUSTOMERS]) as cache,
        daemon(shop, tmp_path, cache_url, refresh_watch=0) as running,
    ):
        cache.get_many(CUSTOMERS, [7, 9])
        loads = shop_loads(shop)
        shop.sql("update customers set tier = 'gold' where id in (7, 8)")
        shop.sql("delete from customers where id = 9")
        until(lambda: hit(cache, 7) == {"id": 7, "tier": "gold"})
        until(lambda: hit(cache, 9) is None)
        assert loads() == 0, "somebody loaded what was to be written through"
        assert cache.read(CUSTOMERS, 8).source == "filled", "I2: nothing enters an empty slot"
        until(lambda: running.metric("refreshes_total") >= 3)


def shop_loads(shop: Shop) -> Any:
    """How often the store was asked for rows from now on."""
    real, asked = shop.store.load, []

    def load(loader: Any, keys: Any, **named: Any) -> Any:
        asked.append(keys)
        return real(loader, keys, **named)

    shop.store.load = load  # type: ignore[method-assign]
    return lambda: len(asked)


def test_watched_put_tells_whether_anybody_read_it(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with (
        Cache(redis_url, store=shop.store, entities=[CUSTOMERS]) as cache,
        daemon(shop, tmp_path, redis_url, refresh_watch=1) as running,
    ):
        cache.get(CUSTOMERS, 7)
        shop.sql("update customers set tier = 'first' where id = 7")
        until(lambda: cache.get(CUSTOMERS, 7)["tier"] == "first")
        until(lambda: hit(cache, 7) == {"id": 7, "tier": "first"})  # its reader has filled it anew
        shop.sql("update customers set tier = 'second' where id = 7")
        until(lambda: running.metric("refreshes_watched_total") == 1)
        assert 'outcome="read"' in metrics(running)
        shop.sql("update customers set tier = 'third' where id = 7")  # nobody has asked since
        until(lambda: running.metric("refreshes_watched_total") == 2)
        assert 'outcome="unread"' in metrics(running)


def metrics(running: Daemon) -> str:
    lines = running.get("/metrics")[1].splitlines()
    return "\n".join(line for line in lines if line.startswith("invalidator_refreshes_watched_total"))


def test_event_of_debezium_is_written_through(shop: Shop, cache_url: str) -> None:
    with Cache(cache_url, store=shop.store, entities=[CUSTOMERS]) as cache:
        before = cache.read(CUSTOMERS, 7)
        row = {"id": 7, "tier": "gold", "row_version": before.version + 1}
        source = {"connector": "postgresql", "schema": "public", "table": "customers", "ts_us": time.time_ns() // 1000}
        value = json.dumps({"before": None, "after": row, "source": source, "op": "u"}).encode()
        told = Debezium()("shop.public.customers", b'{"id":7}', value)
        assert isinstance(told, Changes)
        effects = Rules([CUSTOMERS]).read([Event("0", "1", told.changes[0])]).effects
        node = from_url(cache_url)
        layout = decode_layout(shop.store.read_layout() or b"")
        batch = batch_for(layout, "lc", effects, chosen=lambda put: put)
        node.apply(batch, {}, time.time_ns() // 1_000_000)
        node.apply(batch, {}, time.time_ns() // 1_000_000)  # told twice: the second changes nothing
        node.close()
        read = cache.read(CUSTOMERS, 7)
        assert (read.source, read.value, read.version) == ("hit", {"id": 7, "tier": "gold"}, before.version + 1)
