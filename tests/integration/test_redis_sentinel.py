"""A Redis behind Sentinels: the master is found, and after a failover the new one, without help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachelib import CacheUnavailable, ConfigError, Strong
from cachelib.backends import Redis, from_url
from cachelib.places import node_name
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.pool_load import KEYS, Load, Ours
from tests.servers.ports import free_port
from tests.servers.redis_sentinel import Watched


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("sentinel"))


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[tuple[World, Watched]]:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    with Watched() as servers:
        made = World(request.param, servers.url, f"sqlite:///{path}")
        for key in KEYS:
            made.customer(key, f"{key}:0")
        yield made, servers
        made.close()


@pytest.mark.slow
def test_the_master_of_the_moment_is_used_and_no_value_is_ever_wrong(world: tuple[World, Watched]) -> None:
    shop, servers = world
    customers = shop.customers(consistency=Strong())
    clients = [Ours(shop.cache(customers), customers) for _ in range(2)]
    with Load(clients) as load:
        until(lambda: load.writes > 50)
        assert servers.master_port() == servers.first.port
        servers.first.kill()
        servers.wait("the replica was promoted", lambda: servers.master_port() == servers.second.port)
        done = load.writes
        until(lambda: load.writes > done + 50, "writes are confirmed again")
    assert load.wrong == []
    assert load.stale == []
    assert load.errors == {}
    plain = shop.customers()
    cache = shop.cache(plain, namespace="other")
    cache.get_many(plain, KEYS)
    until(lambda: {read.source for read in cache.read_many(plain, KEYS).values()} == {"hit"}, "the new master is used")


def test_sentinels_that_do_not_answer_are_told_of() -> None:
    backend = Redis(f"redis+sentinel://127.0.0.1:{free_port()}/shop", connect_timeout_ms=200)
    with pytest.raises(CacheUnavailable, match="the master of shop, by its sentinels"):
        backend.get(b"lc/e.t/a")
    backend.close()


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://a:1", "redis+sentinel:///shop", "redis+sentinel://a:port/shop", "redis+sentinel://a/shop/x"],
)
def test_what_names_no_service_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no service"):
        from_url(url)


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sentinel_pass'"):
        from_url("redis+sentinel://a/shop?sentinel_pass=x")


def test_its_name_in_a_layout_holds_no_secret() -> None:
    name = node_name("redis+sentinel://app:secret@a:1,b:2/shop?sentinel_password=secret")
    assert name == "redis+sentinel://a:1,b:2/shop"
