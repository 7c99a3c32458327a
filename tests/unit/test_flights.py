"""One call of a process looks, waits and loads for all that may join it: on both faces, whatever becomes of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from cachelib import AsyncCache, Cache, CacheUnavailable, DeadlineExceeded, Entity, LeasePolicy, LoadFailed, Read
from cachelib import flights as flights_module
from cachelib.backends import AsyncMemory, Memory
from cachelib.drivers import run_now
from cachelib.entity import FunctionLoader
from cachelib.flights import ThreadFlight, ThreadFlights
from cachelib.model import Answer, Get, Name, Op

READERS = 20
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def every_thread_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However early it comes, so that a test can count them; where not, it says so."""
    monkeypatch.setattr(flights_module, "YOUNG_S", 0.0)


class Watched(Memory):
    """Remembers how many were asking for a lease at once; answers none of them before `opened`."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = self.asking = self.most = 0
        self.away = False
        self.opened = threading.Event()
        self.opened.set()
        self._count = threading.Lock()

    def get(self, name: Name) -> bytes | None:
        with self._count:
            self.looks += 1
        self.there()
        return super().get(name)

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        self.there()
        if not isinstance(op, Get):
            return super().execute(name, op, now_ms)
        with self._count:
            self.asking += 1
            self.most = max(self.most, self.asking)
        try:
            self.opened.wait(WAIT_S)
            return super().execute(name, op, now_ms)
        finally:
            with self._count:
                self.asking -= 1

    def there(self) -> None:
        if self.away:
            raise CacheUnavailable("the node is away")


class WatchedLoop(AsyncMemory):
    """The same, awaited."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self.watched = watched

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        watched = self.watched
        watched.there()
        asks = isinstance(op, Get)
        watched.asking += asks
        watched.most = max(watched.most, watched.asking)
        await asyncio.sleep(0.001)  # others have their turn
        watched.asking -= asks
        return Memory.execute(watched, name, op, now_ms)


class Source:
    """A function that is loaded from: it can be held up, or fail."""

    def __init__(self) -> None:
        self.loads = 0
        self.loader: asyncio.Task[Any] | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.fails = False

    def begin(self) -> None:
        self.loads += 1
        if self.fails:
            raise OSError("the store is down")

    def load(self, n: int) -> int:
        self.begin()
        self.go_on.wait(WAIT_S)
        return n * n

    async def load_async(self, n: int) -> int:
        self.loader = asyncio.current_task()
        self.begin()
        await until_async(self.go_on.is_set)
        return n * n

    def entity(self, *, awaited: bool, **settings: Any) -> Entity:
        settings = {"lease": LeasePolicy(hold="60s", wait_max="90s"), **settings}
        return Entity("n:{n}", load=FunctionLoader(self.load_async if awaited else self.load), **settings)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


async def until_async(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.002)


def outcomes(read: Callable[[], Any]) -> tuple[list[Any], list[threading.Thread]]:
    """What readers in threads got, or what they raised."""
    got: list[Any] = []

    def one() -> None:
        try:
            got.append(read())
        except Exception as error:  # noqa: BLE001 - it is what is asked for
            got.append(error)

    threads = [threading.Thread(target=one) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    return got, threads


def ended(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads)


# --- threads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True], ids=["free", "held by another process"])
@pytest.mark.parametrize("known", [False, True], ids=["first read of the entity", "known"])
def test_of_the_threads_of_a_process_one_asks_for_the_lease(held: bool, known: bool) -> None:
    backend, source = Watched(), Source()
    entity = source.entity(awaited=False)
    with Cache(backend) as cache, Cache(backend) as other:
        if known:
            cache.get(entity, 1)
            source.loads = 0
        if held:
            source.go_on.clear()
            holder = threading.Thread(target=other.get, args=(source.entity(awaited=False), 7))
            holder.start()
            until(lambda: source.loads == 1)
        backend.looks = 0
        backend.opened.clear()
        got, threads = outcomes(lambda: cache.get(entity, 7))
        until(lambda: backend.looks == READERS)
        backend.opened.set()
        if held:
            time.sleep(0.05)  # so that it looks more than once
            source.go_on.set()
            holder.join(WAIT_S)
        ended(threads)
    assert got == [49] * READERS
    assert source.loads == 1
    assert backend.most == 1


def test_a_thread_that_comes_a_moment_later_joins_without_asking_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "YOUNG_S", WAIT_S)
    backend, source = Watched(), Source()
    entity = source.entity(awaited=False)
    with Cache(backend) as cache:
        cache.get(entity, 1)
        backend.looks = 0
        backend.opened.clear()
        first = threading.Thread(target=cache.get, args=(entity, 7))
        first.start()
        until(lambda: backend.asking == 1)
        before, joins = cache.metrics.values(), counted(cache._flights, monkeypatch)
        got, threads = outcomes(lambda: cache.get(entity, 7))
        assert cache.get(entity, 1) == 1, "another key is asked for as ever"
        until(lambda: len(joins) == READERS)
        backend.opened.set()
        ended([first, *threads])
        after = cache.metrics.values()
    assert got == [49] * READERS
    assert backend.looks == 2
    joined, missed = ("leasecache_reads_total", entity.name, "joined"), ("leasecache_events_total", entity.name, "miss")
    assert after[joined] - before.get(joined, 0) == after[missed] - before[missed] == READERS


