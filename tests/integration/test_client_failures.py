"""The failure table, row by row, with servers that are killed, stopped in the middle and started again.

What a call may take is bounded by the timeouts that are set here (`TIMEOUT_MS`), the tries of a
step, and `ALLOWANCE_S` for a busy machine.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachelib import (
    CacheUnavailable,
    ConfigError,
    LeasePolicy,
    LoadFailed,
    OnFailure,
    StoreBudget,
    StoreBudgetExceeded,
    StoreError,
    Strong,
    Unconfirmed,
    Written,
)
from cachelib.breaker import Breaker
from cachelib.metrics import EVENTS, READS, WRITES
from tests.integration.client_world import WAIT_S, Held, World, install, sqlite_template, until
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.process import Server
from tests.servers.redis import RedisServer

TIMEOUT_MS = 200
ALLOWANCE_S = 4.0
PETER, PAUL = {"name": "Peter", "tier": "iron"}, {"name": "Paul", "tier": "gold"}
PETRA = {"name": "Petra", "tier": "gold"}
WORLDS = ["sync-redis", "sync-memcached", "async-redis", "async-memcached"]

pytestmark = [pytest.mark.server]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def own_servers() -> Iterator[dict[str, Server]]:
    """Servers that are broken here; nobody else's."""
    with RedisServer() as redis, MemcachedServer() as memcached:
        yield {"redis": redis, "memcached": memcached}


@contextmanager
def shop(face: str, server: Server, folder: Path, template: Path) -> Iterator[World]:
    if server.running:
        server.resume()
    else:
        server.start()
    server.flush()  # type: ignore[attr-defined]
    shutil.copy(template, folder / "store.db")
    made = World(face, server.url, f"sqlite:///{folder / 'store.db'}")
    made.customer(1, "Peter")
    made.customer(2, "Paul", "gold")
    try:
        yield made
    finally:
        if server.running:
            server.resume()
        made.close()


@pytest.fixture(params=WORLDS)
def place(
    request: pytest.FixtureRequest, own_servers: dict[str, Server], template: Path, tmp_path: Path
) -> Iterator[tuple[World, Server]]:
    face, kind = request.param.split("-")
    with shop(face, own_servers[kind], tmp_path, template) as world:
        yield world, own_servers[kind]


def kill(server: Server) -> None:
    server.kill()


def pause(server: Server) -> None:
    """Stopped in the middle; a busy kernel takes a while to stop every thread."""
    server.pause()
    tasks = Path(f"/proc/{server.pid}/task")
    if tasks.exists():
        until(lambda: all(_state(task) == "T" for task in tasks.iterdir()), "the stop of every thread")


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def back(server: Server) -> None:
    """As it was, if it was paused; empty, if it was killed."""
    if server.running:
        server.resume()
    else:
        server.start()


both_ways = pytest.mark.parametrize("breaks", [kill, pause])


def impatient(world: World, *entities: Any, **settings: Any) -> Any:
    """A cache with short timeouts."""
    backend = world.backend(timeout_ms=TIMEOUT_MS, connect_timeout_ms=TIMEOUT_MS)
    return world.cache(*entities, backend=backend, **settings)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds + ALLOWANCE_S, f"took {took:.1f} s"


# --- cache node down, read -------------------------------------------------------------------


@both_ways
def test_cache_down_read_asks_the_store(place: tuple[World, Server], breaks: Callable[[Server], None]) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world)
    cache.get(customers, 1)
    breaks(server)
    with within(3 * TIMEOUT_MS / 1000):
        read = cache.read(customers, 1)
    assert (read.value, read.source) == (PETER, "store")
    with within(3 * TIMEOUT_MS / 1000):
        assert cache.get_many(customers, [2, 9, 1]) == {2: PAUL, 1: PETER}
    assert cache.metrics.values()[READS, "customer", "store"] == 4
    assert cache.metrics.values()[EVENTS, "customer", "unreachable"] >= 1


