"""The life of a cache in a process: threads, forks, cancelled tasks, and nothing left open."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import random
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachelib import AsyncCache, Cache, CacheError, Entity, LeasePolicy
from cachelib.entity import FunctionLoader
from cachelib.stores import AsyncSqlStore, SqlStore
from tests.integration.client_world import WAIT_S, World, install, sqlite_template, until

SERVERS = ["redis", "memcached"]
LONG = LeasePolicy(hold="30s", wait="5ms", wait_max="60s")
PETER = {"name": "Peter", "tier": "iron"}


@pytest.fixture(params=SERVERS)
def cache_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def store_url(template: Path, tmp_path: Path) -> str:
    shutil.copy(template, tmp_path / "store.db")
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def world(cache_url: str, store_url: str) -> Iterator[World]:
    made = World("sync", cache_url, store_url)
    made.customer(1, "Peter")
    yield made
    made.close()


def function(call: Callable[[int], Any], **settings: Any) -> Entity:
    return Entity("number:{n}", load=FunctionLoader(lambda n: call(n)), **({"lease": LONG} | settings))


# --- threads ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_many_threads_use_one_cache_for_everything_at_once(world: World) -> None:
    customers, orders_of = world.customers(), world.orders_of()
    cache = world.cache(customers, orders_of)
    errors: list[BaseException] = []
    rng = random.Random(3)
    calls: list[Callable[[], Any]] = [
        lambda: cache.get(customers, 1),
        lambda: cache.get(customers, "1"),
        lambda: cache.read(customers, 9),
        lambda: cache.get_many(customers, range(8)),
        lambda: cache.read_many(orders_of, [1, 2, 3]),
        lambda: cache.explain(customers, 1),
        lambda: cache.invalidate(customers, 1),
        lambda: cache.put(customers, 2, {"name": "x", "tier": "y"}),
        lambda: cache.delete(customers, 2),
        lambda: cache.metrics.values(),
    ]
    plans = [[rng.choice(calls) for _ in range(40)] for _ in range(16)]

    def work(plan: list[Callable[[], Any]]) -> None:
        try:
            for call in plan:
                call()
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S * 3)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors
    assert cache.get(customers, 1) == PETER


def test_entities_may_be_met_by_many_threads_at_once(world: World) -> None:
    cache = world.cache()
    entities = [Entity(f"n{number}:{{n}}", load=FunctionLoader(lambda n: n)) for number in range(40)]
    start = threading.Barrier(8)
    got: list[int] = []

    def work() -> None:
        start.wait()
        for entity in entities:
            got.append(cache.get(entity, 7))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert got == [7] * 320


def test_more_threads_than_connections_all_get_their_answer(world: World) -> None:
    cache = world.cache(backend=world.backend(connections_max=2))
    entity = function(lambda n: n)
    cache.get(entity, 7)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.extend(cache.get(entity, 7) for _ in range(20))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert got == [7] * 320


def test_a_closed_cache_opens_again_when_it_is_used(world: World) -> None:
    cache = world.cache()
    entity = function(lambda n: n)
    cache.get(entity, 7)
    cache.close()
    assert cache.read(entity, 7).source == "hit"


# --- fork ------------------------------------------------------------------------------------


def forked(work: Callable[[], bool]) -> int:
    """Run this in a child; its process id. The child exits with 0 where it is true."""
    child = os.fork()
    if child:
        return child
    faulthandler.dump_traceback_later(WAIT_S, exit=True)
    try:
        os._exit(0 if work() else 1)
    except BaseException:  # noqa: BLE001 - a child must never go back into pytest
        os._exit(2)


def ended_well(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def test_parent_and_child_both_go_on_after_a_fork(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)

    def use(key: int) -> bool:
        for turn in range(10):
            value = {"name": f"{key}-{turn}", "tier": ""}
            cache.put(customers, key, value)
            if cache.get(customers, key) != value or cache.get(customers, 1) != PETER:
                return False
        return True

    children = [forked(lambda key=key: use(key)) for key in (11, 12, 13)]  # type: ignore[misc]
    assert use(10)
    assert [ended_well(child) for child in children] == [True] * 3
    assert cache.get_many(customers, [10, 11, 12, 13]) == {
        key: {"name": f"{key}-9", "tier": ""} for key in (10, 11, 12, 13)
    }


def test_a_fork_in_the_middle_of_use_disturbs_neither_side(cache_url: str, postgres_url: str) -> None:
    """Other threads are in the middle of reads and loads: their connections, flights and budget stay theirs.

    Not on SQLite: its library has locks of its own, which a child inherits as they are.
    """
    install(postgres_url)
    world = World("sync", cache_url, postgres_url)
    world.customer(1, "Peter")
    customers = world.customers()
    cache = world.cache(customers)
    stop, errors = threading.Event(), []

    def busy(number: int) -> None:
        rng = random.Random(number)
        try:
            while not stop.is_set():
                cache.get(customers, rng.randrange(50))
                cache.get_many(customers, [1, rng.randrange(50)])
                cache.invalidate(customers, rng.randrange(50))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            child = forked(
                lambda: all(
                    cache.get(customers, 1) == PETER and 1 in cache.get_many(customers, range(9)) for _ in range(20)
                )
            )
            assert ended_well(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert not errors
    assert cache.get(customers, 1) == PETER
    world.close()


def test_a_child_does_not_wait_for_a_load_of_its_parent(cache_url: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def load(n: int) -> int:
        begun.set()
        go_on.wait(WAIT_S)
        return n

    entity = function(load, lease=LeasePolicy(hold="30s", wait="5ms", wait_max="100ms"))
    with Cache(cache_url) as cache:
        thread = threading.Thread(target=lambda: cache.get(entity, 7))
        thread.start()
        assert begun.wait(WAIT_S)

        def child() -> bool:
            go_on.set()  # its own copy
            return bool(cache.get(entity, 7) == 7)

        assert ended_well(forked(child))
        go_on.set()
        thread.join(WAIT_S)
        assert cache.get(entity, 7) == 7


# --- asyncio ---------------------------------------------------------------------------------


def in_a_loop(cache_url: str, test: Callable[[AsyncCache], Any]) -> Any:
    async def main() -> Any:
        async with AsyncCache(cache_url) as cache, AsyncCache(cache_url) as other:
            cache.other = other  # type: ignore[attr-defined]
            return await asyncio.wait_for(test(cache), WAIT_S)

    return asyncio.run(main())


class Slow:
    """A coroutine function that is loaded from."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.count = 0

    async def __call__(self, n: int) -> int:
        self.count += 1
        self.begun.set()
        await self.go_on.wait()
        return n


