"""The two faces of a Redis Cluster: `redis+cluster://host:port`, or `rediss+cluster://`. See `cluster.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cachelib.backends.base import Batch, Overlapping, Results
from cachelib.backends.redis.aio_transport import AsyncTransport
from cachelib.backends.redis.backend import capability_of
from cachelib.backends.redis.cluster import Cluster
from cachelib.backends.redis.cluster_map import place_of
from cachelib.backends.redis.cluster_talks import ClusterTalks
from cachelib.backends.redis.direct import Direct
from cachelib.backends.redis.replicas import AsyncEventualGet, EventualGet, Replicas, without_option
from cachelib.backends.redis.settings import Settings
from cachelib.backends.redis.transport import Transport
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.model import Answer, Name, Op
from cachelib.overlap import side_by_side, to_its_end
from cachelib.proof import Seen

T = TypeVar("T")
PORT = 6379
READ_ONLY = ((b"READONLY",),)
"""What a replica of a cluster has to be told on each connection."""


class RedisCluster:
    """A `Backend` over a Redis Cluster: `RedisCluster("redis+cluster://a:6379,b:6379")`.

    One server of it is enough to find the others; several are safer. `options` and settings are those of `Redis`.
    With `?replicas=eventual` behind the URL, replicas answer the hit GET of eventual reads (`replicas.py`).
    Raises `ConfigError`.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, **settings: Any) -> None:
        url, asks_replicas = without_option(url)
        chosen, way = Settings.of(settings), _Way(url)
        self.capability = capability_of(chosen)

        def dial(place: str) -> Direct:
            return Direct(Transport(way.url_of(place), chosen, dict(options or {})))

        self._cluster = Cluster(way.seeds, ClusterTalks(names_per_call=1), dial, _sleep, _side_by_side)
        self.overlapping: Overlapping = self._cluster
        """See `Overlapping`."""
        self.start_of = self._cluster.start_of
        """What a strong read of a name stands on; a conversation."""
        self._replicas = Replicas(dial, self._cluster.replicas_of, READ_ONLY)
        self.eventual_get = EventualGet(self._replicas, self._cluster.master_of, self.get) if asks_replicas else None
        """`get` by way of replicas, for eventual reads; None without `?replicas=eventual`."""

    def get(self, name: Name) -> bytes | None:
        """See `Backend.get`: straight to the master that has it, as far as is known."""
        shard = self._cluster.known(name)
        if isinstance(shard, Direct):
            try:
                return shard.get(name)
            except CacheUnavailable:
                pass  # it moved, or its master is gone
        return to_its_end(self._cluster.get(name))

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return to_its_end(self._cluster.get_many(names))

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return to_its_end(self._cluster.execute(name, op, now_ms))

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return to_its_end(self._cluster.execute_many(batch, now_ms))

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return to_its_end(self._cluster.apply(batch, notes, now_ms))

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return to_its_end(self._cluster.read_notes(names))

    def instance(self) -> str:
        """See `Backend.instance`."""
        return to_its_end(self._cluster.instance())

    def began_empty(self) -> bool:
        """See `Redis.began_empty`: no master of it has anything from before its start."""
        return to_its_end(self._cluster.began_empty())

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`: of all masters together nothing is told; see `start_of`."""
        seen("")

    def close(self) -> None:
        """See `Backend.close`."""
        to_its_end(self._replicas.close())
        to_its_end(self._cluster.close())


class AsyncRedisCluster:
    """An `AsyncBackend` over a Redis Cluster; see `RedisCluster`."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, **settings: Any) -> None:
        url, asks_replicas = without_option(url)
        chosen, way = Settings.of(settings), _Way(url)
        self.capability = capability_of(chosen)

        def dial(place: str) -> AsyncTransport:
            return AsyncTransport(way.url_of(place), chosen, dict(options or {}))

        self._cluster = Cluster(way.seeds, ClusterTalks(names_per_call=1), dial, asyncio.sleep, _at_once)
        self._replicas = Replicas(dial, self._cluster.replicas_of, READ_ONLY)
        self.start_of = self._cluster.start_of
        """See `RedisCluster.start_of`."""
        through = AsyncEventualGet(self._replicas, self._cluster.master_of, self.get)
        self.eventual_get = through if asks_replicas else None
        """See `RedisCluster.eventual_get`."""

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        shard = self._cluster.known(name)
        if isinstance(shard, AsyncTransport):
            try:
                return await shard.get(name)
            except CacheUnavailable:
                pass  # it moved, or its master is gone
        return await self._cluster.get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return await self._cluster.get_many(names)

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return await self._cluster.execute(name, op, now_ms)

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return await self._cluster.execute_many(batch, now_ms)

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return await self._cluster.apply(batch, notes, now_ms)

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return await self._cluster.read_notes(names)

    async def instance(self) -> str:
        """See `Backend.instance`."""
        return await self._cluster.instance()

    async def watch(self, seen: Seen) -> None:
        """See `RedisCluster.watch`."""
        seen("")

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._replicas.close()
        await self._cluster.close()


class _Way:
    """From the cluster's URL to those of its servers."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme.removesuffix("+cluster")
        who, at, hosts = parts.netloc.rpartition("@")
        self._who, self._query = who + at, f"?{parts.query}" if parts.query else ""
        if self._scheme not in ("redis", "rediss") or parts.path not in ("", "/", "/0") or not hosts:
            raise ConfigError(
                f"{parts.scheme}://{hosts}{parts.path} is no redis cluster: give redis+cluster://host:port,host:port"
                " (a cluster has one database, 0)"
            )
        self.seeds = [self._place(host.strip()) for host in hosts.split(",") if host.strip()]

    def url_of(self, place: str) -> str:
        return f"{self._scheme}://{self._who}{place}/0{self._query}"

    def _place(self, host: str) -> str:
        found = urlsplit(f"redis://{host}")
        try:
            return place_of(found.hostname or "localhost", found.port or PORT)
        except ValueError as cause:
            raise ConfigError(f"{host!r} is no address of a redis: {cause}") from cause


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)


async def _side_by_side(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    if len(calls) == 1:
        await calls[0]
    else:
        side_by_side(calls)


async def _at_once(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    if len(calls) == 1:
        await calls[0]
        return
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(call)
