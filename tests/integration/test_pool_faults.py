"""Any node of a pool is killed, stopped (SIGSTOP) and restarted under load: no value is ever wrong, no strong read is
stale, reads go on within a bound, and afterwards everything is as before, without help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cachelib import Strong
from cachelib.cli_layout import view_of
from cachelib.drivers import run_now
from cachelib.layout import with_nodes
from cachelib.places import node_name
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.invalidator_daemon import Daemon
from tests.integration.pool_load import KEYS, Load, Ours
from tests.servers.memcached import MemcachedServer
from tests.servers.process import Server
from tests.servers.redis import RedisServer

ENTITIES = 'from cachelib import Entity\nentities = [Entity("customer:{id:int}", table="customers", key="id")]\n'
SLOWEST_S = 20.0
"""The longest that a read may take: a few timeouts and the store, on a busy machine. One that hangs takes for ever."""
DOWN_S = 0.7


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("pool-faults"))


@pytest.fixture(params=[("sync", MemcachedServer), ("async", RedisServer)], ids=["sync-memcached", "async-redis"])
def world(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[tuple[World, list[Any]]]:
    face, kind = request.param
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    with ExitStack() as started:
        pool = [started.enter_context(kind()) for _ in range(3)]
        urls = [server.url for server in pool]
        made = World(face, urls, f"sqlite:///{path}")  # type: ignore[arg-type]
        started.callback(made.close)
        for key in KEYS:
            made.customer(key, f"{key}:0")
        daemon = Daemon(tmp_path, made.store_url, urls)
        (tmp_path / "shop_entities.py").write_text(ENTITIES)
        started.enter_context(daemon)
        yield made, pool


def faults(pool: list[Server]) -> Iterator[str]:
    """Each node fails in another way, while the others go on."""
    pool[0].kill()
    yield "killed"
    pool[0].start()
    yield "started again"
    pool[1].pause()
    yield "stopped"
    pool[1].resume()
    yield "resumed"
    pool[2].restart()
    yield "restarted"
    pool[2].pause()
    pool[0].kill()
    yield "two of three are gone"
    pool[2].resume()
    pool[0].start()


@pytest.mark.slow
def test_no_fault_of_a_node_shows_a_wrong_value(world: tuple[World, list[Any]]) -> None:
    shop, pool = world
    customers = shop.customers(consistency=Strong())
    caches = [shop.cache(customers) for _ in range(2)]
    clients = [Ours(cache, customers) for cache in caches]

    def served(cache: Any) -> bool:
        return {read.source for read in cache.read_many(customers, KEYS).values()} == {"hit"}

    for cache in caches:  # the daemon did not know the nodes, so for some seconds strong reads ask the store
        until(lambda: served(cache), "every key is served by the cache")  # noqa: B023 - runs at once
    with Load(clients) as load:
        until(lambda: load.writes > 20)
        for _ in faults(pool):
            time.sleep(DOWN_S)
        done = load.writes
        until(lambda: load.writes > done + 50, "writes are confirmed again")
    assert load.wrong == []
    assert load.stale == []
    assert load.errors == {}, "reads go to the store, and writes say that they are unconfirmed"
    assert max(load.took_s) < SLOWEST_S
    print(f"{len(load.took_s)} reads, the slowest {max(load.took_s):.2f} s; {load.unconfirmed} writes unconfirmed")
    for cache in caches:
        until(lambda: served(cache), "every key is served by the cache again")  # noqa: B023 - runs at once
    rows = dict(shop.sql("select id, name from customers"))
    for cache in caches:
        until(
            lambda: {key: cache.get(customers, key)["name"] for key in KEYS} == rows,  # noqa: B023 - runs at once
            "every cache shows what the store has",
        )
    assert sum(client.hits for client in clients) > len(load.took_s) / 10


@pytest.mark.slow
def test_the_daemon_tells_a_node_that_joined_and_forgets_one_that_left(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    with ExitStack() as started:
        first, second, third = (started.enter_context(RedisServer()) for _ in range(3))
        shop = World("sync", [first.url, second.url], f"sqlite:///{path}")  # type: ignore[arg-type]
        started.callback(shop.close)
        for key in KEYS:
            shop.customer(key, f"{key}:0")
        customers = shop.customers()
        cache = shop.cache(customers)
        cache.get_many(customers, KEYS)  # it names the pool's nodes
        daemon = Daemon(tmp_path, shop.store_url, [first.url])  # the layout tells the others
        (tmp_path / "shop_entities.py").write_text(ENTITIES)
        started.enter_context(daemon)

        def shows(number: int) -> bool:
            """Every key shows it, and most are served by the cache: so they were voided in time."""
            return all(cache.get(customers, key)["name"] == f"{key}:{number}" for key in KEYS)

        for number, nodes in enumerate(([first, second, third], [first, third]), 1):
            with view_of(shop.store_url) as view:
                names = [node_name(server.url) for server in nodes]
                run_now(view.settle(run_now(view.publish(lambda now: with_nodes(now, names)))))  # noqa: B023
            until(lambda: len(daemon.status()["nodes"]) == len(nodes), "the daemon follows")  # noqa: B023
            until(lambda: {read.source for read in cache.read_many(customers, KEYS).values()} == {"hit"})
            shop.sql("update customers set name = id || :mark", mark=f":{number}")  # past the library
            until(lambda: shows(number), "every change is told, wherever its key is")  # noqa: B023
