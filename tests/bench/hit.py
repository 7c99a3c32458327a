"""What a hit costs through the whole layer, beside the raw socket and the peers' bare get, in one run.

    python -m tests.bench.hit [seconds]

The same 263 bytes under one key each; server and client share one core, so that the figures are
CPU cost. `ratio` is the case's rate over that of the case it is measured against.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import msgpack
import pymemcache
import redis

from cachelib import Cache, Entity, Row, Strong
from cachelib.stores.base import Loaded
from tests.bench._interleave import Case, measure, pin, report, rows_of
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.redis import RedisServer

VALUE = {
    "id": 7,
    "name": "n" * 100,
    "city": "c" * 60,
    "tier": "gold",
    "tags": ["a", "b"],
    "spent": 1234.5,
    "pad": "p" * 44,
}
PAYLOAD = msgpack.packb(VALUE)


class OneRow:
    """A store of one unchanging row, so that only the hit is measured."""

    def __init__(self) -> None:
        self._layout: bytes | None = None

    def load(self, loader: Any, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """Every key has the row."""
        return Loaded(loader(self, keys), time.time_ns() // 1000)

    def read_layout(self) -> bytes | None:
        """In memory."""
        return self._layout

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """In memory."""
        self._layout = document


def raw(port: int, request: bytes, length: int) -> Callable[[], bytes]:
    """The ceiling: one send and one receive of a reply of known length."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call() -> bytes:
        sock.sendall(request)
        got = sock.recv(65536)
        while len(got) < length:
            got += sock.recv(65536)
        return got

    return call


def load(tx: Any, keys: Sequence[int]) -> dict[int, Row]:
    """The loader."""
    return {key: Row(VALUE, 1) for key in keys}


def caches(stack: ExitStack, url: str) -> list[tuple[str, Callable[[], Any]]]:
    """Ours, at both levels."""
    cache = stack.enter_context(Cache(url, store=OneRow()))  # type: ignore[arg-type]
    plain = Entity("customer:{id:int}", table="customers", load=load, ttl="1d")
    strong = Entity("account:{id:int}", table="accounts", load=load, ttl="1d", consistency=Strong())
    return [("eventual", lambda: cache.get(plain, 7)), ("strong", lambda: cache.get(strong, 7))]


def redis_cases(stack: ExitStack) -> list[Case]:
    """Against Redis."""
    server = stack.enter_context(RedisServer())
    client = redis.Redis(port=server.port)
    client.set("k", PAYLOAD)
    hit = raw(server.port, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", len(PAYLOAD) + 8)
    cases = [
        Case("redis raw socket", hit),
        Case("redis-py get", lambda: client.get("k"), "redis raw socket"),
        Case("redis-py get + msgpack", lambda: msgpack.unpackb(client.get("k")), "redis raw socket"),
    ]
    for level, call in caches(stack, server.url):
        cases += [
            Case(f"Cache.get {level}, redis", call, "redis raw socket", ">= 0.58 of the raw rate", lambda r: r >= 0.58),
            Case(f"Cache.get {level} over redis-py", call, "redis-py get", ">= 2 x redis-py get", lambda r: r >= 2),
        ]
    return cases


def memcached_cases(stack: ExitStack) -> list[Case]:
    """Against Memcached."""
    server = stack.enter_context(MemcachedServer())
    client = pymemcache.Client((HOST, server.port), no_delay=True)
    hashed = pymemcache.HashClient([(HOST, server.port)], no_delay=True)
    client.set("k", PAYLOAD)
    hit = raw(server.port, b"get k\r\n", len(PAYLOAD) + 20)
    cases = [
        Case("memcached raw socket", hit),
        Case("pymemcache get", lambda: client.get("k"), "memcached raw socket"),
        Case("pymemcache HashClient get", lambda: hashed.get("k"), "memcached raw socket"),
    ]
    for level, call in caches(stack, server.url):
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
    pin(0)
    with ExitStack() as stack:
        cases = redis_cases(stack) + memcached_cases(stack)
        found = measure(cases, seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
        report("hit", f"One hit, {len(PAYLOAD)} bytes, server and client on one core", rows_of(cases, found))


if __name__ == "__main__":
    main()
