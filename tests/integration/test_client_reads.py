"""Reads of a cache over real servers and stores, both faces: one scenario, four or more worlds."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachelib import (
    BadKey,
    ConfigError,
    DeadlineExceeded,
    Entity,
    Eventual,
    LeasePolicy,
    LoadFailed,
    Row,
    StoreBudget,
    StoreBudgetExceeded,
    Strong,
    Ttl,
)
from cachelib.metrics import EVENTS
from tests.integration.client_world import WAIT_S, Held, World, install, sqlite_template, until

SQLITE = ["sync-redis-sqlite", "sync-memcached-sqlite", "async-redis-sqlite", "async-memcached-sqlite"]
POSTGRES = ["sync-redis-postgres", "async-memcached-postgres"]
on_postgres_too = pytest.mark.parametrize("world", SQLITE + POSTGRES, indirect=True)
PETER, PAUL = {"name": "Peter", "tier": "iron"}, {"name": "Paul", "tier": "gold"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=SQLITE)
def world(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[World]:
    face, server, store = request.param.split("-")
    url = str(request.getfixturevalue(f"{store}_url"))
    if store == "sqlite":
        shutil.copy(template, tmp_path / "store.db")
    else:
        install(url)
    made = World(face, request.getfixturevalue(f"{server}_url"), url)
    made.customer(1, "Peter")
    made.customer(2, "Paul", "gold")
    yield made
    made.close()


# --- read-through ----------------------------------------------------------------------------


@on_postgres_too
def test_a_miss_loads_and_the_next_read_hits(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    reads = [cache.read(customers, 1) for _ in range(3)]
    assert [read.source for read in reads] == ["filled", "hit", "hit"]
    assert [read.value for read in reads] == [PETER] * 3
    assert world.loads.count == 1


def test_another_cache_of_the_same_server_hits(world: World) -> None:
    customers = world.customers()
    world.cache().get(customers, 1)
    assert world.cache().read(customers, 1).source == "hit"


@on_postgres_too
def test_a_read_tells_version_and_age(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    for read in (cache.read(customers, 1), cache.read(customers, 1)):
        ((version,),) = world.sql("select row_version from customers where id = 1")
        assert read.version == version
        assert read.found
        assert read.age_ms is not None
        assert 0 <= read.age_ms < 60_000


@on_postgres_too
def test_a_whole_table_needs_no_loader(world: World) -> None:
    customers = Entity.from_table("customers")
    cache = world.cache()
    assert cache.get(customers, 1) == {"id": 1, **PETER} == cache.get(customers, "1")
    assert cache.get_many(customers, [2, 9, 1]) == {2: {"id": 2, **PAUL}, 1: {"id": 1, **PETER}}


def test_a_row_that_does_not_exist_is_the_default(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    nobody = object()
    assert [cache.get(customers, 9, default=nobody) for _ in range(2)] == [nobody] * 2
    assert cache.get(customers, 9) is None
    assert not cache.read(customers, 9).found


def test_absence_is_cached(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    assert [cache.read(customers, 9).source for _ in range(3)] == ["filled", "hit", "hit"]
    assert world.loads.count == 1


def test_a_value_of_none_is_no_absence(world: World) -> None:
    nothing = Entity("nothing:{id}", load=world.loader("select id, name from customers where id in :keys", _nones))
    cache = world.cache()
    for _ in range(2):
        read = cache.read(nothing, 1)
        assert (read.value, read.found) == (None, True)
        assert cache.get(nothing, 1, default="default") is None
    assert world.loads.count == 1


def _nones(found: Sequence[Any]) -> dict[Any, Any]:
    return {key: None for key, _ in found}


def test_absence_lives_for_its_own_time(world: World) -> None:
    customers = world.customers(negative_ttl="1s", jitter=Ttl(jitter=0))
    cache = world.cache()
    assert cache.get(customers, 9) is None
    world.customer(9, "Nina")
    until(lambda: cache.get(customers, 9) is not None, "the end of the absence")


# --- many keys -------------------------------------------------------------------------------


@on_postgres_too
def test_many_keys_come_in_the_order_asked(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    for _ in range(2):
        assert list(cache.get_many(customers, [2, 9, 1])) == [2, 1]
        assert list(cache.get_many(customers, [1, 2, 9]).values()) == [PETER, PAUL]


def test_many_keys_are_one_load(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    cache.get_many(customers, [3, 2, 1])
    assert world.loads.asked == [(3, 2, 1)]


def test_only_what_is_missing_is_loaded(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    cache.get(customers, 2)
    reads = cache.read_many(customers, [1, 2, 3])
    assert {key: read.source for key, read in reads.items()} == {1: "filled", 2: "hit", 3: "filled"}
    assert world.loads.asked[1:] == [(1, 3)]


def test_a_key_asked_twice_is_loaded_once(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    assert cache.get_many(customers, [1, 1, "1", 2, 1]) == {1: PETER, "1": PETER, 2: PAUL}
    assert world.loads.asked == [(1, 2)]


def test_no_keys_are_no_load(world: World) -> None:
    assert world.cache().get_many(world.customers(), []) == {}
    assert world.loads.count == 0


def test_a_large_batch_is_one_load_and_then_all_hits(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    keys = random.Random(7).sample(range(100_000), 1_500)
    assert all(read.source == "filled" for read in cache.read_many(customers, keys).values())
    assert all(read.source == "hit" for read in cache.read_many(customers, keys).values())
    assert world.loads.count == 1


def test_two_batches_that_hold_each_others_leases_do_not_wait_them_out(world: World) -> None:
    customers = world.customers(lease=LeasePolicy(hold="20s", wait_max="60s"))
    keys = list(range(20))
    caches = [world.cache(), world.cache()]

    def some(turn: int) -> Any:
        return caches[turn].get_many(customers, keys if turn else keys[::-1], deadline="15s")

    for _ in range(5):
        caches[0].invalidate(customers, 1)
        with world.meanwhile(lambda: some(0)) as got:
            assert some(1) == {1: PETER, 2: PAUL}
        assert got == [{1: PETER, 2: PAUL}]


def test_a_batch_waits_for_a_key_that_another_loads(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(), world.cache()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        world.loads.on_load = lambda keys: held.go_on.set() if 2 in keys else None
        assert other.get_many(customers, [1, 2]) == {1: PETER, 2: PAUL}
    assert got == [PETER]
    assert sorted(world.loads.asked) == [(1,), (2,)]


# --- keys ------------------------------------------------------------------------------------


@on_postgres_too
def test_composite_and_text_keys_by_position_and_by_name(world: World) -> None:
    stock = Entity.from_table("stock", key=("shop", "item"))
    cache = world.cache(stock)
    shops = ["north", "a:b/c d", "ü~%", "x" * 300, ""]
    for shop in shops:
        world.sql("insert into stock (shop, item, amount) values (:shop, 7, :n)", shop=shop, n=len(shop))
    for _ in range(2):
        for shop in shops:
            assert cache.get(stock, (shop, 7))["amount"] == len(shop)
            assert cache.get(stock, item=7, shop=shop) == cache.get(stock, {"shop": shop, "item": 7})
    assert len(cache.get_many(stock, [(shop, 7) for shop in shops])) == len(shops)
    with cache.transaction() as tx:
        tx.execute("update stock set amount = amount + 1000")
    assert [cache.get(stock, (shop, 7))["amount"] for shop in shops] == [1000 + len(shop) for shop in shops]


@pytest.mark.parametrize("key", ["x", None, 1.5, True, (1, 2), [1]])
def test_a_bad_key_is_refused_before_anything_is_sent(world: World, key: Any) -> None:
    customers = world.customers()
    cache = world.cache(backend=_Untouchable(), store=None)
    for call in (
        lambda: cache.get(customers, key),
        lambda: cache.read(customers, key),
        lambda: cache.get_many(customers, [1, key]),
    ):
        with pytest.raises(BadKey):
            call()


class _Untouchable:
    """A backend that nothing may be sent to."""

    from cachelib.backends import Memory

    capability = Memory.capability

    def close(self) -> Any:
        return _done()

    def __getattr__(self, name: str) -> Any:
        if name == "get":
            return lambda *_: pytest.fail("something was sent")
        raise AttributeError(name)


class _done:  # noqa: N801 - awaitable, or nothing at all
    def __await__(self) -> Iterator[None]:
        return iter(())


def test_two_entities_of_one_name_are_refused(world: World) -> None:
    cache = world.cache()
    cache.get(world.customers(), 1)
    with pytest.raises(ConfigError, match="share the name"):
        cache.get(world.customers(), 1)


def test_namespaces_are_apart(world: World) -> None:
    customers = world.customers()
    world.cache(namespace="a").get(customers, 1)
    assert world.cache(namespace="b").read(customers, 1).source == "filled"


# --- one loads for all -----------------------------------------------------------------------


def test_readers_of_one_process_share_a_load(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as first:
        assert held.begun.wait(WAIT_S)
        with world.meanwhile(lambda: cache.read(customers, 1)) as second:
            held.go_on.set()
    assert first == [PETER]
    assert second[0].value == PETER
    assert world.loads.count == 1


def test_readers_of_two_processes_share_a_load(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(), world.cache()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as first:
        assert held.begun.wait(WAIT_S)
        with world.meanwhile(lambda: other.read(customers, 1)) as second:
            until(lambda: other.metrics.values().get((EVENTS, "customer", "wait")), "the other reader's wait")
            held.go_on.set()
    assert first == [PETER]
    assert second[0].value == PETER
    assert world.loads.count == 1


def test_a_reader_that_waited_long_enough_asks_the_store_itself(world: World) -> None:
    customers = world.customers(lease=LeasePolicy(hold="30s", wait="5ms", wait_max="50ms"))
    cache, other = world.cache(), world.cache()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)):
        assert held.begun.wait(WAIT_S)
        world.loads.on_load = lambda keys: None
        read = other.read(customers, 1)
        held.go_on.set()
    assert (read.value, read.source) == (PETER, "store")
    assert other.metrics.values()[EVENTS, "customer", "wait_gave_up"] == 1


def test_a_failed_load_lets_the_next_reader_try_at_once(world: World) -> None:
    customers = world.customers(lease=LeasePolicy(hold="30s"))
    cache, other = world.cache(), world.cache()
    world.loads.on_load = _fail
    with pytest.raises(LoadFailed, match="the store is out"):
        cache.get(customers, 1)
    world.loads.on_load = lambda keys: None
    assert other.get(customers, 1, deadline="5s") == PETER


def _fail(keys: Sequence[Any]) -> None:
    raise OSError("the store is out")


# --- stale and early -------------------------------------------------------------------------


def test_stale_content_is_shown_while_another_loads(world: World) -> None:
    customers = world.customers(stale_ttl="1m")
    cache, other = world.cache(), world.cache()
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    world.customer(1, "Petra")
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        for reader in (cache, other):
            read = reader.read(customers, 1)
            assert (read.value, read.source) == (PETER, "stale")
        held.go_on.set()
    assert got[0]["name"] == "Petra"
    assert other.read(customers, 1).value["name"] == "Petra"


def test_stale_content_is_shown_when_the_load_fails(world: World) -> None:
    customers = world.customers(stale_ttl="1m")
    cache = world.cache()
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    world.loads.on_load = _fail
    for _ in range(2):
        read = cache.read(customers, 1)
        assert (read.value, read.source) == (PETER, "stale")
    assert world.loads.count == 3


def test_without_a_stale_life_nothing_stale_is_shown(world: World) -> None:
    customers = world.customers(stale_ttl=0)
    cache = world.cache()
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    world.loads.on_load = _fail
    with pytest.raises(LoadFailed):
        cache.get(customers, 1)


def test_stale_content_is_shown_for_its_time_only(world: World) -> None:
    customers = world.customers(stale_ttl="1s")
    cache = world.cache()
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    world.loads.on_load = _fail

    def fails() -> bool:
        try:
            cache.get(customers, 1)
        except LoadFailed:
            return True
        return False

    assert not fails()
    until(fails, "the end of the stale life", within_s=10)


def test_a_strong_read_is_never_stale(world: World) -> None:
    customers = world.customers(stale_ttl="1m", consistency=Strong())
    cache = world.cache(customers)
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    world.loads.on_load = _fail
    with pytest.raises(LoadFailed):
        cache.get(customers, 1)
    assert cache.read(customers, 1, consistency=Eventual()).source == "stale"


def test_exactly_one_reader_refreshes_early_and_the_others_hit(world: World) -> None:
    customers = world.customers(ttl="3s", jitter=Ttl(jitter=0, early=1.0))
    cache, other = world.cache(), world.cache()
    cache.get(customers, 1)
    world.customer(1, "Petra")
    until(lambda: cache.explain(customers, 1).verdict == "refresh", "the early refresh's time")
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.read(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        for reader in (cache, other) * 3:
            read = reader.read(customers, 1, deadline="5s")
            assert (read.value, read.source) == (PETER, "hit")
        held.go_on.set()
    assert (got[0].value["name"], got[0].source) == ("Petra", "filled")
    assert world.loads.count == 2


def test_a_refresh_that_fails_still_hits(world: World) -> None:
    customers = world.customers(ttl="3s", jitter=Ttl(jitter=0, early=1.0))
    cache = world.cache()
    cache.get(customers, 1)
    until(lambda: cache.explain(customers, 1).verdict == "refresh", "the early refresh's time")
    world.loads.on_load = _fail
    read = cache.read(customers, 1)
    assert (read.value, read.source) == (PETER, "hit")


# --- what cannot be kept, or read ------------------------------------------------------------


def test_a_value_too_large_is_returned_counted_and_not_kept(world: World) -> None:
    big = "x" * 4_000
    world.customer(1, big)
    customers = world.customers(compress_over=None)
    limit = {"payload_bytes_max": 1_000} if world.cache_url.startswith("redis") else {"item_bytes_max": 1_000}
    cache = world.cache(customers, backend=world.backend(**limit))
    for _ in range(2):
        read = cache.read(customers, 1)
        assert (read.value["name"], read.source) == (big, "store")
    assert world.loads.count == 2
    assert cache.metrics.values()[EVENTS, "customer", "too_large"] == 2
    assert cache.read(customers, 2).source == "filled"


def test_a_put_of_a_value_too_large_voids_the_one_that_is_kept(world: World) -> None:
    customers = world.customers(compress_over=None)
    limit = {"payload_bytes_max": 1_000} if world.cache_url.startswith("redis") else {"item_bytes_max": 1_000}
    cache = world.cache(customers, backend=world.backend(**limit))
    cache.get(customers, 1)
    assert cache.put(customers, 1, {"name": "x" * 4_000, "tier": "iron"}).confirmed
    assert cache.get(customers, 1)["name"] == "x" * 4_000


def _codecs(world: World) -> tuple[Any, Any, Any, Any]:
    """An old program and a new one: the same entity, another schema."""
    old, new = world.customers(schema=1), world.customers(schema=2)
    return world.cache(old), old, world.cache(new), new


def test_a_new_program_refills_what_an_old_one_wrote(world: World) -> None:
    old_cache, old, new_cache, new = _codecs(world)
    old_cache.get(old, 1)
    assert [new_cache.read(new, 1).source for _ in range(3)] == ["filled", "hit", "hit"]
    assert new_cache.metrics.values()[EVENTS, "customer", "undecodable"] == 1


def test_an_old_program_leaves_alone_what_a_new_one_wrote(world: World) -> None:
    old_cache, old, new_cache, new = _codecs(world)
    new_cache.get(new, 1)
    read = old_cache.read(old, 1)
    assert (read.value, read.source) == (PETER, "store")
    assert new_cache.read(new, 1).source == "hit"


def test_a_rolling_deploy_moves_each_item_once(world: World) -> None:
    """The new program loads once. The old one asks the store each time, and never takes the item back."""
    old_cache, old, new_cache, new = _codecs(world)
    old_cache.get(old, 1)
    for _ in range(10):
        assert new_cache.get(new, 1) == old_cache.get(old, 1) == PETER
    assert world.loads.count == 1 + 1 + 10
    assert new_cache.metrics.values()[EVENTS, "customer", "undecodable"] == 1
    assert old_cache.metrics.values()[EVENTS, "customer", "later_codec"] == 10


def test_a_rolling_deploy_works_for_batches_and_strong_reads(world: World) -> None:
    old = world.customers(schema=1, consistency=Strong())
    new = world.customers(schema=2, consistency=Strong())
    old_cache, new_cache = world.cache(old), world.cache(new)
    for _ in range(3):
        assert old_cache.get_many(old, [1, 2]) == new_cache.get_many(new, [1, 2]) == {1: PETER, 2: PAUL}
        assert old_cache.get(old, 1) == new_cache.get(new, 1) == PETER


# --- modes -----------------------------------------------------------------------------------


def test_no_fill_serves_hits_and_stores_nothing(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    cache.set_mode(customers, "no_fill")
    assert cache.read(customers, 1).source == "hit"
    assert [cache.read(customers, 2).source for _ in range(2)] == ["store", "store"]


def test_bypass_asks_the_store_and_writes_still_invalidate(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    cache.set_mode(customers, "bypass")
    assert [cache.read(customers, 1).source for _ in range(2)] == ["store", "store"]
    cache.put(customers, 1, {"name": "Petra", "tier": "iron"})
    cache.set_mode(customers, "on")
    assert cache.read(customers, 1).value["name"] == "Petra"


def test_a_mode_for_all_reaches_other_processes(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers), world.cache(customers)
    other.get(customers, 1)
    cache.set_mode(None, "bypass")
    until(lambda: other.read(customers, 1).source == "store", "the other process's new mode")


def test_a_wrong_mode_names_the_right_ones(world: World) -> None:
    with pytest.raises(ConfigError, match="'on', 'no_fill' or 'bypass'"):
        world.cache().set_mode(world.customers(), "off")


# --- levels, deadlines, budgets --------------------------------------------------------------


def test_strong_is_declared_not_asked(world: World) -> None:
    with pytest.raises(ConfigError, match="declare the entity"):
        world.cache().get(world.customers(), 1, consistency=Strong())


def test_a_strong_read_fills_and_hits(world: World) -> None:
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    assert [cache.read(customers, 1).source for _ in range(3)] == ["filled", "hit", "hit"]


def test_a_deadline_ends_the_wait_for_another_process(world: World) -> None:
    customers = world.customers(lease=LeasePolicy(hold="30s", wait_max="60s"))
    cache, other = world.cache(), world.cache()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)):
        assert held.begun.wait(WAIT_S)
        with pytest.raises(DeadlineExceeded, match="another reader's lease"):
            other.get(customers, 1, deadline="100ms")
        held.go_on.set()


def test_a_deadline_ends_the_wait_for_another_call(world: World) -> None:
    customers = world.customers()
    cache = world.cache()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        with pytest.raises(DeadlineExceeded, match="another call's load"):
            cache.get(customers, 1, deadline="100ms")
        held.go_on.set()
    assert got == [PETER]


@pytest.mark.parametrize("wrong", ["soon", -1, True])
def test_a_wrong_deadline_is_refused(world: World, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="deadline"):
        world.cache().get(world.customers(), 1, deadline=wrong)


def test_loads_beyond_the_budget_are_refused(world: World) -> None:
    customers = world.customers()
    cache = world.cache(budget=StoreBudget(at_once=1, wait="50ms"))
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        with pytest.raises(StoreBudgetExceeded):
            cache.get(customers, 2)
        held.go_on.set()
    assert got == [PETER]
    assert cache.get(customers, 2) == PAUL


def test_beyond_the_budget_stale_content_is_shown(world: World) -> None:
    customers = world.customers(stale_ttl="1m")
    cache = world.cache(budget=StoreBudget(at_once=1, wait="50ms"))
    cache.get(customers, 2)
    cache.invalidate(customers, 2)
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)):
        assert held.begun.wait(WAIT_S)
        assert cache.read(customers, 2).source == "stale"
        held.go_on.set()


# --- functions -------------------------------------------------------------------------------


def test_a_cached_function_runs_once_for_its_arguments(world: World) -> None:
    cache = world.cache()
    calls: list[tuple[int, str]] = []

    @cache.cached("sum:{n}:{unit}", ttl="5m")
    def total(n: int, unit: str = "m") -> str:
        calls.append((n, unit))
        return f"{n} {unit}"

    assert [total(1), total(1, "m"), total(unit="m", n=1), total(2)] == ["1 m"] * 3 + ["2 m"]
    assert calls == [(1, "m"), (2, "m")]
    cache.invalidate(total.entity, n=1, unit="m")
    assert total(1) == "1 m"
    assert len(calls) == 3


def test_a_cached_function_needs_no_store(world: World) -> None:
    cache = world.cache(store=None)

    @cache.cached("half:{n}")
    def half(n: int) -> int | None:
        return None if n % 2 else n // 2

    assert [half(4), half(4), half(3), half(3)] == [2, 2, None, None]


def test_a_template_that_does_not_fit_the_function_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="exactly the function's parameters"):

        @world.cache(store=None).cached("half:{m}")
        def half(n: int) -> int:
            return n


# --- explain ---------------------------------------------------------------------------------


def test_explain_follows_a_key_through_its_life(world: World) -> None:
    customers = world.customers(stale_ttl=0)
    cache = world.cache(customers)
    verdicts = [cache.explain(customers, 1).verdict]
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)):
        assert held.begun.wait(WAIT_S)
        verdicts.append(cache.explain(customers, 1).verdict)
        held.go_on.set()
    verdicts.append(cache.explain(customers, 1).verdict)
    cache.invalidate(customers, 1)
    verdicts.append(cache.explain(customers, id=1).verdict)
    assert verdicts == ["miss", "wait", "hit", "miss"]


def test_rows_are_whatever_the_loader_gives(world: World) -> None:
    pairs = Entity(
        "pair:{id}",
        load=world.loader(
            "select id, tier from customers where id in :keys", lambda rows: {k: Row((k, t)) for k, t in rows}
        ),
    )
    assert [world.cache().get(pairs, 2) for _ in range(2)] == [[2, "gold"]] * 2
