"""`?replicas=eventual`: real replicas answer eventual hits, and nothing else; one that lags or is gone does no harm.

Of a Redis Cluster; behind Sentinels at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cachelib import L1, Cache, ConfigError, Strong
from cachelib.backends import Redis, RedisCluster
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.pool_load import KEYS
from tests.servers.redis_cluster import RedisClusterServers
from tests.servers.redis_sentinel import Watched

OPTION = "?replicas=eventual"
OTHER = {"name": "other", "tier": "gold"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("replicas"))


@pytest.fixture
def servers(redis_cluster: RedisClusterServers) -> RedisClusterServers:
    return redis_cluster


@pytest.fixture(params=["sync", "async"])
def world(
    request: pytest.FixtureRequest, servers: RedisClusterServers, template: Path, tmp_path: Path
) -> Iterator[World]:
    yield from shop(request.param, servers.url + OPTION, template, tmp_path)


def shop(face: str, url: str, template: Path, tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    made = World(face, url, f"sqlite:///{path}")  # type: ignore[arg-type]
    for key in KEYS:
        made.customer(key, f"{key}:0")
    yield made
    made.close()


def gets(servers: list[Any]) -> int:
    """How many GETs these servers have answered."""
    total = 0
    for server in servers:
        with redis.Redis(port=server.port) as client:
            total += int(client.info("commandstats").get("cmdstat_get", {}).get("calls", 0))
    return total


def warm(world: World, cache: Any, entity: Any, masters: list[Any], replicas: list[Any]) -> None:
    """Every key is on the masters and on the replicas, and the replicas are asked."""
    cache.get_many(entity, KEYS)
    until(lambda: sizes(masters) == sizes(replicas) > 0, "the replicas have heard of every key")

    def all_by_replicas() -> bool:
        before = gets(replicas)
        for key in KEYS:
            assert cache.get(entity, key)["name"] == f"{key}:0"
        return gets(replicas) == before + len(KEYS)

    until(all_by_replicas, "replicas are asked")
    assert world.loads.count == 1
    assert cache.metrics.values()["leasecache_events_total", entity.name, "replica"] >= len(KEYS)


def sizes(servers: list[Any]) -> int:
    """How many keys they have."""
    total = 0
    for server in servers:
        with redis.Redis(port=server.port) as client:
            total += int(client.dbsize())
    return total


def test_eventual_hits_are_the_replicas_and_everything_else_the_masters(
    world: World, servers: RedisClusterServers
) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    warm(world, cache, customers, servers.having("master"), servers.having("slave"))
    asked = gets(servers.having("slave"))
    counted = cache.metrics.values()["leasecache_events_total", customers.name, "replica"]
    for key in KEYS:
        assert cache.read(customers, key).source == "hit"  # not the hit path
    cache.get_many(customers, KEYS)
    cache.put(customers, 1, OTHER)
    assert gets(servers.having("slave")) == asked
    assert cache.metrics.values()["leasecache_events_total", customers.name, "replica"] == counted


def test_a_strong_read_never_asks_a_replica(world: World, servers: RedisClusterServers) -> None:
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    before = gets(servers.having("slave"))
    for _ in range(3):
        for key in KEYS:
            cache.get(customers, key)
    assert gets(servers.having("slave")) == before


def test_a_replica_that_is_gone_is_left_to_its_master(world: World, servers: RedisClusterServers) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    replicas = servers.having("slave")
    warm(world, cache, customers, servers.having("master"), replicas)
    for replica in replicas:
        replica.kill()
    for key in KEYS:
        assert cache.get(customers, key)["name"] == f"{key}:0"
    assert world.loads.count == 1
    servers.mend()

    def asked_again() -> bool:
        before = gets(replicas)
        for key in KEYS:
            assert cache.get(customers, key)["name"] == f"{key}:0"
        return gets(replicas) > before

    until(asked_again, "replicas are asked again")


def test_behind_sentinels_a_replica_that_lags_does_no_harm(template: Path, tmp_path: Path) -> None:
    """What it has not heard of is its master's hit; and once its link is cut nobody is shown it for long."""
    with Watched() as watched:
        for face in ("async", "sync"):
            (tmp_path / face).mkdir()
            for world in shop(face, watched.url + OPTION, template, tmp_path / face):
                what_it_has_not_heard_of(world, watched)
                if face == "sync":
                    after_its_link_is_cut(world, watched)


def what_it_has_not_heard_of(world: World, watched: Watched) -> None:
    replica, customers = watched.second, world.customers()
    cache = world.cache(customers)
    warm(world, cache, customers, [watched.first], [replica])
    with redis.Redis(port=replica.port) as client:
        client.config_set("replica-read-only", "no")
        client.delete(*client.keys("*"))
        client.config_set("replica-read-only", "yes")
    before = gets([replica])
    assert {cache.get(customers, key)["name"] for key in KEYS} == {f"{key}:0" for key in KEYS}
    assert gets([replica]) > before
    assert world.loads.count == 1
    with redis.Redis(port=watched.first.port) as client:
        client.flushall()


def after_its_link_is_cut(world: World, watched: Watched) -> None:
    replica, customers = watched.second, world.customers()
    cache = world.cache(customers)
    with redis.Redis(port=replica.port) as client:
        client.config_set("masterauth", "wrong")  # it is refused when it connects again …
    with redis.Redis(port=watched.first.port) as client:
        client.config_set("requirepass", "right")
        client.execute_command("AUTH", "right")
        client.client_kill_filter(_type="replica")  # … which it has to, now
        until(lambda: not watched.in_step(replica), "the link is cut")
        client.config_set("requirepass", "")

    def left_alone() -> bool:
        before = gets([replica])
        for key in KEYS:
            cache.get(customers, key)
        return gets([replica]) == before

    until(left_alone, "the replica is left alone")


# --- settings --------------------------------------------------------------------------------


def test_other_levels_than_eventual_may_not_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="it takes 'eventual'"):
        RedisCluster("redis+cluster://a:1?replicas=strong")


def test_a_server_whose_replicas_nobody_tells_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs redis\+cluster:// or redis\+sentinel://"):
        Redis("redis://a:1?replicas=eventual")


def test_copies_in_the_process_and_replicas_do_not_go_together() -> None:
    """A copy is never behind what its process wrote; what a replica shows may be."""
    with pytest.raises(ConfigError, match="take one of them"):
        Cache("redis+cluster://a:1?replicas=eventual", l1=L1())
