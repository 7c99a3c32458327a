"""Sessions over real servers: own writes are read and nothing goes back, in other processes and over caches that nobody
told. No invalidator runs here, so whatever the token does not ask for stays old."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cachelib import BadToken, CacheUnavailable, ConfigError, Entity, Strong
from cachelib.history import KEYS_MAX
from cachelib.session import decode_token
from tests.integration.client_world import Held, World, install, sqlite_template

WORLDS = ["sync-postgres", "async-sqlite"]
KEYS = range(1, 21)
NAME = "'first'"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, redis_url: str, template: Path, tmp_path: Path) -> Iterator[World]:
    face, store = request.param.split("-")
    url = str(request.getfixturevalue(f"{store}_url"))
    if store == "sqlite":
        shutil.copy(template, tmp_path / "store.db")
    else:
        install(url)
    made = World(face, redis_url, url)
    for key in KEYS:
        made.customer(key, "first")
    yield made
    made.close()


@pytest.fixture
def caches(world: World, memcached_url: str) -> tuple[Any, Any, Entity]:
    """One over Redis and one over memcached, as two processes would have them; both are warm."""
    entity = world.customers()
    one, other = world.cache(entity), world.cache(entity, backend=memcached_url)
    for cache in (one, other):
        for _ in range(2):
            cache.get_many(entity, KEYS)
    return one, other, entity


def session(cache: Any, token: str | None = None) -> Any:
    """Of either face."""
    from tests.integration.client_world import Blocking

    made = cache.session(token)
    return Blocking(made, cache._loop) if isinstance(cache, Blocking) else made


def name(reader: Any, entity: Entity, key: int = 1) -> str | None:
    row = reader.get(entity, key)
    return None if row is None else str(row["name"])


def test_own_write_is_read_in_another_process_over_a_cache_that_nobody_told(caches: Any) -> None:
    one, other, entity = caches
    writer = session(one)
    writer.put(entity, 1, {"name": "second", "tier": "gold"})
    assert name(other, entity) == "first", "somebody told it"
    reader = session(other, writer.token)
    assert name(reader, entity) == "second"
    assert reader.read(entity, 1).source == "hit"
    assert reader.read(entity, 2).source == "hit", "what the session has not touched is hit as it is"


def test_own_delete_is_read_in_another_process(caches: Any) -> None:
    one, other, entity = caches
    writer = session(one)
    writer.delete(entity, 1)
    reader = session(other, writer.token)
    assert name(other, entity) == "first"
    assert name(reader, entity) is None
    assert [reader.read(entity, 1).source for _ in range(3)][-1] == "hit"


def test_own_insert_is_read_behind_cached_absence(caches: Any) -> None:
    one, other, entity = caches
    assert name(other, entity, 99) is None
    writer = session(one)
    writer.put(entity, 99, {"name": "new", "tier": "gold"})
    assert name(other, entity, 99) is None
    assert name(session(other, writer.token), entity, 99) == "new"


def test_reads_do_not_go_back_from_one_cache_to_another(world: World, caches: Any) -> None:
    one, other, entity = caches
    one.put(entity, 1, {"name": "second", "tier": "gold"})
    reader = session(one)
    assert name(reader, entity) == "second"
    assert name(session(other), entity) == "first", "a session of its own has seen nothing"
    assert name(session(other, reader.token), entity) == "second"


def test_absence_that_was_seen_does_not_turn_into_the_old_row(world: World, caches: Any) -> None:
    one, other, entity = caches
    world.sql("delete from customers where id = 1")
    one.invalidate(entity, 1)
    reader = session(one)
    assert name(reader, entity) is None
    assert name(other, entity) == "first"
    assert name(session(other, reader.token), entity) is None


def test_key_of_many_rows_is_read_as_it_was_written(world: World, memcached_url: str) -> None:
    orders = world.orders_of()
    one, other = world.cache(orders), world.cache(orders, backend=memcached_url)
    for cache in (one, other):
        assert cache.get(orders, 1) is None
    writer = session(one)
    with writer.transaction() as tx:
        tx.execute("insert into orders (id, customer_id, total) values (7, 1, 10)")
    assert other.get(orders, 1) is None
    reader = session(other, writer.token)
    assert reader.get(orders, 1) == [7]
    assert reader.read(orders, 1).source == "hit"


def test_many_keys_at_once_are_read_as_they_were_written(caches: Any) -> None:
    one, other, entity = caches
    writer = session(one)
    with writer.transaction() as tx:
        tx.execute("update customers set name = 'second' where id <= 10")
    got = session(other, writer.token).get_many(entity, KEYS)
    assert {key: row["name"] for key, row in got.items()} == {key: "second" if key <= 10 else "first" for key in KEYS}


def test_write_that_the_cache_did_not_confirm_is_read_all_the_same(world: World, caches: Any) -> None:
    """The session remembers it, wherever it reads."""
    one, other, entity = caches
    writer = session(one)
    node = (one.face if world.loop else one)._core.node.first

    async def fails(batch: Any) -> Any:
        raise CacheUnavailable("the node does not answer")

    node.execute_many, answers = fails, node.execute_many
    written = writer.put(entity, 1, {"name": "second", "tier": "gold"})
    assert not written.confirmed
    node.execute_many = answers
    assert name(one, entity) == "first"
    assert name(writer, entity) == "second"
    assert name(session(other, writer.token), entity) == "second"


def test_rolled_back_write_leaves_no_trace_in_the_session(caches: Any) -> None:
    one, _, entity = caches
    writer = session(one)
    with suppress(ZeroDivisionError), writer.transaction() as tx:
        tx.execute("update customers set name = 'never' where id = 1")
        raise ZeroDivisionError
    assert (writer.read(entity, 1).value["name"], writer.read(entity, 1).source) == ("first", "hit")


def test_load_that_began_before_the_own_write_is_not_joined(world: World, caches: Any) -> None:
    one, _, entity = caches
    one.invalidate(entity, 1)
    world.loads.on_load = held = Held()
    writer = session(one)
    with world.meanwhile(lambda: one.get(entity, 1)) as got:
        assert held.begun.wait(30)
        world.loads.on_load = lambda keys: None
        # The other call has read nothing yet: its load goes on after the write, but began before.
        writer.put(entity, 1, {"name": "second", "tier": "gold"})
        with world.meanwhile(lambda: name(writer, entity)) as mine:
            held.go_on.set()
    assert got[0]["name"] in ("first", "second")
    assert mine == ["second"]


def test_session_of_many_keys_goes_on_hitting(world: World, template: Path) -> None:
    """A level that always asks the store would pass every test above."""
    many = range(1, 301)
    world.sql("delete from customers")
    world.sql(f"insert into customers (id, name, tier) values {', '.join(f'({key}, {NAME}, {NAME})' for key in many)}")
    entity = world.customers()
    cache = world.cache(entity)
    for _ in range(2):
        cache.get_many(entity, many)
    reader = session(cache)
    sources = [reader.read(entity, key).source for _ in range(3) for key in many]
    assert sources.count("hit") == len(sources) > 3 * KEYS_MAX
    carried = session(cache, reader.token)
    sources = [carried.read(entity, key).source for key in many]
    assert sources.count("hit") == len(sources)


def test_session_of_many_keys_does_not_go_back_on_a_cache_that_nobody_told(world: World, caches: Any) -> None:
    one, other, entity = caches
    many = range(1, 3 * KEYS_MAX)
    world.sql("delete from customers where id > 20")
    rest = ", ".join(f"({key}, {NAME}, {NAME})" for key in many if key > 20)
    world.sql(f"insert into customers (id, name, tier) values {rest}")
    for cache in (one, other):
        cache.get_many(entity, many)
    reader = session(one)
    with reader.transaction() as tx:
        tx.execute("update customers set name = 'second'")
    for key in many:
        assert name(reader, entity, key) == "second"
    token = reader.token
    # What was loaded after the session had left the first cache is taken, though marks of that are dropped later. When
    # it left is known with the error of a clock; the store's clock is this machine's.
    while time.time_ns() // 1000 <= decode_token(token).parts().seen_us:
        time.sleep(0.001)
    carried = session(other, token)
    assert {name(carried, entity, key) for key in many} == {"second"}
    again = {key: carried.read(entity, key) for key in many}
    assert {key: read for key, read in again.items() if read.source != "hit"} == {}


def test_strong_entity_is_read_as_strong_in_a_session(world: World) -> None:
    entity = world.customers(consistency=Strong())
    cache = world.cache(entity)
    own = session(cache)
    assert name(own, entity) == "first"
    cache.put(entity, 1, {"name": "second", "tier": "gold"})
    assert name(own, entity) == "second"
    own.put(entity, 1, {"name": "third", "tier": "gold"})
    assert [own.read(entity, 1).source for _ in range(2)] == ["hit", "hit"]


def test_token_of_another_store_says_nothing_here(world: World, caches: Any) -> None:
    one, _, entity = caches
    writer = session(one)
    writer.put(entity, 1, {"name": "second", "tier": "gold"})
    token = writer.token
    strange = session(one, token)
    raw = (strange.face if world.loop else strange)._history
    raw.store = "ff" * 8
    assert name(strange, entity, 2) == "first"
    assert raw.parts().marks.keys() != writer.__dict__
    assert raw.store != "ff" * 8


def test_token_is_sealed_where_the_cache_has_a_key(world: World) -> None:
    cache, other = world.cache(session_key=b"k" * 16), world.cache(session_key=(b"n" * 16, b"k" * 16))
    token = cache.session().token
    other.session(token)
    for bad in (token[:-4] + "AAAA", world.cache().session().token):
        with pytest.raises(BadToken):
            cache.session(bad)
    with pytest.raises(ConfigError, match="session_key"):
        world.cache(session_key=b"short")