def test_a_cancelled_loader_gives_its_lease_back(cache_url: str) -> None:
    async def test(cache: Any) -> None:
        slow = Slow()
        entity = function(slow)
        task = asyncio.create_task(cache.get(entity, 7))
        await slow.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        slow.go_on.set()
        # The lease would be held for 30 s more.
        assert await cache.other.get(entity, 7, deadline="10s") == 7

    in_a_loop(cache_url, test)


def test_a_cancelled_batch_gives_all_its_leases_back(cache_url: str) -> None:
    async def test(cache: Any) -> None:
        slow = Slow()
        entity = function(slow)
        task = asyncio.create_task(cache.get_many(entity, range(20)))
        await slow.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        slow.go_on.set()
        assert len(await cache.other.get_many(entity, range(20), deadline="10s")) == 20

    in_a_loop(cache_url, test)


def test_a_cancelled_loader_lets_its_waiters_go_on(cache_url: str) -> None:
    async def test(cache: Any) -> None:
        slow = Slow()
        entity = function(slow)
        loader = asyncio.create_task(cache.get(entity, 7))
        await slow.begun.wait()
        waiters = [asyncio.create_task(cache.get(entity, 7)) for _ in range(5)]
        await asyncio.sleep(0.02)
        slow.go_on.set()
        loader.cancel()
        assert await asyncio.gather(*waiters) == [7] * 5
        with pytest.raises(asyncio.CancelledError):
            await loader

    in_a_loop(cache_url, test)


def test_a_cancelled_waiter_disturbs_nobody(cache_url: str) -> None:
    async def test(cache: Any) -> None:
        slow = Slow()
        entity = function(slow)
        loader = asyncio.create_task(cache.get(entity, 7))
        await slow.begun.wait()
        waiters = [asyncio.create_task(one.get(entity, 7)) for one in (cache, cache.other) * 3]
        await asyncio.sleep(0.02)
        for waiter in waiters[::2]:
            waiter.cancel()
        slow.go_on.set()
        assert await loader == 7
        assert await asyncio.gather(*waiters[1::2]) == [7] * 3
        assert slow.count == 1

    in_a_loop(cache_url, test)


