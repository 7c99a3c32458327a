"""Hits on an event loop, 32 in flight and one after the other, beside the peers' bare get, in one run.

    python -m tests.bench.async [seconds]

Server and client share one core. The peers read the same 263 bytes and do not decode them.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiocache
import aiomcache
import cashews
import redis.asyncio
from aiocache.serializers import NullSerializer

from cachelib import AsyncCache
from tests.bench._interleave import Row, pin, report
from tests.bench._one_row import PAYLOAD, AsyncOneRow, customers
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.redis import RedisServer

IN_FLIGHT = 32
READS = 10
"""Reads of each task in one slice."""
Get = Callable[[], Awaitable[Any]]


async def ours(stack: AsyncExitStack, url: str) -> tuple[Get, Get]:
    """A hit through `AsyncCache.get`, and one through the transport alone."""
    entity = customers(awaited=True)
    cache = await stack.enter_async_context(AsyncCache(url, store=AsyncOneRow()))
    for _ in range(3):
        await cache.get(entity, 7)
    lane = cache._core.lane(cache._layout.view, cache._core.knows(entity))
    name = lane.prefix + entity.text(7)
    return lambda: cache.get(entity, 7), lambda: cache.backend.get(name)


async def cases(stack: AsyncExitStack) -> dict[str, Get]:
    """Everything that is measured."""
    redis_server, memcached_server = stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())
    client = redis.asyncio.Redis(port=redis_server.port)
    stack.push_async_callback(client.aclose)
    memcache = aiomcache.Client(HOST, memcached_server.port)
    stack.push_async_callback(memcache.close)
    simple = aiocache.RedisCache(endpoint=HOST, port=redis_server.port, serializer=NullSerializer(encoding=None))
    stack.push_async_callback(simple.close)
    wrapped = cashews.Cache()
    wrapped.setup(redis_server.url)
    stack.push_async_callback(wrapped.close)
    await client.set("k", PAYLOAD)
    await memcache.set(b"k", PAYLOAD)
    await wrapped.set("wrapped", PAYLOAD)
    ours_redis, redis_transport = await ours(stack, redis_server.url)
    ours_memcached, memcached_transport = await ours(stack, memcached_server.url)
    return {
        "redis.asyncio get": lambda: client.get("k"),
        "aiocache get": lambda: simple.get("k"),
        "cashews get": lambda: wrapped.get("wrapped"),
        "transport alone, redis": redis_transport,
        "AsyncCache.get, redis": ours_redis,
        "aiomcache get": lambda: memcache.get(b"k"),
        "transport alone, memcached": memcached_transport,
        "AsyncCache.get, memcached": ours_memcached,
    }


AGAINST = {
    "AsyncCache.get, redis": ("redis.asyncio get", 4, 6),
    "AsyncCache.get, memcached": ("aiomcache get", 2, 3),
}


async def in_flight(get: Get) -> float:
    """µs a read with 32 tasks at it."""

    async def task() -> None:
        for _ in range(READS):
            await get()

    began = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(IN_FLIGHT)))
    return (time.perf_counter() - began) / (IN_FLIGHT * READS) * 1e6


async def one_by_one(get: Get) -> float:
    """µs a read, one after the other."""
    began = time.perf_counter()
    for _ in range(IN_FLIGHT):
        await get()
    return (time.perf_counter() - began) / IN_FLIGHT * 1e6


async def run(seconds: float) -> list[Row]:
    """All cases in random order, slice by slice."""
    found: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        all_of = await cases(stack)
        for get in all_of.values():
            await in_flight(get)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for name in random.sample(list(all_of), len(all_of)):
                found.setdefault(("32 in flight", name), []).append(await in_flight(all_of[name]))
                found.setdefault(("one by one", name), []).append(await one_by_one(all_of[name]))
    calm = {at: statistics.median(sorted(us)[: max(1, len(us) // 4)]) for at, us in found.items()}
    rows = []
    for (how, name), us in sorted(calm.items()):
        peer, least, aim = AGAINST.get(name, (None, 0, 0))
        ratio = calm[how, peer] / us if peer else None
        target = f">= {least} x {peer} (aim {aim})" if peer and how == "32 in flight" else None
        met = ratio is not None and ratio >= least
        rows.append(
            Row(f"{name}, {how}", round(us, 2), "us/op", ratio and round(ratio, 2), target, met if target else None)
        )
    return rows


def main() -> None:
    """Run the table."""
    pin(0)
    rows = asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0))
    report("async", f"One hit on an event loop, {len(PAYLOAD)} bytes, server and client on one core", rows)


if __name__ == "__main__":
    main()
