"""A cold key and 200 readers at once, in 4 processes, with a loader of 50 ms: loads, and how long readers wait.

    python -m tests.bench.herd [repeats] [part of a case's name …]

Beside plain look-aside, dogpile.cache (distributed lock), cashews (lock), a plain cold read, and ours with a stale
value at hand. One herd says little: the second longest of two hundred waits wanders by a fifth from one to the next.
So a repeat has several rounds, in each of which every case that is measured against another has one herd, in random
order, so that both see the same machine; a repeat's figure is the median of its herds, and what is printed the median
over the repeats. (Plain look-aside and dogpile, against which nothing is measured, have one herd a repeat.)
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier, Thread
from typing import Any

import cashews
import msgpack
import redis
from dogpile.cache import make_region

from cachelib import AsyncCache, Cache, Entity, Row
from tests.bench._interleave import Row as Line
from tests.bench._interleave import report
from tests.bench._one_row import VALUE, AsyncOneRow, OneRow
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer

PROCESSES, READERS, LOAD_S = 4, 50, 0.05
ROUNDS = 5
WARM_UP = "warm-up"
"""Read before it counts: connections are open, and scripts are loaded."""
Shared = Any
Case = Callable[[str], list[float]]


def entity(loads: Shared, *, awaited: bool) -> Entity:
    """A customer whose loader takes its time and counts, over all processes."""

    def load(tx: Any, keys: Sequence[int]) -> dict[int, Row]:
        _count(loads, keys[0])
        time.sleep(LOAD_S)
        return {key: Row(VALUE, 1) for key in keys}

    async def load_async(tx: Any, keys: Sequence[int]) -> dict[int, Row]:
        _count(loads, keys[0])
        await asyncio.sleep(LOAD_S)
        return {key: Row(VALUE, 1) for key in keys}

    return Entity("customer:{id:str}", table="customers", load=load_async if awaited else load, ttl="1h")


def _count(loads: Shared, key: object = None) -> None:
    if key != WARM_UP:
        with loads.get_lock():
            loads.value += 1


def threads(ready: Any, read: Callable[[], object], readers: int = READERS) -> list[float]:
    """All readers of this process at once, in threads; their waits, seconds."""
    gate, waits = Barrier(readers + 1), []

    def reader() -> None:
        gate.wait()
        began = time.perf_counter()
        read()
        waits.append(time.perf_counter() - began)

    running = [Thread(target=reader) for _ in range(readers)]
    for thread in running:
        thread.start()
    ready.wait()
    gate.wait()
    for thread in running:
        thread.join()
    return waits


class Worker:
    """One process: everything that is measured, over connections of its own."""

    def __init__(self, urls: tuple[str, str], document: bytes, ready: Any, loads: Shared) -> None:
        self._redis_url, self._memcached_url = urls
        self._ready, self._loads = ready, loads
        self._store, self._store_async = OneRow(), AsyncOneRow()
        self._store.write_layout(document, None)
        self._store_async._layout = document
        self._client = redis.Redis.from_url(self._redis_url, max_connections=200)
        arguments = {
            "url": self._redis_url,
            "distributed_lock": True,
            "thread_local_lock": False,
            "redis_expiration_time": 60,
        }
        self._region = make_region().configure("dogpile.cache.redis", expiration_time=60, arguments=arguments)
        self._customers = entity(loads, awaited=False)
        self._caches = {url: Cache(url, store=self._store) for url in urls}  # type: ignore[arg-type]
        for cache in self._caches.values():
            cache._core.mend_lane(self._customers)

    def run(self, case: str, key: str) -> list[float]:
        """The waits of this process's readers."""
        if case.startswith("ours, threads"):
            cache = self._caches[self._memcached_url if "memcached" in case else self._redis_url]
            return threads(self._ready, lambda: cache.get(self._customers, key))
        if case == "ours, asyncio, redis":
            return asyncio.run(self._tasks(self._ours(key)))
        if case == ALONE:
            return threads(self._ready, lambda: self._look_aside(f"{key}-{os.getpid()}"), readers=1)
        if case == "cashews, lock":
            return asyncio.run(self._tasks(self._cashews(key)))
        read = {"dogpile, distributed lock": self._dogpile, "plain look-aside": self._look_aside}[case]
        return threads(self._ready, lambda: read(key))

    def prepare(self, case: str, key: str) -> None:
        """Make the key warm, or stale, before the readers come."""
        cache = self._caches[self._memcached_url if "memcached" in case else self._redis_url]
        if "warm" in case or "stale" in case:
            cache.get(self._customers, key)
        if "stale" in case:
            cache.invalidate(self._customers, key)

    def _load(self) -> dict[str, Any]:
        _count(self._loads)
        time.sleep(LOAD_S)
        return VALUE

    def _dogpile(self, key: str) -> object:
        return self._region.get_or_create(key, self._load)

    def _look_aside(self, key: str) -> object:
        found = self._client.get(key)
        if found is None:
            found = msgpack.packb(self._load())
            self._client.set(key, found, ex=60)
        return msgpack.unpackb(found)

    async def _tasks(self, subject: Any) -> list[float]:
        async with subject as read:
            await read(WARM_UP)

            async def reader() -> float:
                began = time.perf_counter()
                await read(None)
                return time.perf_counter() - began

            self._ready.wait()
            return await asyncio.gather(*(reader() for _ in range(READERS)))

    def _ours(self, key: str) -> Any:
        customers = entity(self._loads, awaited=True)
        return _Subject(
            AsyncCache(self._redis_url, store=self._store_async),
            lambda cache, other: cache.get(customers, other or key),
        )

    def _cashews(self, key: str) -> Any:
        cache = cashews.Cache()
        cache.setup(self._redis_url)

        @cache(ttl="1m", key="{asked}", lock=True)
        async def read(asked: str) -> dict[str, Any]:
            _count(self._loads, asked)
            await asyncio.sleep(LOAD_S)
            return VALUE

        return _Subject(cache, lambda cache, other: read(other or key))


