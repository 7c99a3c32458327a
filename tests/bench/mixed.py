"""4 processes of 200 asyncio tasks that read by Zipf 0.99, beside the same tasks on the bare transport and decode.

    python -m tests.bench.mixed [seconds a slice]

The cases take turns; a figure is the median of the slices of all processes together.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import multiprocessing
import random
import statistics
import sys
import time
from typing import Any

from cachelib import AsyncCache
from tests.bench._interleave import Row, report
from tests.bench._one_row import AsyncOneRow, customers
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer

PROCESSES, TASKS, KEYS, SKEW, SLICES = 4, 200, 10_000, 0.99, 5


def zipf(rng: random.Random, number: int) -> list[int]:
    """So many keys, drawn by Zipf."""
    weights = list(itertools.accumulate(1 / (rank + 1) ** SKEW for rank in range(KEYS)))
    return [bisect.bisect(weights, rng.random() * weights[-1]) for _ in range(number)]


async def _slices(pipe: Any, url: str, document: bytes, ready: Any, seconds: float) -> None:
    store = AsyncOneRow()
    store._layout = document
    entity = customers(awaited=True)
    drawn = zipf(random.Random(), 50_000)
    async with AsyncCache(url, store=store) as cache:
        await cache.get(entity, 0)
        lane = cache._core.lane(cache._layout.view, cache._core.knows(entity))
        assert lane is not None
        prefix, value, transport = lane.prefix, lane.value, cache.backend.get

        async def ours(key: int) -> object:
            return await cache.get(entity, key)

        async def bare(key: int) -> object:
            raw = await transport(prefix + b"customer:%d" % key)
            return value(raw, time.time() * 1000)

        for at in range(0, KEYS, 500):
            await cache.get_many(entity, range(at, at + 500))
        while (case := await asyncio.to_thread(pipe.recv)) is not None:
            ready.wait()
            pipe.send(await _reads({"ours": ours, "bare": bare}[case], drawn, seconds))


async def _reads(read: Any, drawn: list[int], seconds: float) -> int:
    """How many reads all tasks made."""
    ends = time.monotonic() + seconds

    async def task(at: int) -> int:
        done = 0
        while time.monotonic() < ends:
            await read(drawn[(at + done) % len(drawn)])
            done += 1
        return done

    return sum(await asyncio.gather(*(task(number * 251) for number in range(TASKS))))


def _serve(pipe: Any, *parts: Any) -> None:
    asyncio.run(_slices(pipe, *parts))


def measured(url: str, seconds: float) -> dict[str, float]:
    """Reads a second of all processes together, by case."""
    spawn = multiprocessing.get_context("spawn")
    document = asyncio.run(_layout(url))
    ready, pipes, running = spawn.Barrier(PROCESSES), [], []
    for _ in range(PROCESSES):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs, url, document, ready, seconds))
        process.start()
        pipes.append(ours)
        running.append(process)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(-1, SLICES):
        for case in random.sample(list(found), 2):
            for pipe in pipes:
                pipe.send(case)
            reads = sum(pipe.recv() for pipe in pipes)
            if turn >= 0:
                found[case].append(reads / seconds)
    for pipe in pipes:
        pipe.send(None)
    for process in running:
        process.join()
    return {case: statistics.median(rates) for case, rates in found.items()}


async def _layout(url: str) -> bytes:
    store = AsyncOneRow()
    async with AsyncCache(url, store=store) as cache:
        await cache.get(customers(awaited=True), 0)
    document = await store.read_layout()
    assert document is not None
    return document


def main() -> None:
    """Run both tables."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    rows = []
    with RedisServer() as one, MemcachedServer() as two:
        for server in (one, two):
            rates = measured(server.url, seconds)
            ratio = rates["ours"] / rates["bare"]
            rows.append(Row(f"bare transport, {server.name}", round(rates["bare"]), "reads/s"))
            name = f"AsyncCache.get, {server.name}"
            rows.append(Row(name, round(rates["ours"]), "reads/s", round(ratio, 2), ">= 0.70 (aim 0.85)", ratio >= 0.7))
    report("mixed", f"{PROCESSES} processes of {TASKS} tasks, Zipf {SKEW} over {KEYS} keys", rows)


if __name__ == "__main__":
    main()
