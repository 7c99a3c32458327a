"""What the benchmarks of the client read: one row of 263 bytes under every key, and a store that has nothing else."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from cachelib import Entity, Row
from cachelib.stores.base import Loaded
from tests.servers.ports import HOST

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
    """A store whose every key has the row, so that only the cache is measured."""

    def __init__(self) -> None:
        self._layout: bytes | None = None

    def load(self, loader: Any, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """Every key has the row."""
        return Loaded(loader(self, keys), time.time_ns() // 1000)

    def now_us(self) -> int:
        """This process's clock."""
        return time.time_ns() // 1000

    def read_layout(self) -> bytes | None:
        """In memory."""
        return self._layout

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """In memory."""
        self._layout = document


class AsyncOneRow(OneRow):
    """`OneRow`, awaited."""

    async def load(self, loader: Any, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:  # type: ignore[override]
        """Every key has the row."""
        return Loaded(await loader(self, keys), time.time_ns() // 1000)

    async def now_us(self) -> int:  # type: ignore[override]
        """This process's clock."""
        return time.time_ns() // 1000

    async def read_layout(self) -> bytes | None:  # type: ignore[override]
        """In memory."""
        return self._layout

    async def write_layout(self, document: bytes, expected: bytes | None) -> None:  # type: ignore[override]
        """In memory."""
        self._layout = document


def load(tx: Any, keys: Sequence[int]) -> dict[int, Row]:
    """The loader."""
    return {key: Row(VALUE, 1) for key in keys}


async def load_async(tx: Any, keys: Sequence[int]) -> dict[int, Row]:
    """The loader, awaited."""
    return load(tx, keys)


def customers(*, awaited: bool = False, **settings: Any) -> Entity:
    """The entity of the benchmarks."""
    loader = load_async if awaited else load
    return Entity("customer:{id:int}", table="customers", **{"load": loader, "ttl": "1d", **settings})


def raw(port: int, request: bytes, length: int) -> Callable[[], bytes]:
    """The ceiling: one send and as many receives as a reply of known length takes."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call() -> bytes:
        sock.sendall(request)
        got = sock.recv(65536)
        while len(got) < length:
            got += sock.recv(65536)
        return got

    return call
