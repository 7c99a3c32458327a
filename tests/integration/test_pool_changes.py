"""Nodes are added and taken away while strong reads and writes go on: none is stale. With a list of nodes in each
process, as it is usually done, some are."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from cachelib import Cache, Strong
from cachelib.cli_layout import view_of
from cachelib.drivers import run_now
from cachelib.layout import with_nodes
from cachelib.places import node_name
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.pool_load import KEYS, Load, NaiveNodes, Ours
from tests.servers.redis import RedisServer


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("pool-changes"))


@pytest.fixture(scope="module")
def pool() -> Iterator[list[RedisServer]]:
    with ExitStack() as started:
        yield [started.enter_context(RedisServer()) for _ in range(3)]


@pytest.fixture
def world(pool: list[RedisServer], template: Path, tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    made = World("sync", [server.url for server in pool[:2]], f"sqlite:///{path}")  # type: ignore[arg-type]
    for server in pool:
        server.flush()
    for key in KEYS:
        made.customer(key, f"{key}:0")
    yield made
    made.close()


def change(world: World, *urls: str) -> None:
    """What `cachelib layout add` and `remove` do; returns when it is current."""
    with view_of(world.store_url) as view:
        run_now(view.settle(run_now(view.publish(lambda now: with_nodes(now, [node_name(url) for url in urls])))))


@pytest.mark.slow
def test_strong_reads_stay_strong_while_nodes_come_and_go(world: World, pool: list[RedisServer]) -> None:
    customers = world.customers(consistency=Strong())
    clients = [Ours(world.cache(customers), customers) for _ in range(3)]
    first, second, third = (server.url for server in pool)
    with Load(clients) as load:
        until(lambda: load.writes > 50)
        change(world, first, second, third)
        change(world, second, third)
        change(world, first, third)
        until(lambda: load.writes > 300)
    assert load.stale == []
    assert load.wrong == []
    assert load.errors == {}
    assert load.unconfirmed == 0
    assert sum(client.hits for client in clients) > len(load.took_s) / 4  # the cache has served them
    with Cache(first, store=world.store, entities=[customers]) as cache:
        assert {key: cache.get(customers, key)["name"] for key in KEYS} == {
            key: f"{key}:{load.acked[key]}" for key in KEYS
        }


@pytest.mark.parametrize("changes", [False, True], ids=["the_list_stays", "the_list_changes"])
def test_a_naive_list_of_nodes_shows_stale_values_when_it_changes(
    world: World, pool: list[RedisServer], changes: bool
) -> None:
    nodes: list[Any] = [redis.Redis(port=server.port) for server in pool]
    locks = {key: threading.Lock() for key in KEYS}
    few, all_ = dict(zip("ab", nodes, strict=False)), dict(zip("abc", nodes, strict=True))
    clients = [NaiveNodes(world, few, locks) for _ in range(3)]
    try:
        with Load(clients) as load:
            until(lambda: load.writes > 100)
            for client in clients if changes else ():
                client.nodes = all_  # a new configuration reaches one process after the other
                time.sleep(0.3)
            done = load.writes
            until(lambda: load.writes > done + 100)
    finally:
        for node in nodes:
            node.close()
    assert bool(load.stale) is changes
    assert load.wrong == []