@both_ways
def test_cache_down_read_raises_where_the_policy_says_so(
    place: tuple[World, Server], breaks: Callable[[Server], None]
) -> None:
    world, server = place
    customers = world.customers(on_failure=OnFailure(read="raise"))
    cache = impatient(world)
    cache.get(customers, 1)
    loads = world.loads.count
    breaks(server)
    with within(3 * TIMEOUT_MS / 1000), pytest.raises(CacheUnavailable):
        cache.get(customers, 1)
    with within(3 * TIMEOUT_MS / 1000), pytest.raises(CacheUnavailable):
        cache.get_many(customers, [1, 2])
    assert world.loads.count == loads


@pytest.mark.parametrize("unavailable", ["store", "raise"])
def test_cache_down_strong_read_does_as_declared(place: tuple[World, Server], unavailable: Any) -> None:
    world, server = place
    customers = world.customers(consistency=Strong(unavailable=unavailable))
    cache = impatient(world, customers)
    cache.get(customers, 1)
    server.kill()
    if unavailable == "store":
        assert cache.read(customers, 1).source == "store"
    else:
        with pytest.raises(CacheUnavailable):
            cache.get(customers, 1)


@both_ways
def test_the_breaker_opens_and_spares_the_node_and_the_reader(
    place: tuple[World, Server], breaks: Callable[[Server], None]
) -> None:
    world, server = place
    customers = world.customers()
    breaker = Breaker(failures=3, retry_ms=60_000)
    cache = impatient(world, breaker=breaker)
    cache.get(customers, 1)
    breaks(server)
    for _ in range(3):
        cache.get(customers, 1)
    assert breaker.open
    assert breaker.opened == 1
    with within(0):
        for _ in range(50):
            assert cache.get(customers, 1) == PETER
            assert cache.get_many(customers, [1, 2]) == {1: PETER, 2: PAUL}
    assert breaker.failed <= 6


@both_ways
def test_a_batch_opens_the_breaker_too(place: tuple[World, Server], breaks: Callable[[Server], None]) -> None:
    world, server = place
    customers = world.customers()
    breaker = Breaker(failures=3, retry_ms=60_000)
    cache = impatient(world, breaker=breaker)
    cache.get(customers, 1)
    breaks(server)
    for _ in range(3):
        cache.get_many(customers, [1, 2])
    assert breaker.open, breaker.failed


@both_ways
def test_the_cache_is_used_again_when_its_node_is_back(
    place: tuple[World, Server], breaks: Callable[[Server], None]
) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world, breaker=Breaker(failures=2, retry_ms=50))
    cache.get(customers, 1)
    breaks(server)
    for _ in range(3):
        assert cache.read(customers, 1).source == "store"
    back(server)
    until(lambda: cache.read(customers, 1).source == "hit", "a hit after the node came back")
    with_one = cache.get_many(customers, [1, 2])
    assert with_one == {1: PETER, 2: PAUL}


def test_a_restarted_node_is_a_cold_one(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world)
    cache.get(customers, 1)
    server.restart()
    until(lambda: cache.read(customers, 1).source == "hit", "a hit after the restart")
    assert world.loads.count >= 2


def test_cache_down_loads_stay_within_the_budget(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world, budget=StoreBudget(at_once=1, wait="50ms"))
    cache.get(customers, 1)
    server.kill()
    held = world.loads.on_load = Held()
    with world.meanwhile(lambda: cache.get(customers, 1)) as got:
        assert held.begun.wait(WAIT_S)
        with within(1), pytest.raises(StoreBudgetExceeded):
            cache.get(customers, 2)
        held.go_on.set()
    assert got == [PETER]


def test_cache_that_was_never_there_asks_the_store(place: tuple[World, Server]) -> None:
    world, server = place
    server.kill()
    customers = world.customers()
    assert impatient(world).read(customers, 1).source == "store"


def test_a_node_that_dies_between_the_lease_and_the_fill_costs_a_load_and_no_error(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world)
    world.loads.on_load = lambda keys: server.kill()
    read = cache.read(customers, 1)
    assert (read.value, read.source) == (PETER, "store")
    assert cache.metrics.values()[EVENTS, "customer", "fill_failed"] == 1


# --- cache node down, write ------------------------------------------------------------------