class _Subject:
    """An async cache, and one read of it; closed at the end."""

    def __init__(self, cache: Any, read: Callable[[Any, str | None], Any]) -> None:
        self._cache, self._read = cache, read

    async def __aenter__(self) -> Callable[[str | None], Any]:
        return lambda other: self._read(self._cache, other)

    async def __aexit__(self, *error: object) -> None:
        await self._cache.close()


ALONE = "plain cold read"
"""One reader in each process, and each a key of its own."""
CASES = (
    ALONE,
    "plain look-aside",
    "dogpile, distributed lock",
    "cashews, lock",
    "ours, threads, redis",
    "ours, asyncio, redis",
    "ours, threads, memcached",
    "ours, threads, redis, warm",
    "ours, threads, redis, stale at hand",
    "ours, threads, memcached, warm",
    "ours, threads, memcached, stale at hand",
)


BESIDE = ("plain look-aside", "dogpile, distributed lock")
"""They take their time, and no figure is divided by theirs."""


def _serve(pipe: Any, *parts: Any) -> None:
    worker = Worker(*parts)
    while (asked := pipe.recv()) is not None:
        what, case, key = asked
        pipe.send(worker.prepare(case, key) if what == "prepare" else worker.run(case, key))


@contextmanager
def crew(urls: tuple[str, str], loads: Shared) -> Iterator[list[Any]]:
    """The processes, as pipes to them."""
    spawn = multiprocessing.get_context("spawn")
    store = OneRow()
    with Cache(urls[0], store=store) as cache:  # type: ignore[arg-type]
        cache.get(entity(loads, awaited=False), "first")
    pipes, running, ready = [], [], spawn.Barrier(PROCESSES)
    for _ in range(PROCESSES):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs, urls, store.read_layout(), ready, loads))
        process.start()
        pipes.append(ours)
        running.append(process)
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in running:
            process.join()


def main() -> None:
    """Run the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    cases = [case for case in CASES if not sys.argv[2:] or any(part in case for part in sys.argv[2:])]
    loads = multiprocessing.get_context("spawn").Value("i", 0)
    herds: dict[str, list[list[Herd]]] = {case: [] for case in cases}
    with RedisServer() as one, MemcachedServer() as two, crew((one.url, two.url), loads) as pipes:
        for case in cases:  # connections and scripts
            herd(pipes, case, "first", loads)
        for turn in range(repeats):
            for case in cases:
                herds[case].append([])
            for number in range(ROUNDS):
                asked = [case for case in cases if not number or case not in BESIDE]
                for case in random.sample(asked, len(asked)):
                    herds[case][-1].append(herd(pipes, case, f"{turn}-{number}", loads))
    report("herd", f"200 readers, {LOAD_S * 1000:.0f} ms loader, median of {repeats} times {ROUNDS}", rows_of(herds))


@dataclass(frozen=True, slots=True)
class Herd:
    """What one herd showed: waits in milliseconds."""

    p50: float
    p99: float
    loads: int


def herd(pipes: Sequence[Any], case: str, which: str, loads: Shared) -> Herd:
    """One herd on a key of its own."""
    key = f"{case.replace(' ', '-').replace(',', '')}-{which}"
    pipes[0].send(("prepare", case, key))
    pipes[0].recv()
    before = loads.value
    for pipe in pipes:
        pipe.send(("run", case, key))
    waits = sorted(wait for pipe in pipes for wait in pipe.recv())
    return Herd(waits[len(waits) // 2] * 1000, waits[int(len(waits) * 0.99)] * 1000, loads.value - before)


def middle_of(repeats: Sequence[Sequence[Herd]], figure: Callable[[Herd], float]) -> float:
    """The median over the repeats, of each of which it is the median of its herds."""
    return statistics.median(statistics.median(map(figure, herds)) for herds in repeats)


def rows_of(herds: dict[str, list[list[Herd]]]) -> list[Line]:
    """Three lines a case, and what they are measured against."""
    middle = {case: middle_of(found, lambda herd: herd.p99) for case, found in herds.items()}
    rows = []
    for case, found in herds.items():
        ours = case.startswith("ours") and "warm" not in case
        most = max(herd.loads for repeat in found for herd in repeat)
        target = "1" if ours else None
        rows.append(Line(f"{case}: loads", most, "most", None, target, most <= 1 if ours else None))
        rows.append(Line(f"{case}: p50", round(middle_of(found, lambda herd: herd.p50), 1), "ms"))
        against, limit = None, 0.0
        if ours:
            stale = "stale" in case
            against, limit = (case.replace("stale at hand", "warm"), 1.5) if stale else ("cashews, lock", 1.1)
        ratio = middle[case] / middle[against] if against in middle else None
        target = f"<= {limit} x {against}" if against else None
        met = None if ratio is None else ratio <= limit
        rows.append(Line(f"{case}: p99", round(middle[case], 1), "ms", ratio and round(ratio, 2), target, met))
    return rows


if __name__ == "__main__":
    main()
