"""Strong reads on a Redis Cluster: hits, and never what a failover or a slot's move brought back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cachelib import Strong
from cachelib.backends.redis.cluster_map import slot_of
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.pool_load import KEYS
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisClusterServers

NEW = {"name": "new", "tier": "gold"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("strong"))


@pytest.fixture(params=["sync", "async"])
def world(
    request: pytest.FixtureRequest, redis_cluster: RedisClusterServers, template: Path, tmp_path: Path
) -> Iterator[World]:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    made = World(request.param, redis_cluster.url, f"sqlite:///{path}")
    for key in KEYS:
        made.customer(key, f"{key}:0")
    yield made
    made.close()


in_threads = pytest.mark.parametrize("world", ["sync"], indirect=True)


def name_of(cluster: RedisClusterServers, key: int) -> bytes:
    """What the key of a customer is called in the cluster."""
    names = [name for server in cluster.having("master") for name in _keys(server)]
    (found,) = [name for name in names if name.endswith(b"/customer:%d" % key)]
    return found


def _keys(server: RedisServer) -> list[bytes]:
    with redis.Redis(port=server.port) as client:
        return [*client.keys("*")]


def owner_of(cluster: RedisClusterServers, name: bytes) -> RedisServer:
    return next(server for server in cluster.having("master") if name in _keys(server))


def test_strong_reads_are_hits(world: World, redis_cluster: RedisClusterServers) -> None:
    """Of what was loaded or written since the process knew the masters; another process loads each key once."""
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    assert [cache.read(customers, 1).source for _ in range(3)] == ["filled", "hit", "hit"]
    cache.put(customers, 1, NEW)
    shown = cache.read(customers, 1)
    assert (shown.source, shown.value["name"]) == ("hit", "new")
    other = world.cache(customers)
    assert [other.read(customers, 1).source for _ in range(3)] == ["filled", "hit", "hit"]
    assert {read.source for read in other.read_many(customers, KEYS).values()} == {"hit", "filled"}
    assert {read.source for read in other.read_many(customers, KEYS).values()} == {"hit"}


@pytest.mark.slow
@in_threads
def test_a_promoted_replica_that_missed_a_write_shows_it_to_no_strong_read(
    world: World, redis_cluster: RedisClusterServers
) -> None:
    """The old master alone was told of it. What the new one has looks fresh, and an eventual read shows it."""
    customers = world.customers(consistency=Strong())
    cache, other = world.cache(customers), world.cache(customers)
    for one in (cache, other):
        assert [one.read(customers, 1).source for _ in range(2)] == ["filled", "hit"]
    name = name_of(redis_cluster, 1)
    master = owner_of(redis_cluster, name)
    replica = next(one for one in redis_cluster.having("slave") if redis_cluster.master_port(one) == master.port)
    until(lambda: name in _keys(replica), "the replica has the item")
    cut(master, replica, redis_cluster)
    cache.put(customers, 1, NEW)
    shown = cache.read(customers, 1)
    assert (shown.source, shown.value["name"]) == ("hit", "new")
    master.kill()
    try:
        redis_cluster.wait("the replica was promoted", lambda: redis_cluster.role(replica) == "master")
        redis_cluster.wait("the cluster is whole", redis_cluster.whole)
        plain = world.customers()
        assert world.cache(plain).get(plain, 1)["name"] == "1:0"  # it is there, and looks fresh
        for one in (cache, other, world.cache(customers)):
            assert one.get(customers, 1)["name"] == "new"
        until(lambda: cache.read(customers, 1).source == "hit", "strong reads are hits again")
        assert cache.get(customers, 1)["name"] == "new"
    finally:
        with redis.Redis(port=replica.port) as client:
            client.config_set("masterauth", "")
        redis_cluster.mend()


def cut(master: RedisServer, replica: RedisServer, cluster: RedisClusterServers) -> None:
    """From now on the replica hears nothing more. Connections that clients have go on."""
    with redis.Redis(port=replica.port) as client:
        client.config_set("masterauth", "wrong")
    with redis.Redis(port=master.port) as client:
        client.config_set("requirepass", "right")
        client.execute_command("AUTH", "right")
        client.client_kill_filter(_type="replica")
        until(lambda: not cluster.in_step(replica), "the link is cut")
        client.config_set("requirepass", "")


@in_threads
def test_a_slot_that_moves_brings_no_strong_hits_along(world: World, redis_cluster: RedisClusterServers) -> None:
    """Its items may come from anywhere: each is loaded once where it is now. Right in every stage of the move."""
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    for key in KEYS:
        cache.get(customers, key)
    name = name_of(redis_cluster, 1)
    source = owner_of(redis_cluster, name)
    target = next(server for server in redis_cluster.having("master") if server is not source)
    for number, _ in enumerate(redis_cluster.move(slot_of(name), source, target)):
        cache.put(customers, 1, {"name": f"1:{number + 1}", "tier": "iron"})
        assert cache.get(customers, 1)["name"] == f"1:{number + 1}"
    loads = world.loads.count
    assert cache.read(customers, 1).value["name"] == "1:2"
    assert world.loads.count == loads + 1
    until(lambda: cache.read(customers, 1).source == "hit", "it is a hit where it is now")
    others = [key for key in KEYS if slot_of(name_of(redis_cluster, key)) != slot_of(name)]
    for key in others:  # the target has another epoch now, so what it had is loaded once more
        cache.read(customers, key)
    until(lambda: {cache.read(customers, key).source for key in others} == {"hit"}, "the other slots' hits go on")