@both_ways
def test_cache_down_write_is_committed_and_not_confirmed(
    place: tuple[World, Server], breaks: Callable[[Server], None]
) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world, customers)
    cache.get(customers, 1)
    breaks(server)
    with within(9 * TIMEOUT_MS / 1000):
        done = cache.put(customers, 1, PETRA)
    assert (done.confirmed, done.keys) == (False, 1)
    assert done.version > 1
    assert world.sql("select name from customers where id = 1") == [("Petra",)]
    assert cache.metrics.values()[WRITES, "customer", "unconfirmed"] == 1


@both_ways
@pytest.mark.parametrize("settings", [{"consistency": Strong()}, {"on_failure": OnFailure(write="confirm")}])
def test_cache_down_write_that_needs_confirmation_says_that_it_is_committed(
    place: tuple[World, Server], breaks: Callable[[Server], None], settings: dict[str, Any]
) -> None:
    world, server = place
    customers = world.customers(**settings)
    cache = impatient(world, customers)
    cache.get(customers, 1)
    breaks(server)
    with within(9 * TIMEOUT_MS / 1000), pytest.raises(Unconfirmed, match="never repeat") as caught:
        cache.put(customers, 1, PETRA)
    ((version, name),) = world.sql("select row_version, name from customers where id = 1")
    assert (caught.value.version, name) == (version, "Petra")


