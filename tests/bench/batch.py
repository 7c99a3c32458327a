"""`get_many` of 100 hits beside the raw sockets and the peers with the same decode: CPU of client and server.

    python -m tests.bench.batch [seconds]

"The same decode": the peer reads the very items that the cache keeps, and what it read goes through the
same check of the header and the same codec. A row of the bare payloads shows what the header costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
import pymemcache
import redis

from cachelib import Cache, Entity
from cachelib.envelope import plain_values
from tests.bench import _meta_memcache
from tests.bench._interleave import Case, measure_cpu, pin, report, rows_of
from tests.bench._one_row import PAYLOAD, OneRow, customers, raw
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisClusterServers

KEYS = list(range(1000, 1100))
PLAIN = [f"k{key}" for key in KEYS]
bare = msgspec.msgpack.Decoder().decode


def filled(stack: ExitStack, url: str) -> tuple[Cache, Entity, list[bytes]]:
    """A cache that has all keys, and their names on the node."""
    entity = customers()
    cache = stack.enter_context(Cache(url, store=OneRow()))  # type: ignore[arg-type]
    cache.get_many(entity, KEYS)
    assert len(cache.get_many(entity, KEYS)) == len(KEYS)
    lane = cache._core.lane(cache._layout.view, cache._core.knows(entity))
    assert lane is not None
    return cache, entity, entity.template.render_all(KEYS, lane.prefix)


def same_decode(entity: Entity, read: Callable[[], Any]) -> Callable[[], Any]:
    """A peer's items through our header and codec."""
    packer = entity.packer
    return lambda: plain_values(read(), time.time() * 1000, packer.prefix, packer.decode)


def redis_cases(stack: ExitStack, server: RedisServer) -> list[Case]:
    """Against Redis."""
    client = redis.Redis(port=server.port)
    client.mset(dict.fromkeys(PLAIN, PAYLOAD))
    cache, entity, names = filled(stack, server.url)
    mget = b"*101\r\n$4\r\nMGET\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in names)
    length = len(client.get(names[0])) * 100
    return [
        Case("redis raw socket, MGET", raw(server.port, mget, length), per_call=100),
        Case("redis-py mget, bare payloads, bare codec", lambda: [*map(bare, client.mget(PLAIN))], per_call=100),
        Case("redis-py mget + the same decode", same_decode(entity, lambda: client.mget(names)), per_call=100),
        Case(
            "Cache.get_many, redis",
            lambda: cache.get_many(entity, KEYS),
            "redis-py mget + the same decode",
            ">= 1.1 (aim 1.4)",
            lambda r: r >= 1.1,
            per_call=100,
        ),
    ]


def memcached_cases(stack: ExitStack, server: MemcachedServer) -> list[Case]:
    """Against Memcached."""
    hashed = pymemcache.HashClient([(HOST, server.port)], no_delay=True)
    hashed.set_many(dict.fromkeys(PLAIN, PAYLOAD))
    cache, entity, names = filled(stack, server.url)
    texts = [name.decode() for name in names]
    length = len(hashed.get(texts[0])) * 100
    request = b"get " + b" ".join(names) + b"\r\n"
    meta = _meta_memcache.many(server.port, PLAIN)
    peers = []
    if meta is not None:
        peers = [Case("meta-memcache multi_get, bare payloads", lambda: [*map(bare, meta().values())], per_call=100)]
    return [
        *peers,
        Case("memcached raw socket, get k1 … k100", raw(server.port, request, length), per_call=100),
        Case("HashClient.get_many, bare payloads", lambda: [*map(bare, hashed.get_many(PLAIN).values())], per_call=100),
        Case(
            "HashClient.get_many + the same decode",
            same_decode(entity, lambda: hashed.get_many(texts).values()),
            per_call=100,
        ),
        Case(
            "Cache.get_many, memcached",
            lambda: cache.get_many(entity, KEYS),
            "HashClient.get_many + the same decode",
            ">= 2.5 (aim 4)",
            lambda r: r >= 2.5,
            per_call=100,
        ),
    ]


def cluster_cases(stack: ExitStack, cluster: RedisClusterServers) -> list[Case]:
    """Three masters of a Redis Cluster: a pipeline for each, all sent before any is read."""
    client = redis.RedisCluster(host=HOST, port=cluster.masters[0].port)
    stack.callback(client.close)
    cache, entity, names = filled(stack, cluster.url)
    return [
        Case(
            "redis-py mget_nonatomic + the same decode, cluster",
            same_decode(entity, lambda: client.mget_nonatomic(names)),
            per_call=100,
        ),
        Case(
            "Cache.get_many, redis cluster",
            lambda: cache.get_many(entity, KEYS),
            "redis-py mget_nonatomic + the same decode, cluster",
            per_call=100,
        ),
    ]


def pool_case(stack: ExitStack, servers: list[RedisServer]) -> Case:
    """Three Redis that know nothing of each other."""
    entity = customers()
    cache = stack.enter_context(Cache([server.url for server in servers], store=OneRow()))  # type: ignore[arg-type]
    for _ in range(2):
        assert len(cache.get_many(entity, KEYS)) == len(KEYS)
    return Case(
        "Cache.get_many, pool of 3 redis", lambda: cache.get_many(entity, KEYS), "Cache.get_many, redis", per_call=100
    )


def main() -> None:
    """Run both tables."""
    pin(0)
    with ExitStack() as stack:
        one, two = stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())
        three = [stack.enter_context(RedisServer()) for _ in range(3)]
        cluster = stack.enter_context(RedisClusterServers())
        cases = [
            *redis_cases(stack, one),
            *memcached_cases(stack, two),
            *cluster_cases(stack, cluster),
            pool_case(stack, three),
        ]
        pids = [server.pid for server in [one, two, *three, *cluster.servers]]
        found = measure_cpu(cases, pids, seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
        report("batch", "100 hits in one call, µs of CPU a key", rows_of(cases, found))


if __name__ == "__main__":
    main()
