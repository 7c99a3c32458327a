"""A Redis Cluster of three masters with a replica each: keys are found wherever the cluster has them, and come back
after a master has died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachelib import CacheUnavailable, ConfigError, Strong
from cachelib.backends import AsyncRedisCluster, RedisCluster
from cachelib.backends.redis.cluster_map import slot_of, tag_of
from cachelib.model import Fill, Get, Leased, NoOp, Raised, RaiseFloor, Revoke, Stored, value_of
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.invalidator_daemon import Daemon
from tests.integration.pool_load import KEYS, Load, Ours
from tests.integration.test_side_by_side import PATIENT, Standing, while_only_one_answers
from tests.servers.redis_cluster import SLOTS, RedisClusterServers

NAMES = [b"lc/e.t/key:%d" % number for number in range(60)]
NOTE = b"lc/position/invalidator/log/0"


@pytest.fixture
def cluster(redis_cluster: RedisClusterServers) -> RedisClusterServers:
    return redis_cluster


@pytest.fixture(params=["sync", "async"])
def backend(request: pytest.FixtureRequest, cluster: RedisClusterServers) -> Iterator[Any]:
    """Either face, called as if it blocked."""
    if request.param == "sync":
        made = RedisCluster(cluster.url)
        yield made
        made.close()
        return
    awaited = AsyncRedisCluster(cluster.url)
    with asyncio.Runner() as runner:

        class Blocking:
            def __getattr__(self, name: str) -> Any:
                return lambda *given: runner.run(getattr(awaited, name)(*given))

        yield Blocking()
        runner.run(awaited.close())


def now_ms() -> int:
    return int(time.time() * 1000)


def fill(backend: Any, names: list[bytes] = NAMES) -> None:
    leases = backend.execute_many([(name, Get(7, 5000)) for name in names], now_ms())
    assert {type(one) for one in leases} == {Leased}
    fills = [(name, Fill(7, value_of(b"value of " + name), 5, 60_000)) for name in names]
    assert {type(one) for one in backend.execute_many(fills, now_ms())} == {Stored}


def shown(raw: bytes | None, name: bytes) -> bool:
    return raw is not None and raw.endswith(b"value of " + name)


# --- where keys are --------------------------------------------------------------------------


def test_every_key_is_read_and_written_at_its_master(backend: Any, cluster: RedisClusterServers) -> None:
    fill(backend)
    assert all(shown(raw, name) for raw, name in zip(backend.get_many(NAMES), NAMES, strict=True))
    assert all(shown(backend.get(name), name) for name in NAMES)
    counts = [int(cluster.ask(server, "DBSIZE")) for server in cluster.servers if cluster.role(server) == "master"]
    assert sum(counts) == len(NAMES)
    assert all(counts)


def test_a_batch_keeps_its_order_and_answers_each_in_its_place(backend: Any) -> None:
    fill(backend, NAMES[:30])
    answers = backend.execute_many([(name, RaiseFloor(9, "update", 1000)) for name in NAMES], now_ms())
    assert [type(one) for one in answers] == [Raised] * 30 + [NoOp] * 30


def test_one_server_of_the_cluster_is_enough_to_find_it(cluster: RedisClusterServers) -> None:
    backend = RedisCluster(f"redis+cluster://127.0.0.1:{cluster.replicas[0].port}")
    fill(backend)
    backend.close()


def test_a_slot_that_moves_is_followed_in_every_stage(backend: Any, cluster: RedisClusterServers) -> None:
    """ASK in the middle of it, MOVED at its end; reads and writes go on, and nothing is lost."""
    owners = [server for server in cluster.servers if cluster.role(server) == "master"]
    name = NAMES[0]
    slot = slot_of(name)
    source = next(one for one in owners if any(a <= slot <= b for a, b in _slots(cluster, one)))
    target = next(one for one in owners if one is not source)
    fill(backend, [name])
    other = next(one for one in (b"lc/e.t/new%d" % number for number in range(10**6)) if slot_of(one) == slot)
    for _ in cluster.move(slot, source, target):
        assert shown(backend.get(name), name)
        assert isinstance(backend.execute(name, RaiseFloor(3, "update", 1000), now_ms()), NoOp)
        assert backend.get(other) is None  # it is nowhere: ASK from the first stage on
        assert isinstance(backend.execute(other, Revoke(1000), now_ms()), NoOp)
    assert shown(backend.get(name), name)
    assert shown(backend.get_many([name])[0], name)
    assert isinstance(backend.execute(name, RaiseFloor(9, "update", 1000), now_ms()), Raised)


def test_every_master_is_asked_before_any_is_waited_for(cluster: RedisClusterServers) -> None:
    """In threads; see `test_side_by_side.py`."""
    backend = RedisCluster(cluster.url, timeout_ms=PATIENT)
    batch = [(name, Get(7, 1000)) for name in NAMES]
    masters = [server for server in cluster.servers if cluster.role(server) == "master"]
    standing = Standing(masters, lambda: backend.execute_many(batch, now_ms()))
    standing.run()
    for only in masters:
        while_only_one_answers(standing, only)
    backend.close()


def _slots(cluster: RedisClusterServers, server: Any) -> list[tuple[int, int]]:
    import redis

    with redis.Redis(port=server.port) as client:
        found = client.execute_command("CLUSTER SHARDS")
    own = cluster.id_of(server).encode()
    ranges = []
    for shard in found:
        plain = dict(zip(shard[::2], shard[1::2], strict=True)) if isinstance(shard, list) else shard
        nodes = plain.get(b"nodes", plain.get("nodes"))
        ids = {_field(node, "id") for node in nodes}
        if own in ids or own.decode() in ids:
            flat = plain.get(b"slots", plain.get("slots"))
            ranges += list(zip(flat[::2], flat[1::2], strict=True)) if flat and not isinstance(flat[0], list) else flat
    return [(int(first), int(last)) for first, last in ranges]


def _field(node: Any, name: str) -> Any:
    plain = dict(zip(node[::2], node[1::2], strict=True)) if isinstance(node, list) else node
    return plain.get(name.encode(), plain.get(name))


# --- a master dies ---------------------------------------------------------------------------


@pytest.mark.slow
def test_after_a_failover_every_key_is_served_again_without_help(cluster: RedisClusterServers, tmp_path: Path) -> None:
    """Reads go on meanwhile (the store), no value is wrong, and no strong read is stale."""
    (tmp_path / "t").mkdir()
    template = sqlite_template(tmp_path / "t")
    world = World("sync", cluster.url, f"sqlite:///{template}")
    customers = world.customers(consistency=Strong())
    for key in KEYS:
        world.customer(key, f"{key}:0")
    clients = [Ours(world.cache(customers), customers) for _ in range(2)]
    victim = next(server for server in cluster.servers if cluster.role(server) == "master")
    try:
        with Load(clients) as load:
            until(lambda: load.writes > 30)
            victim.kill()
            cluster.wait("a replica was promoted", cluster.whole)
            done = load.writes
            until(lambda: load.writes > done + 60, "writes are confirmed again")
        assert load.wrong == []
        assert load.stale == []
        assert load.errors == {}
        cache = world.cache(customers)
        assert {cache.read(customers, key).source for key in KEYS} <= {"store", "filled"}
    finally:
        world.close()
        if not victim.running:
            victim.start()
        cluster.wait("the cluster is whole", cluster.whole)


def test_a_dead_cluster_is_unavailable_and_says_so() -> None:
    backend = RedisCluster("redis+cluster://127.0.0.1:1,127.0.0.1:2", connect_timeout_ms=200)
    with pytest.raises(CacheUnavailable, match="no server of the redis cluster tells its slots"):
        backend.get(b"lc/e.t/a")
    with pytest.raises(CacheUnavailable, match=r"127\.0\.0\.1:2"):
        backend.execute(b"lc/e.t/a", Revoke(1), now_ms())
    backend.close()


# --- hits ------------------------------------------------------------------------------------


def test_an_eventual_read_is_a_hit(cluster: RedisClusterServers, tmp_path: Path) -> None:
    template = sqlite_template(tmp_path)
    world = World("sync", cluster.url, f"sqlite:///{template}")
    try:
        for key in KEYS:
            world.customer(key, f"{key}:0")
        customers = world.customers()
        cache = world.cache(customers)
        cache.get_many(customers, KEYS)
        assert {read.source for read in cache.read_many(customers, KEYS).values()} == {"hit"}
        assert world.loads.count == 1
    finally:
        world.close()


# --- the invalidator's notes -----------------------------------------------------------------


def test_notes_are_kept_on_every_master_behind_the_batch(backend: Any, cluster: RedisClusterServers) -> None:
    fill(backend)
    answers = backend.apply([(name, RaiseFloor(9, "update", 1000)) for name in NAMES], {NOTE: b"upto 5"}, now_ms())
    assert {type(one) for one in answers} == {Raised}
    assert backend.read_notes([NOTE, b"lc/none"]) == [b"upto 5", None]
    masters = [server for server in cluster.servers if cluster.role(server) == "master"]
    kept = [cluster.ask(server, "KEYS", "lc/position*") for server in masters]
    assert [len(names) for names in kept] == [1] * 3


def test_of_notes_that_differ_the_oldest_counts(backend: Any, cluster: RedisClusterServers) -> None:
    """A replica was promoted that had not got the last one."""
    backend.apply([], {NOTE: b"upto 5"}, now_ms())
    master = next(server for server in cluster.servers if cluster.role(server) == "master")
    (name,) = cluster.ask(master, "KEYS", "lc/position*")
    older = cluster.ask(master, "GET", name)
    backend.apply([], {NOTE: b"upto 9"}, now_ms())
    assert backend.read_notes([NOTE]) == [b"upto 9"]
    cluster.ask(master, "SET", name, older)
    assert backend.read_notes([NOTE]) == [b"upto 5"]


def test_a_note_that_one_master_has_lost_proves_nothing(backend: Any, cluster: RedisClusterServers) -> None:
    backend.apply([], {NOTE: b"upto 5"}, now_ms())
    cluster.ask(next(server for server in cluster.servers if cluster.role(server) == "master"), "FLUSHALL")
    assert backend.read_notes([NOTE]) == [None]


def test_the_instance_is_that_of_all_masters(backend: Any) -> None:
    assert backend.instance().count("+") == 2
    assert backend.instance() == backend.instance()


@pytest.mark.slow
def test_the_daemon_keeps_a_cluster_told_also_after_a_failover(cluster: RedisClusterServers, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    world = World("sync", cluster.url, f"sqlite:///{sqlite_template(tmp_path / 't')}")
    daemon = Daemon(tmp_path, world.store_url, [cluster.url])
    entities = 'from cachelib import Entity\nentities = [Entity("customer:{id:int}", table="customers", key="id")]\n'
    (tmp_path / "shop_entities.py").write_text(entities)
    for key in KEYS:
        world.customer(key, f"{key}:0")
    victim = next(server for server in cluster.servers if cluster.role(server) == "master")
    try:
        with daemon:
            customers = world.customers()
            cache = world.cache(customers)

            def shows(number: int) -> bool:
                return all(cache.get(customers, key)["name"] == f"{key}:{number}" for key in KEYS)

            until(lambda: shows(0))
            world.sql("update customers set name = id || :mark", mark=":1")  # past the library
            until(lambda: shows(1), "every change is told")
            victim.kill()
            cluster.wait("a replica was promoted", cluster.whole)
            world.sql("update customers set name = id || :mark", mark=":2")
            until(lambda: shows(2), "every change is told to the new masters")
            until(lambda: {read.source for read in cache.read_many(customers, KEYS).values()} == {"hit"})
            assert daemon.metric("epochs_total") == 0  # nobody had to begin anew
    finally:
        world.close()
        if not victim.running:
            victim.start()
        cluster.wait("the cluster is whole", cluster.whole)


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["redis+cluster://a:1/3", "redis+cluster://", "redis+cluster://a:port"])
def test_what_is_no_address_of_a_cluster_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        RedisCluster(url)


def test_a_server_that_is_no_cluster_says_so(redis_url: str) -> None:
    backend = RedisCluster(redis_url.replace("redis://", "redis+cluster://"))
    with pytest.raises(CacheUnavailable, match="does not tell the cluster's slots"):
        backend.get(b"lc/e.t/a")
    backend.close()


def test_every_slot_has_a_tag() -> None:
    for slot in (0, 1, 5461, SLOTS - 1):
        assert slot_of(tag_of(slot)[1:-1]) == slot
