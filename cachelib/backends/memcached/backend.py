"""The two faces of one memcached node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

from cachelib.backends.base import Batch, Capability, Overlapping, Results
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.async_transport import AsyncLinks
from cachelib.backends.memcached.links import Counts, run
from cachelib.backends.memcached.node import Node
from cachelib.backends.memcached.settings import Given, Settings, address_of, whereabouts
from cachelib.backends.memcached.transport import SocketLinks
from cachelib.envelope import HEADER_BYTES
from cachelib.model import Answer, Name, Op
from cachelib.proof import Seen


def _capability(settings: Settings) -> Capability:
    payload_bytes_max = settings.item_bytes_max - HEADER_BYTES
    return Capability(
        "memcached",
        wire.NAME_BYTES_MAX,
        payload_bytes_max,
        ttl_step_ms=1000,
        life_ms_max=wire.TTL_S_MAX * 1000,
        names_printable=True,
        shared=True,
    )


class Memcached:
    """A `Backend` over one memcached 1.6 or newer.

    `servers` is one address, `memcached://host:port` or `unix:///path`; `settings` are those of
    `Settings`, by name. Raises `ConfigError` where either is wrong; connects at the first call.
    """

    def __init__(self, servers: str | Sequence[str] = "localhost", **settings: Unpack[Given]) -> None:
        self.settings = Settings.of(settings)
        self.capability = _capability(self.settings)
        self._counts = Counts()
        where = address_of(servers)
        self.address = whereabouts(where)
        """See `base.Addressed`: process ids are few (in a container it is always 1), and starts are of a second."""
        self._links = SocketLinks(where, self.settings, self._counts)
        self._node = Node(self._links, self.settings, self._counts)
        self.overlapping: Overlapping = self._node
        """See `Overlapping`."""
        self.get = self._links.get
        """See `Backend.get`."""
        self.get_made = self._links.get_made
        """See `threads.DirectBackend.direct_get`."""
        self.wire = self._links
        """See `base.Wire`."""

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return run(self._node.get_many(names))

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return run(self._node.execute(name, op, now_ms))

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return run(self._node.execute_many(batch, now_ms))

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return run(self._node.apply(batch, notes, now_ms))

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return run(self._node.get_many(names))

    def instance(self) -> str:
        """See `Backend.instance`."""
        return run(self._node.instance())

    def empty(self) -> bool:
        """See `base.Tells`."""
        return run(self._node.empty())

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._links.watch(seen)

    def counts(self) -> dict[str, int]:
        """What happened that no answer shows. See `Counts.read`."""
        return self._counts.read()

    def began_empty(self) -> bool:
        """It does: and the file of a warm restart (`-e`) is of the moment of its stop, never of an earlier one."""
        return True

    def close(self) -> None:
        """See `Backend.close`."""
        self._links.close()


class AsyncMemcached:
    """An `AsyncBackend` over one memcached 1.6 or newer. See `Memcached`.

    Each event loop that uses it has one connection, shared by its tasks; close it on each.
    """

    def __init__(self, servers: str | Sequence[str] = "localhost", **settings: Unpack[Given]) -> None:
        self.settings = Settings.of(settings)
        self.capability = _capability(self.settings)
        self._counts = Counts()
        where = address_of(servers)
        self.address = whereabouts(where)
        """See `Memcached.address`."""
        self._links = AsyncLinks(where, self.settings, self._counts)
        self._node = Node(self._links, self.settings, self._counts)

    async def get(self, name: Name) -> bytes | None:
        """See `AsyncBackend.get`."""
        return await self._links.get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `AsyncBackend.get_many`."""
        return await self._node.get_many(names)

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `AsyncBackend.execute`."""
        return await self._node.execute(name, op, now_ms)

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `AsyncBackend.execute_many`."""
        return await self._node.execute_many(batch, now_ms)

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `AsyncBackend.apply`."""
        return await self._node.apply(batch, notes, now_ms)

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `AsyncBackend.read_notes`."""
        return await self._node.get_many(names)

    async def instance(self) -> str:
        """See `AsyncBackend.instance`."""
        return await self._node.instance()

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._links.watch(seen)

    def counts(self) -> dict[str, int]:
        """What happened that no answer shows. See `Counts.read`."""
        return self._counts.read()

    async def close(self) -> None:
        """See `AsyncBackend.close`."""
        await self._links.close()
