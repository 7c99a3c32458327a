"""Strong reads over real servers that come back with old data, and what a strong hit costs."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from cachelib import CacheUnavailable, Entity, Eventual, Strong
from cachelib.proof import decode_proof, proof_name
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon
from tests.servers.process import ask
from tests.servers.redis import RedisServer

KEYS = range(1, 41)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One that keeps a file, written when it is told so."""
    with RedisServer() as made:
        yield made


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, server: RedisServer, template: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copy(template, tmp_path / "store.db")
    server.flush()
    made = World(request.param, server.url, f"sqlite:///{tmp_path / 'store.db'}")
    for key in KEYS:
        made.customer(key, "first")
    yield made
    made.close()


def save(server: RedisServer) -> None:
    assert ask(server.port, b"SAVE\r\n", timeout_s=10).startswith(b"+OK")


def fall_back(server: RedisServer) -> None:
    """Without a word, it is started again from its file."""
    server.kill()
    server.start()


def names(cache: Any, entity: Entity, level: Any = None) -> dict[int, str]:
    return {key: row["name"] for key, row in cache.get_many(entity, KEYS, consistency=level).items()}


def truth(world: World) -> dict[int, str]:
    return {key: name for key, name in world.sql("select id, name from customers")}  # noqa: C416 - rows to pairs


def warmed(cache: Any, entity: Entity) -> None:
    for _ in range(2):
        names(cache, entity)


def test_redis_back_from_an_old_file_serves_nothing_stale_as_strong(world: World, server: RedisServer) -> None:
    entity = world.customers(consistency=Strong())
    writer, reader = world.cache(entity), world.cache(entity)
    for cache in (writer, reader):
        warmed(cache, entity)
    save(server)
    for key in KEYS[::2]:
        writer.put(entity, key, {"name": "second", "tier": "gold"})
    assert names(reader, entity) == truth(world)
    fall_back(server)
    assert names(reader, entity, Eventual()) != truth(world), "it did not come back with old data"
    checked = stale = 0
    rng = random.Random(1)
    for turn in range(300):
        key = rng.choice(KEYS)
        if turn % 10 == 0:
            writer.put(entity, key, {"name": f"turn {turn}", "tier": "gold"})
        cache = rng.choice((writer, reader))
        ((now,),) = world.sql("select name from customers where id = :id", id=key)
        checked, stale = checked + 1, stale + (cache.get(entity, key)["name"] != now)
    assert (checked, stale) == (300, 0)


@pytest.mark.parametrize(("look_s", "again"), [(1e9, len(KEYS)), (0.0, 1)], ids=["by an answer", "by the note"])
def test_strong_reads_hit_again_soon_after_redis_came_back_old(
    world: World, server: RedisServer, look_s: float, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the new start is met, each key is loaded and filled once, and hit from then on.

    What meets it is either the answer about the items: it counts for nothing, so all are loaded, and filled by the next
    read. Or it is the node's note, which is looked at before the first key where that is due (every 250 ms; a restart
    on a busy machine takes longer): then only that key stands on the old start, and the read fills all the others.
    """
    monkeypatch.setattr("cachelib.standing.LOOK_S", look_s)
    entity = world.customers(consistency=Strong())
    cache = world.cache(entity)
    warmed(cache, entity)
    save(server)
    fall_back(server)
    loads = [len(world.loads.keys())]
    for _ in range(10):
        names(cache, entity)
        loads.append(len(world.loads.keys()))
    assert [after - before for before, after in itertools.pairwise(loads)] == [len(KEYS), again, *[0] * 8]


def calls(server: RedisServer) -> dict[str, int]:
    """How often each command was called so far."""
    with Client(port=server.port) as client:
        stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


@pytest.mark.parametrize("proven", [True, False])
def test_a_strong_hit_costs_one_get_and_nothing_else(
    world: World, server: RedisServer, proven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody proves anything: then the note is looked for now and then, which is counted apart here."""
    from cachelib.backends.redis import Redis
    from cachelib.proof import ProofNote, encode_proof

    monkeypatch.setattr("cachelib.standing.LOOK_S", 0.0 if proven else 1e9)
    entity = world.customers(consistency=Strong())
    if proven:
        backend = Redis(server.url)
        note = ProofNote(backend.instance(), "store", None, 1, frozenset((entity.name,)))
        backend.apply([], {proof_name("lc"): encode_proof(note)}, 0)
        backend.close()
    cache = world.cache(entity)
    for _ in range(4):
        cache.get(entity, 1)
    hits, loads, before = 200, world.loads.count, calls(server)
    for _ in range(hits):
        assert cache.get(entity, 1)["name"] == "first"
    after = calls(server)
    more = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    for ours in ("info", "client", "client|setinfo", "hello"):  # of the connection that counts
        more.pop(ours, None)
    assert more == {"get": hits}
    assert world.loads.count == loads


def test_strong_reads_take_up_what_redis_has_when_the_invalidator_has_caught_up(
    server: RedisServer, template: Path, tmp_path: Path
) -> None:
    shutil.copy(template, tmp_path / "store.db")
    server.flush()
    world = World("sync", server.url, f"sqlite:///{tmp_path / 'store.db'}")
    entity = Entity.from_table("customers", key="id", consistency=Strong(), ttl="1h")
    assert entity.name == CUSTOMERS.name
    for key in KEYS:
        world.customer(key, "first")
    with Daemon(tmp_path, world.store_url, [server.url]):
        cache = world.cache(entity)
        until(lambda: caught_up(cache), "the proof of the first start")
        warmed(cache, entity)
        save(server)
        for key in KEYS[::2]:
            world.customer(key, "second")  # past the library, so only the log tells
        fall_back(server)
        until(lambda: caught_up(cache), "the proof of the second start")
        later = world.cache(entity)
        reads = later.read_many(entity, KEYS)
        assert {key: read.value["name"] for key, read in reads.items()} == truth(world)
        assert [reads[key].source for key in KEYS[1::2]] == ["hit"] * len(KEYS[1::2])
    world.close()


def caught_up(cache: Any) -> bool:
    try:
        (raw,) = cache.backend.read_notes([proof_name("lc")])
        note = decode_proof(raw)
        return note is not None and note.caught_up == cache.backend.instance() and CUSTOMERS.name in note.entities
    except CacheUnavailable:
        return False


@pytest.mark.parametrize("face", ["sync", "async"])
def test_memcached_that_restarts_is_noticed_before_it_is_read(
    face: str, memcached_url: str, memcached_server: Any, template: Path, tmp_path: Path
) -> None:
    """It comes back empty, so all that is to be seen is that the start is met: nothing is taken on trust."""
    shutil.copy(template, tmp_path / "store.db")
    world = World(face, memcached_url, f"sqlite:///{tmp_path / 'store.db'}")
    world.customer(1, "first")
    entity = world.customers(consistency=Strong())
    cache = world.cache(entity)
    assert [cache.read(entity, 1).source for _ in range(3)] == ["filled", "hit", "hit"]
    before = cache._core.node.first.standing.trust
    memcached_server.restart()
    world.customer(1, "second")
    assert cache.get(entity, 1)["name"] == "second"
    assert [cache.read(entity, 1).source for _ in range(3)][-1] == "hit"
    after = cache._core.node.first.standing.trust
    assert before.instance != after.instance
    assert not before.holds()
    assert after.holds()
    world.close()