def counted(flights: ThreadFlights, monkeypatch: pytest.MonkeyPatch) -> list[ThreadFlight]:
    """The flights of all that join from now on."""
    joined: list[ThreadFlight] = []
    landed = flights._landed

    def noted(flight: ThreadFlight) -> threading.Event:
        joined.append(flight)
        return landed(flight)

    monkeypatch.setattr(flights, "_landed", noted)
    return joined


def test_nobody_joins_a_flight_that_was_forgotten_and_who_has_joined_it_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flights = ThreadFlights()
    old, joins = flights.take_off(b"key"), counted(flights, monkeypatch)
    assert old is not None
    got, threads = outcomes(lambda: run_now(flights.join(b"key", WAIT_S)))
    until(lambda: joins == [old] * READERS)
    flights.forget(b"key")
    assert run_now(flights.join(b"key", WAIT_S)) is None
    assert not flights.young(b"key", old.began)
    new = flights.take_off(b"key")
    assert new is not None
    landing = LoadFailed("the old one")
    flights.land(b"key", old, landing)
    ended(threads)
    assert got == [landing] * READERS
    assert list(flights.under_way) == [b"key"]
    flights.land(b"key", new, None)
    assert not flights.under_way


def test_threads_go_on_when_the_one_they_wait_for_runs_out_of_time() -> None:
    backend, source = Watched(), Source()
    entity = source.entity(awaited=False)
    with Cache(backend) as cache:
        backend.opened.clear()
        late: list[object] = []

        def impatient() -> None:
            with suppress(DeadlineExceeded):
                late.append(cache.get(entity, 7, deadline="200ms"))

        first = threading.Thread(target=impatient)
        first.start()
        until(lambda: backend.asking == 1 or not first.is_alive())
        got, threads = outcomes(lambda: cache.get(entity, 7))
        until(lambda: backend.looks == READERS + 1)
        time.sleep(0.2)
        backend.opened.set()
        ended([first, *threads])
    assert late == []
    assert got == [49] * READERS
    assert source.loads == 1


def test_a_thread_waits_no_longer_than_its_policy_for_another_of_its_process() -> None:
    source = Source()
    source.go_on.clear()
    entity = source.entity(awaited=False, lease=LeasePolicy(hold="60s", wait_max="50ms"))
    with Cache(Memory()) as cache:
        first = threading.Thread(target=cache.get, args=(entity, 7))
        first.start()
        until(lambda: source.loads == 1)
        got, threads = outcomes(lambda: cache.get(entity, 7))
        until(lambda: source.loads > 1)  # it asks the store itself
        source.go_on.set()
        ended([first, *threads])
    assert got == [49] * READERS


def test_while_the_lease_is_asked_for_threads_wait_and_then_are_shown_what_is_stale() -> None:
    backend, source = Watched(), Source()
    entity = source.entity(awaited=False, stale_ttl="1h")
    with Cache(backend) as cache:
        assert cache.get(entity, 7) == 49
        cache.invalidate(entity, 7)
        source.go_on.clear()
        backend.looks = 0
        backend.opened.clear()
        got, threads = outcomes(lambda: cache.read(entity, 7).source)
        until(lambda: backend.looks == READERS)
        backend.opened.set()
        until(lambda: len(got) == READERS - 1)  # all but the one that loads
        assert set(got) == {"stale"}
        source.go_on.set()
        ended(threads)
    assert sorted(got) == ["filled", *["stale"] * (READERS - 1)]
    assert backend.most == 1