def test_a_timeout_around_a_read_is_a_cancellation(cache_url: str) -> None:
    async def test(cache: Any) -> None:
        slow = Slow()
        entity = function(slow)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await cache.get(entity, 7)
        slow.go_on.set()
        assert await cache.get(entity, 7, deadline="10s") == 7

    in_a_loop(cache_url, test)


def test_calls_cancelled_at_any_moment_leave_a_working_cache(cache_url: str) -> None:
    async def test(cache: Any) -> None:
        async def quick(n: int) -> int:
            await asyncio.sleep(0)
            return n

        entity = function(quick)
        rng = random.Random(5)
        for turn in range(150):
            call = cache.get(entity, turn % 7) if turn % 2 else cache.get_many(entity, range(turn % 9))
            task = asyncio.create_task(call)
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await cache.other.get_many(entity, range(9), deadline="20s") == {n: n for n in range(9)}

    in_a_loop(cache_url, test)


@pytest.mark.slow
def test_writes_cancelled_at_any_moment_leave_the_cache_in_agreement(cache_url: str, store_url: str) -> None:
    """A cancelled write was committed or not; either way nothing old is served afterwards."""

    async def main() -> None:
        customers = Entity.from_table("customers")
        async with (
            AsyncSqlStore(store_url, connect_timeout="1s") as store,
            AsyncCache(cache_url, store=store, entities=[customers]) as cache,
        ):
            async with cache.transaction() as tx:
                await tx.execute("insert into customers (id, name, tier) values (1, '0', '')")
            rng = random.Random(9)

            async def write(number: int) -> None:
                async with cache.transaction() as tx:
                    await tx.execute("update customers set name = :name where id = 1", name=str(number))

            for number in range(25):
                await cache.get(customers, 1)
                task = asyncio.create_task(write(number))
                await asyncio.wait([task], timeout=rng.random() * 0.02)
                task.cancel()
                await asyncio.wait([task])
                if cache._abandoned:
                    await asyncio.wait(set(cache._abandoned))
                rows = await store.load(store.table_loader("customers", "id", "row_version"), [1])
                assert (await cache.get(customers, 1))["name"] == rows.rows[1].value["name"]

    asyncio.run(main())


def test_one_cache_after_another_in_loops_of_their_own(cache_url: str) -> None:
    for _ in range(3):

        async def test(cache: Any) -> int:
            async def quick(n: int) -> int:
                return n

            return int(await cache.get(function(quick), 7))

        assert in_a_loop(cache_url, test) == 7


# --- nothing left behind ---------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_closed_cache_and_store_leave_no_file_open(face: str, cache_url: str, store_url: str) -> None:
    def use() -> None:
        if face == "sync":
            customers = Entity.from_table("customers")
            with SqlStore(store_url) as store, Cache(cache_url, store=store, entities=[customers]) as cache:
                with cache.transaction() as tx:
                    tx.execute("update customers set tier = ''")
                cache.get_many(customers, range(5))
                threads = [threading.Thread(target=lambda: cache.get(customers, 7)) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            return

        async def main() -> None:
            customers = Entity.from_table("customers")
            async with (
                AsyncSqlStore(store_url) as store,
                AsyncCache(cache_url, store=store, entities=[customers]) as cache,
            ):
                async with cache.transaction() as tx:
                    await tx.execute("update customers set tier = ''")
                await asyncio.gather(*(cache.get(customers, 7) for _ in range(8)))
                await cache.get_many(customers, range(5))

        asyncio.run(main())

    use()  # what is imported and opened once
    gc.collect()
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(5):
            use()
        gc.collect()
    until(lambda: open_files() <= before, "the files being closed", within_s=10)


def test_an_error_in_a_loader_leaves_places_and_flights_free(world: World) -> None:
    def fails(n: int) -> int:
        raise ValueError("no")

    cache = world.cache()
    entity = function(fails)
    for _ in range(100):
        with pytest.raises(CacheError):
            cache.get(entity, 7)
    assert cache._core.parts.world.flights.under_way == {}
