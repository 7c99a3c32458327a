"""A miss with lease and fill beside a GET and a SET, in one run: CPU (ours and the server's), round trips, loads.

    python -m tests.bench.miss [seconds]

The store answers at once and every call asks for another key. The naive way packs and unpacks the same value.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import count

import msgpack
import pymemcache
import redis

from cachelib import Cache
from tests.bench._cost import Cost
from tests.bench._interleave import Case, Row, measure_cpu, pin, report, rows_of
from tests.bench._one_row import VALUE, OneRow, customers
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.redis import RedisServer

TRIPS_MAX = {"redis": 3, "memcached": None}


def main() -> None:
    """Run the table."""
    pin(0)
    keys, rows = count(1), []
    with ExitStack() as stack:
        servers = {"redis": stack.enter_context(RedisServer()), "memcached": stack.enter_context(MemcachedServer())}
        client = redis.Redis(port=servers["redis"].port)
        plain = pymemcache.HashClient([(HOST, servers["memcached"].port)], no_delay=True)

        def look_aside_redis() -> object:
            key = f"k{next(keys)}"
            assert client.get(key) is None
            packed = msgpack.packb(VALUE)
            client.set(key, packed, ex=60)
            return msgpack.unpackb(packed)

        def look_aside_memcached() -> object:
            key = f"k{next(keys)}"
            assert plain.get(key) is None
            packed = msgpack.packb(VALUE)
            plain.set(key, packed, expire=60)
            return msgpack.unpackb(packed)

        cases = [
            Case("GET + SET, redis-py", look_aside_redis),
            Case("get + set, HashClient", look_aside_memcached),
        ]
        for kind, against in (("redis", cases[0].name), ("memcached", cases[1].name)):
            entity, loads = customers(ttl="60s"), []
            cache = stack.enter_context(Cache(servers[kind].url, store=OneRow()))  # type: ignore[arg-type]
            load = entity.load
            entity.load = lambda tx, asked, load=load, loads=loads: loads.append(asked) or load(tx, asked)  # type: ignore[misc,operator,func-returns-value]
            cases.append(
                Case(
                    f"Cache.get, a miss, {kind}",
                    lambda cache=cache, entity=entity: cache.get(entity, next(keys)),  # type: ignore[misc]
                    against,
                    "<= 2 x the CPU of GET + SET" if kind == "redis" else None,
                    (lambda r: r >= 0.5) if kind == "redis" else None,
                )
            )
            for _ in range(3):
                cache.get(entity, next(keys))
            loads.clear()
            trips = Cost(lambda cache=cache, entity=entity: cache.get(entity, next(keys))).trips  # type: ignore[misc]
            most = TRIPS_MAX[kind]
            met = None if most is None else trips <= most
            rows += [
                Row(f"round trips of a miss, {kind}", trips, "trips", None, most and f"<= {most}", met),
                Row(f"loads of a miss, {kind}", len(loads), "loads", None, "1", len(loads) == 1),
            ]
        pids = [server.pid for server in servers.values()]
        found = measure_cpu(cases, pids, seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 15.0)
    report("miss", "A miss with lease and fill, CPU of client and server", rows_of(cases, found) + rows)


if __name__ == "__main__":
    main()
