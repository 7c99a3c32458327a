"""What a hit costs through the whole layer, beside the raw socket and the peers' bare get, in one run.

    python -m tests.bench.hit [seconds]

Twice: server and client on one core (so that the figures are CPU cost), then the servers on another one.

The same 263 bytes under one key each. `ratio` is the case's rate over that of the case it is measured against.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pymemcache
import redis
from dogpile.cache import make_region

from cachelib import Cache, Entity, Strong
from cachelib.proof import ProofNote, encode_proof, proof_name
from tests.bench import _meta_memcache
from tests.bench._interleave import Case, measure, pin, report, rows_of
from tests.bench._one_row import PAYLOAD, VALUE, OneRow, customers, load, raw
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.redis import RedisServer


def caches(stack: ExitStack, url: str) -> list[tuple[str, Callable[[], Any]]]:
    """Ours, at both levels."""
    cache = stack.enter_context(Cache(url, store=OneRow()))  # type: ignore[arg-type]
    plain = customers()
    strong = Entity("account:{id:int}", table="accounts", load=load, ttl="1d", consistency=Strong())
    told = ProofNote(cache.backend.instance(), "", None, 1, frozenset({strong.name}))  # as the invalidator writes it
    cache.backend.apply([], {proof_name(cache._core.namespace): encode_proof(told)}, 0)
    return [("eventual", lambda: cache.get(plain, 7)), ("strong", lambda: cache.get(strong, 7))]


def dogpile(url: str) -> Callable[[], object]:
    """A get through a region: what most programs with threads have."""
    region = make_region().configure("dogpile.cache.redis", expiration_time=3600, arguments={"url": url})
    region.set("d", VALUE)
    return lambda: region.get("d")


def redis_cases(stack: ExitStack, server: RedisServer) -> list[Case]:
    """Against Redis."""
    client = redis.Redis(port=server.port)
    client.set("k", PAYLOAD)
    hit = raw(server.port, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", len(PAYLOAD) + 8)
    cases = [
        Case("redis raw socket", hit),
        Case("redis-py get", lambda: client.get("k"), "redis raw socket"),
        Case("dogpile.cache get", dogpile(server.url), "redis raw socket"),
        Case("redis-py get + msgpack", lambda: msgpack.unpackb(client.get("k")), "redis raw socket"),
    ]
    for level, call in caches(stack, server.url):
        cases += [
            Case(f"Cache.get {level}, redis", call, "redis raw socket", ">= 0.58 of the raw rate", lambda r: r >= 0.58),
            Case(f"Cache.get {level} over redis-py", call, "redis-py get", ">= 2 x redis-py get", lambda r: r >= 2),
        ]
    return cases


def memcached_cases(stack: ExitStack, server: MemcachedServer) -> list[Case]:
    """Against Memcached."""
    client = pymemcache.Client((HOST, server.port), no_delay=True)
    hashed = pymemcache.HashClient([(HOST, server.port)], no_delay=True)
    client.set("k", PAYLOAD)
    hit = raw(server.port, b"get k\r\n", len(PAYLOAD) + 20)
    cases = [
        Case("memcached raw socket", hit),
        Case("pymemcache get", lambda: client.get("k"), "memcached raw socket"),
        Case("pymemcache HashClient get", lambda: hashed.get("k"), "memcached raw socket"),
    ]
    meta = _meta_memcache.one(server.port)
    if meta is not None:
        cases.append(Case("meta-memcache get", meta, "memcached raw socket"))
    for level, call in caches(stack, server.url):
        if meta is not None:
            cases.append(Case(f"Cache.get {level} over meta-memcache", call, "meta-memcache get"))
        cases += [
            Case(
                f"Cache.get {level}, memcached",
                call,
                "memcached raw socket",
                ">= 0.60 of the raw rate",
                lambda r: r >= 0.6,
            ),
            Case(
                f"Cache.get {level} over pymemcache",
                call,
                "pymemcache get",
                ">= 1/1.3 of pymemcache get",
                lambda r: r >= 1 / 1.3,
            ),
            Case(
                f"Cache.get {level} over HashClient",
                call,
                "pymemcache HashClient get",
                ">= 1.6 x HashClient",
                lambda r: r >= 1.6,
            ),
        ]
    return cases


def main() -> None:
    """Run both tables."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    pin(0)
    with ExitStack() as stack:
        servers = [stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())]
        cases = redis_cases(stack, servers[0]) + memcached_cases(stack, servers[1])
        rows = rows_of(cases, measure(cases, seconds=seconds))
        for server in servers:
            for thread in Path(f"/proc/{server.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {os.cpu_count() - 1})  # type: ignore[operator]
        for row in rows_of(cases, measure(cases, seconds=seconds)):
            rows.append(replace(row, case=f"{row.case}, two cores", target=None, met=None))
        report("hit", f"One hit, {len(PAYLOAD)} bytes, on one core and on two", rows)


if __name__ == "__main__":
    main()