def test_under_a_lease_what_is_stale_is_shown_after_one_look() -> None:
    backend, source = Watched(), Source()
    entity = source.entity(awaited=False, stale_ttl="1h")
    with Cache(backend) as cache:
        assert cache.get(entity, 7) == 49
        cache.invalidate(entity, 7)
        source.go_on.clear()
        first = threading.Thread(target=cache.get, args=(entity, 7))
        first.start()
        until(lambda: source.loads == 2)
        backend.looks = backend.most = 0
        before = cache.metrics.values()
        assert [cache.get(entity, 7) for _ in range(5)] == [49] * 5
        after = cache.metrics.values()
        source.go_on.set()
        first.join(WAIT_S)
    assert (backend.looks, backend.most) == (5, 0)
    shown = ("leasecache_reads_total", entity.name, "stale")
    missed = ("leasecache_events_total", entity.name, "miss")
    assert after[shown] - before.get(shown, 0) == after[missed] - before[missed] == 5


def test_threads_share_the_failure_of_one_load() -> None:
    backend, source = Watched(), Source()
    source.fails = True
    entity = source.entity(awaited=False)
    with Cache(backend) as cache:
        backend.opened.clear()
        got, threads = outcomes(lambda: cache.get(entity, 7))
        until(lambda: backend.looks == READERS)
        backend.opened.set()
        ended(threads)
        counted = cache.metrics.values()
    assert {type(one) for one in got} == {LoadFailed}
    assert backend.most == 1
    assert counted["leasecache_reads_total", entity.name, "error"] == READERS
    assert counted["leasecache_events_total", entity.name, "miss"] == READERS


def test_a_value_too_large_to_be_kept_is_loaded_by_each_thread_that_asks() -> None:
    source = Source()
    entity = source.entity(awaited=False)
    small = Watched()
    small.capability = replace(small.capability, payload_bytes_max=1)
    with Cache(small) as cache:
        got, threads = outcomes(lambda: cache.get(entity, 7))
        ended(threads)
    assert got == [49] * READERS


# --- asyncio ---------------------------------------------------------------------------------


def in_a_loop(story: Callable[[AsyncCache, Watched, Source], Any]) -> Any:
    async def main() -> Any:
        watched = Watched()
        async with AsyncCache(WatchedLoop(watched)) as cache:
            return await asyncio.wait_for(story(cache, watched, Source()), WAIT_S)

    return asyncio.run(main())


def held_up(source: Source, read: Callable[[Entity, int], Any]) -> list[asyncio.Task[Any]]:
    """All readers, of what is not loaded before `source` may go on."""
    entity = source.entity(awaited=True)
    source.go_on.clear()
    return [asyncio.create_task(read(entity, 7)) for _ in range(READERS)]


def test_of_the_tasks_of_a_process_one_asks_for_the_lease() -> None:
    async def story(cache: AsyncCache, watched: Watched, source: Source) -> None:
        entity = source.entity(awaited=True)
        assert await asyncio.gather(*(cache.get(entity, 7) for _ in range(READERS))) == [49] * READERS
        assert source.loads == 1
        assert watched.most == 1

    in_a_loop(story)


def test_tasks_go_on_when_the_one_they_wait_for_is_cancelled() -> None:
    """Again and again: whoever is next to look is cancelled, too."""

    async def story(cache: AsyncCache, watched: Watched, source: Source) -> None:
        tasks = held_up(source, cache.get)
        cancelled = set()
        for loads in (1, 2, 3):
            await until_async(lambda loads=loads: source.loads == loads)  # type: ignore[misc]
            assert source.loader is not None
            source.loader.cancel()
            cancelled.add(source.loader)
            await asyncio.wait([source.loader])
        await until_async(lambda: source.loads == 4)
        source.go_on.set()
        assert await asyncio.gather(*(task for task in tasks if task not in cancelled)) == [49] * (READERS - 3)
        assert source.loads == 4
        assert watched.most == 1

    in_a_loop(story)


def test_a_task_that_is_cancelled_while_it_waits_disturbs_nobody() -> None:
    async def story(cache: AsyncCache, watched: Watched, source: Source) -> None:
        tasks = held_up(source, cache.get)
        await until_async(lambda: source.loads == 1)
        waiting = [task for task in tasks if task is not source.loader]
        for task in waiting[:5]:
            task.cancel()
        source.go_on.set()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert got.count(49) == READERS - 5
        assert source.loads == 1

    in_a_loop(story)


def test_tasks_share_one_load_while_the_node_is_away() -> None:
    async def story(cache: AsyncCache, watched: Watched, source: Source) -> None:
        watched.away = True
        tasks = held_up(source, cache.read)
        await until_async(lambda: source.loads == 1)
        source.go_on.set()
        got: list[Read] = await asyncio.gather(*tasks)
        assert [one.value for one in got] == [49] * READERS
        assert sorted(one.source for one in got) == [*["joined"] * (READERS - 1), "store"]
        assert source.loads == 1

    in_a_loop(story)
