"""One Redis node as a backend: what is said is in `talks.py`, the rules are in `item.lua`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cachelib.backends.base import Batch, Capability, Results
from cachelib.backends.redis.aio_transport import AsyncTransport
from cachelib.backends.redis.clients import AsyncClientTransport, ClientTransport
from cachelib.backends.redis.direct import Direct
from cachelib.backends.redis.replicas import AsyncEventualGet, EventualGet, Replicas, without_option
from cachelib.backends.redis.sentinels import asks_sentinels, async_replicas_behind, replicas_behind, url_of
from cachelib.backends.redis.settings import Settings
from cachelib.backends.redis.talks import ITEM, Script, Talks
from cachelib.backends.redis.transport import Transport
from cachelib.errors import ConfigError
from cachelib.model import Answer, Name, Op
from cachelib.overlap import to_its_end
from cachelib.policy import LIFE_MS_MAX
from cachelib.proof import Seen


class Redis:
    """A `Backend`: `Redis("redis://host:6379/0", timeout_ms=200)`, or `rediss://`, or `unix:///path`.

    `redis+sentinel://host:port,host:port/service` finds the master by Sentinels; with `?replicas=eventual` behind it
    replicas answer the hit GET of eventual reads (`replicas.py`).

    `settings` are those of `Settings`; `options` go to redis-py's connections as they are (TLS, a
    credential provider, keepalive). Raises `ConfigError` where one of them does not exist.
    """

    _replicas: Replicas | None = None
    eventual_get: EventualGet | None = None
    """`get` by way of replicas, for eventual reads; None without `?replicas=eventual`."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, **settings: Any) -> None:
        url, asks_replicas = replicas_of_sentinels(url)
        chosen, given = Settings.of(settings), dict(options or {})
        transport = Transport(url, chosen, given)
        self._over(transport, chosen, ITEM)
        if asks_replicas:

            async def places(_service: str) -> Sequence[str]:
                return replicas_behind(transport.pool)

            self._replicas = Replicas(lambda place: Direct(Transport(url_of(url, place), chosen, given)), places)
            self.eventual_get = EventualGet(self._replicas, lambda _: "", self.get)

    @classmethod
    def from_client(cls, client: Any, *, script: Script = ITEM, **settings: Any) -> Redis:
        """Over a client that somebody made, such as fakeredis's; slower, and see `clients.py` about notes."""
        self = cls.__new__(cls)
        self._over(ClientTransport(client), Settings.of(settings), script)
        return self

    def _over(self, transport: Transport | ClientTransport, settings: Settings, script: Script) -> None:
        self._transport = transport
        self.get = transport.get
        """See `Backend.get`."""
        self.wire = transport if isinstance(transport, Transport) else None
        """See `base.Wire`."""
        self._talks = Talks(settings.names_per_call, script)
        self.overlapping = None if isinstance(transport, ClientTransport) else _Conversations(transport, self._talks)
        """See `Overlapping`."""
        self.capability = capability_of(settings)

    @property
    def refused_writes(self) -> int:
        """How many writes the server refused for want of memory; they were answered as evictions."""
        return self._talks.refused_writes

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        if self.wire is None or not names:
            return self._transport.converse(self._talks.get_many(names))
        return self.wire.get_many(names)

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return self._transport.converse(self._talks.execute(name, op, now_ms))

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return self._transport.converse(self._talks.execute_many(batch, now_ms))

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`. Raises `CacheFull` where there was memory for the batch but not for the notes."""
        return self._transport.converse(self._talks.apply(batch, notes, now_ms))

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return self._transport.converse(self._talks.get_many(names))

    def instance(self) -> str:
        """See `Backend.instance`."""
        return self._transport.converse(self._talks.instance())

    def empty(self) -> bool:
        """See `base.Tells`."""
        return self._transport.converse(self._talks.empty())

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._transport.watch(self._talks.instance, seen)

    def began_empty(self) -> bool:
        """Whether this start of the server surely has nothing from before it: it loaded no file, and was no replica."""
        return self._transport.converse(self._talks.began_empty())

    def close(self) -> None:
        """See `Backend.close`."""
        if self._replicas is not None:
            to_its_end(self._replicas.close())
        self._transport.close()


class _Conversations:
    """See `Overlapping`."""

    def __init__(self, transport: Transport, talks: Talks) -> None:
        self._transport = transport
        self._talks = talks

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return await self._transport.conversing(self._talks.get_many(names))

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return await self._transport.conversing(self._talks.execute_many(batch, now_ms))


class AsyncRedis:
    """An `AsyncBackend`; see `Redis`.

    Each event loop that uses it has one connection, shared by its tasks; close it on each.
    """

    _replicas: Replicas | None = None
    eventual_get: AsyncEventualGet | None = None
    """See `Redis.eventual_get`."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, **settings: Any) -> None:
        url, asks_replicas = replicas_of_sentinels(url)
        chosen, given = Settings.of(settings), dict(options or {})
        transport = AsyncTransport(url, chosen, given)
        self._over(transport, chosen, ITEM)
        if asks_replicas:

            async def places(_service: str) -> Sequence[str]:
                return await async_replicas_behind(transport.pool)

            self._replicas = Replicas(lambda place: AsyncTransport(url_of(url, place), chosen, given), places)
            self.eventual_get = AsyncEventualGet(self._replicas, lambda _: "", self.get)

    @classmethod
    def from_client(cls, client: Any, *, script: Script = ITEM, **settings: Any) -> AsyncRedis:
        """See `Redis.from_client`."""
        self = cls.__new__(cls)
        self._over(AsyncClientTransport(client), Settings.of(settings), script)
        return self

    def _over(self, transport: AsyncTransport | AsyncClientTransport, settings: Settings, script: Script) -> None:
        self._transport = transport
        self._talks = Talks(settings.names_per_call, script)
        self.capability = capability_of(settings)

    @property
    def refused_writes(self) -> int:
        """See `Redis.refused_writes`."""
        return self._talks.refused_writes

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return await self._transport.get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return await self._transport.converse(self._talks.get_many(names))

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return await self._transport.converse(self._talks.execute(name, op, now_ms))

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return await self._transport.converse(self._talks.execute_many(batch, now_ms))

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Redis.apply`."""
        return await self._transport.converse(self._talks.apply(batch, notes, now_ms))

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return await self._transport.converse(self._talks.get_many(names))

    async def instance(self) -> str:
        """See `Backend.instance`."""
        return await self._transport.converse(self._talks.instance())

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._transport.watch(self._talks.instance, seen)

    async def close(self) -> None:
        """See `Backend.close`."""
        if self._replicas is not None:
            await self._replicas.close()
        await self._transport.close()


def replicas_of_sentinels(url: str) -> tuple[str, bool]:
    """See `without_option`; a server that nobody watches has no replicas that would be known."""
    plain, asked = without_option(url)
    if asked and not asks_sentinels(url):
        raise ConfigError("replicas= needs redis+cluster:// or redis+sentinel://, which say where the replicas are")
    return plain, asked


def capability_of(settings: Settings) -> Capability:
    """What a Redis can keep."""
    return Capability(
        "redis",
        settings.name_bytes_max,
        settings.payload_bytes_max,
        ttl_step_ms=1,
        life_ms_max=LIFE_MS_MAX,
        names_printable=False,
        shared=True,
    )
