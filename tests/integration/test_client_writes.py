"""Writes of a cache over real servers and stores: what the cache knows when the writer is told."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cachelib import CacheError, ConfigError, Entity, StoreError, Strong, Written
from cachelib.metrics import EVENTS
from tests.integration.client_world import WAIT_S, Held, World, driver_url, install, sqlite_template, until

SQLITE = ["sync-redis-sqlite", "sync-memcached-sqlite", "async-redis-sqlite", "async-memcached-sqlite"]
POSTGRES = ["sync-redis-postgres", "async-memcached-postgres"]
on_postgres_too = pytest.mark.parametrize("world", SQLITE + POSTGRES, indirect=True)
only_sync = pytest.mark.parametrize("world", ["sync-redis-sqlite", "sync-memcached-sqlite"], indirect=True)
PETER, PAUL = {"name": "Peter", "tier": "iron"}, {"name": "Paul", "tier": "gold"}
PETRA = {"name": "Petra", "tier": "gold"}
LEASE_MS = 300


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=SQLITE)
def world(
    request: pytest.FixtureRequest, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    face, server, store = request.param.split("-")
    url = str(request.getfixturevalue(f"{store}_url"))
    if store == "sqlite":
        shutil.copy(template, tmp_path / "store.db")
    else:
        install(url)
    monkeypatch.setattr("cachelib.view.LEASE_MS", LEASE_MS)
    monkeypatch.setattr("cachelib.view.REFRESH_MS", LEASE_MS // 2)
    made = World(face, request.getfixturevalue(f"{server}_url"), url, tx_keys_max=50)
    made.customer(1, "Peter")
    made.customer(2, "Paul", "gold")
    for order, customer in ((10, 1), (11, 1), (20, 2)):
        made.sql("insert into orders (id, customer_id, total) values (:id, :customer, 5)", id=order, customer=customer)
    yield made
    made.close()


def written(tx: Any) -> Written:
    """`tx.written`, of either face."""
    found = tx.written
    assert isinstance(found, Written)
    return found


# --- one row ---------------------------------------------------------------------------------


@on_postgres_too
def test_a_put_is_read_by_everybody_when_the_writer_is_told(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers), world.cache(customers)
    other.get(customers, 1)
    done = cache.put(customers, 1, PETRA)
    read = other.read(customers, 1)
    assert (read.value, read.source, read.version) == (PETRA, "hit", done.version)
    assert (done.confirmed, done.keys) == (True, 1)


@on_postgres_too
def test_a_put_of_a_new_row_ends_its_cached_absence(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers), world.cache(customers)
    assert other.get(customers, 9) is None
    cache.put(customers, 9, PETRA)
    assert other.get(customers, 9) == PETRA


@on_postgres_too
def test_a_delete_is_read_as_absence(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers), world.cache(customers)
    other.get(customers, 1)
    assert cache.delete(customers, 1).confirmed
    read = other.read(customers, 1)
    assert (read.found, read.source) == (False, "hit")
    cache.put(customers, 1, PETRA)
    assert other.get(customers, 1) == PETRA


def test_an_insert_by_sql_ends_cached_absence(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get_many(customers, [7, 8, 9])
    with cache.transaction() as tx:
        tx.execute("insert into customers (id, name, tier) values (9, 'Nina', 'iron')")
    assert cache.get_many(customers, [7, 8, 9]) == {9: {"name": "Nina", "tier": "iron"}}


def test_a_put_without_a_saver_says_what_is_missing(world: World) -> None:
    plain = world.customers(save=None, remove=None)
    cache = world.cache(plain)
    with pytest.raises(ConfigError, match="has no save="):
        cache.put(plain, 1, PETRA)
    with pytest.raises(ConfigError, match="has no remove="):
        cache.delete(plain, 1)


def test_a_transaction_needs_a_store(world: World) -> None:
    cache = world.cache(store=None)
    with pytest.raises(ConfigError, match="needs a store"), cache.transaction():
        pass


# --- any SQL ---------------------------------------------------------------------------------


@on_postgres_too
def test_every_key_that_any_sql_changed_is_told(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache, other = world.cache(customers, orders_of), world.cache(customers, orders_of)
    other.get_many(customers, [1, 2])
    other.get_many(orders_of, [1, 2, 3])
    with cache.transaction() as tx:
        tx.execute("update customers set tier = 'lead'")
        tx.execute("update orders set customer_id = 3 where id = :id", id=11)
        tx.execute("delete from orders where id = 20")
    assert other.get_many(customers, [1, 2]) == {1: PETER | {"tier": "lead"}, 2: PAUL | {"tier": "lead"}}
    assert other.get_many(orders_of, [1, 2, 3]) == {1: [10], 3: [11]}
    assert written(tx).confirmed
    assert written(tx).keys == 5


@on_postgres_too
def test_what_a_trigger_of_the_store_changed_is_told_too(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    if world.store_url.startswith("sqlite"):
        world.sql("create trigger t after insert on orders begin update customers set tier = 'new' where id = 1; end")
    else:
        world.sql(
            "create function f() returns trigger language plpgsql as"
            " $$ begin update customers set tier = 'new' where id = 1; return null; end $$"
        )
        world.sql("create trigger t after insert on orders for each row execute function f()")
    with cache.transaction() as tx:
        tx.execute("insert into orders (id, customer_id, total) values (30, 1, 5)")
    assert cache.get(customers, 1)["tier"] == "new"


@on_postgres_too
def test_an_exception_rolls_back_and_touches_no_cache(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache = world.cache(customers, orders_of)
    cache.get(customers, 1)
    cache.get(orders_of, 1)
    with pytest.raises(ZeroDivisionError), cache.transaction() as tx:  # noqa: PT012 - the block is what fails
        tx.put(customers, 1, PETRA)
        tx.execute("delete from orders")
        raise ZeroDivisionError
    assert [cache.read(customers, 1).source, cache.read(orders_of, 1).source] == ["hit", "hit"]
    assert cache.get(customers, 1) == PETER
    assert tx.written is None


def test_a_statement_that_the_store_refuses_rolls_back(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    with pytest.raises(StoreError), cache.transaction() as tx:  # noqa: PT012
        tx.put(customers, 1, PETRA)
        tx.execute("insert into nowhere values (1)")
    assert cache.read(customers, 1).source == "hit"
    assert world.sql("select name from customers where id = 1") == [("Peter",)]


@on_postgres_too
def test_reads_in_a_transaction_see_it_and_fill_nothing(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers), world.cache(customers)
    with cache.transaction() as tx:
        tx.put(customers, 1, PETRA)
        tx.delete(customers, 2)
        assert tx.get(customers, 1) == PETRA
        assert tx.get(customers, id=2, default="gone") == "gone"
        assert other.explain(customers, 1).verdict == "miss"


def test_a_savepoint_that_is_rolled_back_touches_no_cache(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get_many(customers, [1, 2])
    with cache.transaction() as tx:
        tx.put(customers, 1, PETRA)
        tx.execute("savepoint one")
        tx.execute("update customers set tier = 'lead' where id = 2")
        tx.execute("rollback to savepoint one")
    assert written(tx).keys == 1
    assert {key: read.source for key, read in cache.read_many(customers, [1, 2]).items()} == {1: "hit", 2: "hit"}
    assert cache.get_many(customers, [1, 2]) == {1: PETRA, 2: PAUL}


def test_an_empty_transaction_is_confirmed(world: World) -> None:
    with world.cache(world.customers()).transaction() as tx:
        tx.execute("select 1")
    assert written(tx) == Written(0, True, 0)


@only_sync
def test_a_transaction_joins_the_one_of_a_connection(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    engine = sa.create_engine(driver_url(world.store_url))
    with engine.connect() as connection:
        with cache.transaction(connection):
            connection.exec_driver_sql("update customers set name = 'Petra', tier = 'gold' where id = 1")
        assert not connection.in_transaction()
    engine.dispose()
    assert cache.read(customers, 1).value == PETRA


# --- how a write writes ----------------------------------------------------------------------


@on_postgres_too
def test_through_keeps_a_cached_key_cached_and_a_cold_one_cold(world: World) -> None:
    customers = world.customers(write="through")
    cache = world.cache(customers)
    cache.get(customers, 1)
    with cache.transaction() as tx:
        tx.execute("update customers set tier = 'lead'")
    assert {key: read.source for key, read in cache.read_many(customers, [1, 2]).items()} == {1: "hit", 2: "filled"}


@on_postgres_too
def test_populate_warms_a_cold_key(world: World) -> None:
    customers = world.customers(write="populate")
    cache = world.cache(customers)
    cache.put(customers, 1, PETRA)
    cache.put(customers, 9, PETER)
    assert [cache.read(customers, key).source for key in (1, 9)] == ["hit", "hit"]
    assert world.loads.count == 2  # each inside its transaction


def test_populate_takes_the_lease_from_a_reader_that_loads(world: World) -> None:
    customers = world.customers(write="populate")
    cache, other = world.cache(customers), world.cache(customers)
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: other.read(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        world.loads.on_load = lambda keys: None
        cache.put(customers, 1, PETRA)
        held.go_on.set()
    assert got[0].source == "store"
    assert cache.read(customers, 1).value == PETRA


def test_invalidate_makes_the_next_reader_load(world: World) -> None:
    customers = world.customers(write="invalidate", stale_ttl=0)
    cache = world.cache(customers)
    cache.get(customers, 1)
    cache.put(customers, 1, PETRA)
    read = cache.read(customers, 1)
    assert (read.value, read.source) == (PETRA, "filled")


@pytest.mark.parametrize("write", ["through", "populate", "invalidate"])
def test_a_load_that_began_before_a_write_is_not_kept(world: World, write: str) -> None:
    """Stale fill: lease, load of the old row, write, fill."""
    customers = world.customers(write=write, stale_ttl=0)
    cache, writer = world.cache(customers), world.cache(customers)
    held = Held()
    world.loads.on_load = lambda keys: None
    real = cache if world.loop is None else cache.face
    load = real._core.knows(customers).loading
    _after_the_load(world, load, held)
    with world.meanwhile(lambda: cache.get(customers, 1)):
        assert held.begun.wait(WAIT_S)
        writer.put(customers, 1, PETRA)
        held.go_on.set()
    assert writer.get(customers, 1) == PETRA
    assert cache.get(customers, 1) == PETRA


def _after_the_load(world: World, loading: Any, held: Held) -> None:
    """Hold the reader up between its load and its fill, once."""
    ask = loading.ask

    async def asked(keys: Any, timeout_s: Any) -> Any:
        answer = await ask(keys, timeout_s)
        if not held.begun.is_set():
            if world.loop is None:
                held(keys)
            else:
                import asyncio

                await asyncio.to_thread(held, keys)
        return answer

    loading.ask = asked


# --- many rows behind a key ------------------------------------------------------------------


@on_postgres_too
@pytest.mark.parametrize("strong", [False, True])
def test_keys_of_many_rows_are_void_before_the_writer_is_told(world: World, strong: bool) -> None:
    orders_of = world.orders_of(**({"consistency": Strong()} if strong else {"stale_ttl": 0}))
    cache, other = world.cache(orders_of), world.cache(orders_of)
    for number in range(5):
        assert other.get(orders_of, 1) == [10, 11, *range(100, 100 + number)]
        with cache.transaction() as tx:
            tx.execute("insert into orders (id, customer_id, total) values (:id, 1, 5)", id=100 + number)
        assert written(tx).confirmed


@on_postgres_too
def test_a_moved_row_changes_both_lists(world: World) -> None:
    orders_of = world.orders_of(consistency=Strong())
    cache = world.cache(orders_of)
    assert cache.get_many(orders_of, [1, 2]) == {1: [10, 11], 2: [20]}
    with cache.transaction() as tx:
        tx.execute("update orders set customer_id = 2 where id = 11")
    assert cache.get_many(orders_of, [1, 2]) == {1: [10], 2: [11, 20]}


# --- too many rows to name -------------------------------------------------------------------


@on_postgres_too
def test_beyond_the_keys_of_a_transaction_a_write_costs_an_epoch(world: World) -> None:
    customers = world.customers(consistency=Strong())
    cache, other = world.cache(customers), world.cache(customers)
    assert other.get(customers, 1) == PETER
    with cache.transaction() as tx:
        for key in range(1000, 1060):
            tx.put(customers, key, PETER)
        tx.execute("update customers set tier = 'lead' where id = 1")
    assert written(tx) == Written(0, True, 0)
    assert other.get(customers, 1)["tier"] == "lead"
    assert cache.metrics.values()[EVENTS, "customer", "bulk"] == 1


@pytest.mark.parametrize("world", POSTGRES, indirect=True)
def test_a_truncate_costs_an_epoch(world: World) -> None:
    customers, orders_of = world.customers(consistency=Strong()), world.orders_of()
    cache, other = world.cache(customers, orders_of), world.cache(customers, orders_of)
    other.get(customers, 1)
    other.get(orders_of, 1)
    with cache.transaction() as tx:
        tx.execute("truncate orders")
    assert other.get(orders_of, 1) is None
    assert other.read(customers, 1).source == "hit"


def test_a_bulk_write_does_not_touch_other_entities(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache = world.cache(customers, orders_of)
    cache.get(orders_of, 1)
    with cache.transaction() as tx:
        for key in range(1000, 1060):
            tx.put(customers, key, PETER)
    assert cache.read(orders_of, 1).source == "hit"


# --- clear -----------------------------------------------------------------------------------


def test_a_cleared_entity_is_cold_in_every_process(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache, other = world.cache(customers, orders_of), world.cache(customers, orders_of)
    for one in (cache, other):
        one.get(customers, 1)
        one.get(orders_of, 1)
    cache.clear(customers)
    assert other.read(customers, 1).source == "filled"
    assert other.read(orders_of, 1).source == "hit"


def test_clearing_everything_clears_every_entity(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache = world.cache(customers, orders_of)
    cache.get(customers, 1)
    cache.get(orders_of, 1)
    cache.clear()
    assert [cache.read(customers, 1).source, cache.read(orders_of, 1).source] == ["filled", "filled"]


def test_two_who_clear_at_once_both_succeed(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers), world.cache(customers)
    cache.get(customers, 1)
    with world.meanwhile(lambda: other.clear(customers)) as got:
        cache.clear(customers)
    assert got == [None]
    assert cache.read(customers, 1).source == "filled"


@pytest.mark.slow
@on_postgres_too
def test_while_epochs_change_no_strong_read_is_older_than_an_acknowledged_write(world: World) -> None:
    """One writer counts up; readers on other caches look at what it was told before they began."""
    customers = world.customers(consistency=Strong(), stale_ttl="1m")
    writer, clearer = world.cache(customers), world.cache(customers)
    acknowledged = [0]
    writer.put(customers, 1, {"name": "0", "tier": ""})
    stop, wrong, reads = threading.Event(), [], [0]

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.put(customers, 1, {"name": str(number), "tier": ""})
            acknowledged[0] = number

    def read(cache: Any) -> None:
        while not stop.is_set():
            least = acknowledged[0]
            value = int(cache.get(customers, 1)["name"])
            reads[0] += 1
            if value < least:
                wrong.append((least, value))

    errors: list[BaseException] = []

    def guarded(call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=guarded, args=(write,))]
    threads += [threading.Thread(target=guarded, args=(read, world.cache(customers))) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            clearer.clear(customers)
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert not errors
    assert not wrong
    assert acknowledged[0] > 5
    assert reads[0] > 50


# --- by hand ---------------------------------------------------------------------------------


def test_invalidate_by_hand_makes_the_next_reader_load(world: World) -> None:
    stock = Entity.from_table("stock", key=("shop", "item"), stale_ttl=0)
    world.sql("insert into stock (shop, item, amount) values ('north', 7, 1)")
    cache = world.cache(stock)
    assert cache.get(stock, ("north", 7))["amount"] == 1
    world.sql("update stock set amount = 2")
    assert cache.get(stock, ("north", 7))["amount"] == 1
    cache.invalidate(stock, shop="north", item=7)
    assert cache.get(stock, ("north", 7))["amount"] == 2
    cache.invalidate(stock, ("south", 1))


# --- everything at once ----------------------------------------------------------------------


@pytest.mark.slow
@on_postgres_too
@pytest.mark.parametrize("write", ["through", "populate", "invalidate"])
def test_many_threads_write_and_read_and_nobody_reads_back_in_time(world: World, write: str) -> None:
    """Each value carries its own number; per key and thread numbers must never fall (strong reads)."""
    customers = world.customers(consistency=Strong(), write=write)
    caches = [world.cache(customers) for _ in range(3)]
    keys = [1, 2, 3]
    latest = dict.fromkeys(keys, 0)
    locks = {key: threading.Lock() for key in keys}
    problems: list[Any] = []
    last = threading.Event()

    def work(number: int) -> None:
        cache, rng = caches[number % 3], random.Random(number)
        try:
            for _ in range(25):
                key = rng.choice(keys)
                if rng.random() < 0.3:
                    with locks[key]:  # one writer a key: the order of acknowledgements is known
                        value = latest[key] + 1
                        cache.put(customers, key, {"name": str(value), "tier": ""})
                        latest[key] = value
                else:
                    least = latest[key]
                    got = cache.get(customers, key)
                    seen = int(got["name"]) if got and got["name"].isdigit() else 0
                    if seen < least:
                        problems.append((key, least, seen))
        except CacheError as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S * 2)
    last.set()
    assert not any(thread.is_alive() for thread in threads)
    assert not problems
    for key in keys:
        if latest[key]:
            assert int(caches[0].get(customers, key)["name"]) == latest[key]


def test_a_strong_entity_that_a_writer_does_not_know_stops_it(world: World) -> None:
    customers = world.customers(consistency=Strong())
    world.cache(customers).get(customers, 1)
    stranger = world.cache()
    with pytest.raises(ConfigError, match="entity 'customer'"), stranger.transaction() as tx:
        tx.execute("update customers set tier = 'lead'")
    assert world.sql("select tier from customers where id = 1") == [("iron",)]


def test_the_caches_agree_with_the_store_when_all_is_quiet(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache = world.cache(customers, orders_of)
    rng = random.Random(11)
    for _ in range(40):
        with cache.transaction() as tx:
            for _ in range(rng.randrange(4)):
                customer, order = rng.randrange(1, 6), rng.randrange(10, 16)
                rng.choice(
                    [
                        lambda c=customer, t=tx: t.put(customers, c, {"name": str(rng.random()), "tier": ""}),
                        lambda c=customer, t=tx: t.delete(customers, c),
                        lambda o=order, t=tx: t.execute("delete from orders where id = :id", id=o),
                        lambda c=customer, o=order, t=tx: t.execute(
                            "insert into orders (id, customer_id, total) values (:id, :c, 1)"
                            " on conflict (id) do update set customer_id = excluded.customer_id",
                            id=o,
                            c=c,
                        ),
                    ]
                )()
        for key in range(1, 6):
            cache.get(customers, key)
            cache.get(orders_of, key)
    rows = {key: {"name": name, "tier": tier} for key, name, tier in world.sql("select id, name, tier from customers")}
    lists: dict[int, list[int]] = {}
    for customer, order in world.sql("select customer_id, id from orders order by id"):
        lists.setdefault(customer, []).append(order)
    until(lambda: cache.get_many(customers, range(1, 6)) == {key: rows[key] for key in sorted(rows)}, "agreement")
    until(lambda: cache.get_many(orders_of, range(1, 6)) == {key: lists[key] for key in sorted(lists)}, "agreement")
