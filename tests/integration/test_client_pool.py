"""A cache over several nodes: both faces, and pools of Redis and of memcached."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cachelib import Cache, CacheUnavailable, ConfigError, Entity, Eventual, Strong, Unconfirmed
from cachelib.backends.memory import Memory
from cachelib.layout import completed, decode_layout, encode_layout, first_layout, with_node_renewed, with_nodes
from cachelib.places import node_name
from cachelib.slots import SLOTS, slot_of
from tests.integration.client_world import World, sqlite_template, until
from tests.servers.memcached import MemcachedServer
from tests.servers.process import Server
from tests.servers.redis import RedisServer

KEYS = range(1, 61)
NEW = {"name": "new", "tier": "gold"}
KINDS: dict[str, type[Server]] = {"redis": RedisServer, "memcached": MemcachedServer}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, list[Any]]]:
    with ExitStack() as started:
        yield {kind: [started.enter_context(made()) for _ in range(4)] for kind, made in KINDS.items()}


COMBINATIONS = [("sync", "redis"), ("sync", "memcached"), ("async", "redis")]
once = pytest.mark.parametrize("both", COMBINATIONS[:1], ids="-".join, indirect=True)
"""What takes its time, or depends on neither: with one face and one kind of server."""


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def both(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The face and the kind of servers."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def pool(both: tuple[str, str], servers: dict[str, list[Any]]) -> list[Any]:
    """Four servers of a kind, up and empty."""
    for server in servers[both[1]]:
        server.resume() if server.running else server.start()
        server.flush()
    return servers[both[1]]


@pytest.fixture
def world(both: tuple[str, str], pool: list[Any], template: Path, tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    made = World(both[0], [server.url for server in pool[:3]], f"sqlite:///{path}")  # type: ignore[arg-type]
    for key in KEYS:
        made.customer(key, f"name-{key}")
    yield made
    made.close()


def layout_of(world: World) -> Any:
    return decode_layout(world.run(world.store.read_layout()))


def publish(world: World, change: Any) -> Any:
    """Change the layout past all clients."""
    document = world.run(world.store.read_layout())
    layout = change(decode_layout(document))
    world.run(world.store.write_layout(encode_layout(layout), document))
    return layout


def items_on(world: World, url: str) -> int:
    """How many of the keys a node keeps, under whatever name."""
    layout = layout_of(world)
    node = world_backend(world, url)
    try:
        texts = [f"customer:{key}".encode() for key in KEYS]
        names = [layout.names("lc", "customer", text)[0] for text in texts]
        return sum(raw is not None for raw in node.get_many(names))
    finally:
        node.close()


def world_backend(world: World, url: str) -> Any:
    from cachelib.backends import from_url

    return from_url(url)


# --- where keys are --------------------------------------------------------------------------


def test_every_key_is_on_its_own_node_and_on_no_other(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    for key in KEYS:
        assert cache.get(customers, key) == {"name": f"name-{key}", "tier": "iron"}
    assert world.loads.count == len(KEYS)
    assert [cache.read(customers, key).source for key in KEYS] == ["hit"] * len(KEYS)
    held = [items_on(world, server.url) for server in pool[:3]]
    assert sum(held) == len(KEYS)
    assert all(held)
    assert items_on(world, pool[3].url) == 0


def test_another_process_finds_the_same_keys_whatever_order_it_was_given(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    world.cache(customers).get_many(customers, KEYS)
    other = world.cache(customers, backend=[server.url for server in reversed(pool[:3])])
    assert {read.source for read in other.read_many(customers, KEYS).values()} == {"hit"}


def test_a_process_that_was_given_one_node_finds_the_others_by_the_layout(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    world.cache(customers).get_many(customers, KEYS)
    other = world.cache(customers, backend=pool[1].url)
    assert {read.source for read in other.read_many(customers, KEYS).values()} == {"hit"}
    assert [other.get(customers, key) for key in KEYS] == [{"name": f"name-{key}", "tier": "iron"} for key in KEYS]


def test_many_keys_are_one_load_and_then_hits(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    assert list(cache.get_many(customers, KEYS)) == list(KEYS)
    assert world.loads.count == 1
    assert list(cache.get_many(customers, KEYS)) == list(KEYS)
    assert world.loads.count == 1


def test_a_write_reaches_the_key_on_its_node(world: World) -> None:
    customers = world.customers(consistency=Strong())
    cache, other = world.cache(customers), world.cache(customers)
    cache.get_many(customers, KEYS)
    with cache.transaction() as tx:
        world.run(tx.execute("update customers set tier = 'gold'"))
    assert {value["tier"] for value in other.get_many(customers, KEYS).values()} == {"gold"}
    assert {other.read(customers, key).source for key in KEYS} == {"hit"}


@once
def test_a_pool_of_backends_is_given_by_name(world: World) -> None:
    customers = world.customers()
    nodes = {"a": Memory(), "b": Memory()}
    cache = world.cache(customers, backend=nodes)
    cache.get_many(customers, KEYS)
    assert all(len(node._items) > 10 for node in nodes.values())


def test_a_pool_without_a_store_has_the_same_names_everywhere() -> None:
    nodes = {"a": Memory(), "b": Memory()}
    made: list[int] = []

    def double(number: int) -> int:
        made.append(number)
        return 2 * number

    for _ in range(2):
        with Cache(nodes) as cache:
            doubled = cache.cached("double:{number:int}", ttl="1m")(double)
            assert [doubled(number) for number in range(20)] == [2 * number for number in range(20)]
    assert made == list(range(20))
    assert all(node._items for node in nodes.values())


# --- nodes that fail -------------------------------------------------------------------------


def test_a_dead_node_costs_its_own_keys_only(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get_many(customers, KEYS)
    held = items_on(world, pool[1].url)
    pool[1].kill()
    sources = [cache.read(customers, key).source for key in KEYS]
    assert sources.count("store") == held
    assert sources.count("hit") == len(KEYS) - held
    sources = [read.source for read in cache.read_many(customers, KEYS).values()]
    assert sources.count("store") == held
    assert sources.count("hit") == len(KEYS) - held


def test_a_dead_node_leaves_the_other_writes_confirmed(world: World, pool: list[Any]) -> None:
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    cache.get_many(customers, KEYS)
    layout = layout_of(world)
    home = {key: layout.now.owner(slot_of(f"customer:{key}".encode())) for key in KEYS}
    dead = node_name(pool[0].url)
    pool[0].kill()
    for key in KEYS:
        if home[key] == dead:
            with pytest.raises(Unconfirmed, match=str(key)):
                cache.put(customers, key, NEW)
            break
    alive = next(key for key in KEYS if home[key] != dead)
    assert cache.put(customers, alive, NEW).confirmed
    assert cache.get(customers, alive) == NEW


def test_a_node_that_answers_again_is_used_again_without_help(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get_many(customers, KEYS)
    pool[2].kill()
    for key in KEYS:
        cache.get(customers, key)
    pool[2].start()

    def all_hit() -> bool:
        return {read.source for read in cache.read_many(customers, KEYS).values()} == {"hit"}

    until(all_hit, "the node that came back is used")


@once
def test_a_node_that_the_layout_names_and_nobody_can_reach_costs_its_keys_only(world: World) -> None:
    customers = world.customers()
    nodes = {"a": Memory(), "b": Memory()}
    world.cache(customers, backend=nodes).get_many(customers, KEYS)
    other = world.cache(customers, backend={"a": nodes["a"], "z": Memory()})
    sources = {read.source for read in other.read_many(customers, KEYS).values()}
    assert sources == {"hit", "store"}
    assert {other.read(customers, key).source for key in KEYS} == {"hit", "store"}
    key = next(key for key in KEYS if other.read(customers, key).source == "store")
    with pytest.raises(CacheUnavailable, match="'b'"):
        other.invalidate(customers, key)


# --- the layout ------------------------------------------------------------------------------


def test_the_first_who_is_given_several_nodes_writes_them_into_the_layout(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    world.cache(customers).get(customers, 1)
    assert len(layout_of(world).now.nodes) == 3
    assert layout_of(world).next is None


@once
def test_a_cache_of_one_node_becomes_a_pool_in_two_steps(world: World, pool: list[Any]) -> None:
    customers = world.customers(consistency=Strong())
    one = world.cache(customers, backend=pool[0].url)
    one.get_many(customers, KEYS)
    assert layout_of(world).nodes == ()
    several = world.cache(customers)
    several.get(customers, 1)
    assert len(layout_of(world).next.nodes) == 3
    for key in KEYS:  # both see every write meanwhile, wherever they look
        several.put(customers, key, NEW)
        assert one.get(customers, key) == NEW
        assert several.get(customers, key) == NEW
    until(lambda: layout_of(world).next is None or several.get(customers, 1) is None, "the pool is current")
    assert all(one.get(customers, key) == NEW for key in KEYS)
    one.get_many(customers, KEYS)
    assert sum(items_on(world, server.url) for server in pool[:3]) == len(KEYS)


def test_what_moves_is_not_hit_under_its_old_name_by_a_strong_read(world: World) -> None:
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    cache.get_many(customers, KEYS)
    layout = publish(world, lambda now: with_node_renewed(now, now.nodes[0]))
    moving = [key for key in KEYS if len(layout.names("lc", "customer", f"customer:{key}".encode())) == 2]
    still = [key for key in KEYS if key not in moving]
    until(lambda: cache.read(customers, moving[0]).source == "store", "the change is seen")
    assert {cache.read(customers, key).source for key in moving} == {"store"}
    assert {cache.read(customers, key).source for key in still} == {"hit"}
    loads = world.loads.count
    for key in still:
        cache.get(customers, key)
    assert world.loads.count == loads
    for key in moving:
        cache.get(customers, key)
    assert world.loads.count == loads + len(moving)


def test_a_node_with_a_new_tenure_is_not_asked_for_what_it_has(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get_many(customers, KEYS)
    renewed = publish(world, lambda now: completed(with_node_renewed(now, now.nodes[0])))
    moved = [key for key in KEYS if renewed.now.owner(slot_of(f"customer:{key}".encode())) == renewed.nodes[0]]
    world.sql("update customers set tier = 'gold'")  # past the library: only a new load can show it
    until(lambda: cache.get(customers, moved[0])["tier"] == "gold", "the new tenure is seen")
    assert {cache.get(customers, key)["tier"] for key in moved} == {"gold"}
    assert {cache.get(customers, key)["tier"] for key in KEYS if key not in moved} == {"iron"}


@once
def test_a_change_that_its_publisher_left_becomes_current_all_the_same(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    publish(world, lambda now: with_nodes(now, now.nodes[:2]))

    def current() -> bool:
        cache.get(customers, 1)
        time.sleep(0.05)
        layout = layout_of(world)
        return layout.next is None and len(layout.nodes) == 2

    until(current, "the change is current")


def test_a_pool_that_is_named_by_the_layout_outranks_what_a_process_was_given(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    world.cache(customers).get_many(customers, KEYS)
    other = world.cache(customers, backend=[pool[3].url, pool[0].url])
    other.get_many(customers, KEYS)
    assert len(layout_of(world).nodes) == 3
    assert items_on(world, pool[3].url) == 0


def test_a_program_from_before_pools_can_still_read_the_layout_of_one_node() -> None:
    assert b'"format": 1' in encode_layout(first_layout())


def test_a_setting_that_names_no_node_is_refused() -> None:
    with pytest.raises(ConfigError, match="no cache node"):
        Cache([])


def test_slots_are_spread_over_the_keys_of_the_test() -> None:
    """The tests above need keys on each node."""
    assert len({slot_of(f"customer:{key}".encode()) for key in KEYS}) > 40
    assert SLOTS == 1024
    assert isinstance(Entity("x:{id}"), Entity)


# --- the gutter ------------------------------------------------------------------------------


def test_while_a_node_is_down_another_keeps_what_is_loaded(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    cache, other = world.cache(customers, gutter="2s"), world.cache(customers, gutter="2s")
    cache.get_many(customers, KEYS)
    pool[1].kill()

    def all_kept() -> bool:
        sources = {read.source for read in cache.read_many(customers, KEYS).values()}
        return sources == {"hit", "gutter"}

    until(all_kept, "every key is kept somewhere")
    assert all(cache.get(customers, key) == {"name": f"name-{key}", "tier": "iron"} for key in KEYS)
    loads = world.loads.count
    until(lambda: {read.source for read in other.read_many(customers, KEYS).values()} == {"hit", "gutter"})
    assert world.loads.count <= loads + 20  # those whose two seconds were over


def test_what_the_gutter_keeps_is_forgotten_in_two_seconds(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    cache = world.cache(customers, gutter="1s")
    cache.get_many(customers, KEYS)
    layout = layout_of(world)
    key = next(key for key in KEYS if layout.now.owner(slot_of(f"customer:{key}".encode())) == layout.nodes[1])
    pool[1].kill()
    until(lambda: cache.read(customers, key).source == "gutter", "the key is in the gutter")
    world.customer(key, "new", "gold")  # past the library, and nobody tells the gutter
    until(lambda: cache.get(customers, key) == NEW, "the gutter has forgotten", within_s=10)


def test_a_strong_read_never_takes_what_is_in_the_gutter(world: World, pool: list[Any]) -> None:
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers, gutter="2s")
    cache.get_many(customers, KEYS)
    pool[1].kill()
    for _ in range(2):
        for key in KEYS[:20]:
            assert cache.read(customers, key).source in ("hit", "store")
    assert cache.read(customers, KEYS[0], consistency=Eventual()).source in ("hit", "gutter", "filled")


def test_what_is_in_the_gutter_is_left_there_when_the_node_is_back(world: World, pool: list[Any]) -> None:
    customers = world.customers()
    cache = world.cache(customers, gutter="2s")
    cache.get_many(customers, KEYS)
    pool[1].kill()
    until(lambda: "gutter" in {read.source for read in cache.read_many(customers, KEYS).values()})
    pool[1].start()
    world.sql("update customers set tier = 'gold'")
    until(lambda: {read.source for read in cache.read_many(customers, KEYS).values()} == {"hit"}, "the node is used")
    layout = layout_of(world)
    own = [key for key in KEYS if layout.now.owner(slot_of(f"customer:{key}".encode())) == layout.nodes[1]]
    assert {cache.get(customers, key)["tier"] for key in own} == {"gold"}


@pytest.mark.parametrize("wrong", ["3s", 0, "1ms"])
def test_a_gutter_that_would_keep_too_long_or_not_at_all_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="gutter"):
        Cache("memory://", gutter=wrong)