def test_cache_down_populate_still_commits(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers(write="populate")
    cache = impatient(world, customers)
    server.kill()
    assert not cache.put(customers, 1, PETRA).confirmed
    assert world.sql("select name from customers where id = 1") == [("Petra",)]


def test_cache_down_a_second_write_is_spared_the_wait(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers()
    breaker = Breaker(failures=3, retry_ms=60_000)
    cache = impatient(world, customers, breaker=breaker)
    cache.get(customers, 1)
    pause(server)
    cache.put(customers, 1, PETRA)
    assert breaker.open
    with within(0):
        assert not cache.put(customers, 1, PETER).confirmed


def test_a_write_after_the_node_is_back_is_confirmed(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world, customers, breaker=Breaker(failures=2, retry_ms=50))
    server.kill()
    assert not cache.put(customers, 1, PETRA).confirmed
    server.start()
    until(lambda: cache.put(customers, 1, PETER).confirmed, "a confirmed write")
    assert cache.get(customers, 1) == PETER


def test_cache_down_invalidate_by_hand_raises(place: tuple[World, Server]) -> None:
    world, server = place
    customers = world.customers()
    cache = impatient(world)
    cache.get(customers, 1)
    server.kill()
    with pytest.raises(CacheUnavailable):
        cache.invalidate(customers, 1)


# --- the store ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def with_store(
    request: pytest.FixtureRequest, own_postgres: PostgresServer, redis_url: str
) -> Iterator[tuple[World, PostgresServer]]:
    if own_postgres.running:
        own_postgres.resume()
    else:
        own_postgres.start()
    url = own_postgres.url_of(own_postgres.create_database(request.node.name))
    install(url)
    world = World(request.param, redis_url, url, connect_timeout="2s", pool_wait="1s")
    world.customer(1, "Peter")
    yield world, own_postgres
    back(own_postgres)
    world.close()


def test_store_down_fresh_item_is_a_hit(with_store: tuple[World, PostgresServer], monkeypatch: Any) -> None:
    world, store = with_store
    customers = world.customers()
    cache = world.cache()
    cache.get(customers, 1)
    store.kill()
    _later(monkeypatch)
    with within(3):
        assert [cache.read(customers, 1).source for _ in range(20)] == ["hit"] * 20
    assert cache.metrics.values()[EVENTS, "*", "layout_unread"] >= 1


def test_store_that_hangs_holds_up_no_hit(with_store: tuple[World, PostgresServer], monkeypatch: Any) -> None:
    world, store = with_store
    customers = world.customers()
    cache = world.cache()
    cache.get(customers, 1)
    pause(store)
    _later(monkeypatch)
    began = time.monotonic()
    assert cache.read(customers, 1).source == "hit"
    assert time.monotonic() - began < 1.8  # a connection to it takes 2 s to fail, a query never ends
    store.resume()
    until(lambda: "leasecache" not in {thread.name for thread in threading.enumerate()}, "the end of the late answer")


def test_store_down_stale_item_is_shown(with_store: tuple[World, PostgresServer]) -> None:
    world, store = with_store
    customers = world.customers(stale_ttl="1m", lease=LeasePolicy(wait_max="100ms"))
    cache = world.cache()
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    store.kill()
    with within(3):
        read = cache.read(customers, 1)
    assert (read.value, read.source) == (PETER, "stale")


def test_store_down_and_nothing_cached_is_an_error_with_its_cause(with_store: tuple[World, PostgresServer]) -> None:
    world, store = with_store
    customers = world.customers()
    cache = world.cache()
    cache.get(customers, 1)
    store.kill()
    with within(3), pytest.raises(LoadFailed) as caught:
        cache.get(customers, 2)
    assert isinstance(caught.value.__cause__, StoreError)


def test_store_down_a_strong_read_of_a_stale_item_is_an_error(with_store: tuple[World, PostgresServer]) -> None:
    world, store = with_store
    customers = world.customers(stale_ttl="1m", consistency=Strong())
    cache = world.cache(customers)
    cache.get(customers, 1)
    cache.invalidate(customers, 1)
    store.kill()
    with within(3), pytest.raises((LoadFailed, StoreError)):
        cache.get(customers, 1)


def test_store_down_a_strong_read_without_a_lease_is_an_error(
    with_store: tuple[World, PostgresServer], monkeypatch: Any
) -> None:
    world, store = with_store
    customers = world.customers(consistency=Strong())
    cache = world.cache(customers)
    cache.get(customers, 1)
    store.kill()
    _later(monkeypatch)
    for _ in range(2):
        with within(3), pytest.raises(StoreError):
            cache.get(customers, 1)


def test_store_down_a_write_is_refused_and_touches_no_cache(with_store: tuple[World, PostgresServer]) -> None:
    world, store = with_store
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    store.kill()
    with within(3), pytest.raises(StoreError):
        cache.put(customers, 1, PETRA)
    assert cache.read(customers, 1).source == "hit"


def test_a_store_that_is_back_is_used_again(with_store: tuple[World, PostgresServer]) -> None:
    world, store = with_store
    customers = world.customers()
    cache = world.cache(customers)
    cache.get(customers, 1)
    store.kill()
    with pytest.raises(LoadFailed):
        cache.get(customers, 2)
    store.start()

    def puts() -> bool:
        try:
            return isinstance(cache.put(customers, 1, PETRA), Written)
        except StoreError:
            return False

    until(puts, "a write after the store came back")
    assert cache.get(customers, 1) == PETRA
    assert cache.get(customers, 2) is None


def _later(monkeypatch: Any) -> None:
    """The layout's lease has lapsed: as if a while had passed."""
    real = time.monotonic
    monkeypatch.setattr("cachelib.view.time.monotonic", lambda: real() + 10)


# --- the rest of the table -------------------------------------------------------------------


def test_a_full_cache_neither_fails_reads_nor_lies(template: Path, tmp_path: Path) -> None:
    """Redis without eviction refuses what grows."""
    with (
        RedisServer(maxmemory="2mb", maxmemory_policy="noeviction") as server,
        shop("sync", server, tmp_path, template) as world,
    ):
        customers = world.customers(compress_over=None, stale_ttl=0)
        cache = impatient(world, customers)
        cache.get(customers, 1)
        for key in range(100, 400):
            world.customer(key, "x" * 20_000)
            assert len(cache.get(customers, key)["name"]) == 20_000
        assert cache.put(customers, 1, PETRA).confirmed
        assert cache.get(customers, 1) == PETRA
        assert cache.get(customers, 2) == PAUL


def test_something_that_is_no_cache_is_told_as_unavailable(template: Path, tmp_path: Path, memcached_url: str) -> None:
    """A Redis client that talks to a memcached."""
    shutil.copy(template, tmp_path / "store.db")
    world = World("sync", memcached_url.replace("memcached", "redis"), f"sqlite:///{tmp_path / 'store.db'}")
    try:
        world.customer(1, "Peter")
        assert impatient(world).read(world.customers(), 1).source == "store"
    finally:
        world.close()


def test_a_wrong_url_is_told_when_the_cache_is_built() -> None:
    from cachelib import Cache

    with pytest.raises(ConfigError, match="memory://"):
        Cache("radis://localhost")
