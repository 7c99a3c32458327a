"""Talks over redis-py's asyncio connections: a small stack of them for each event loop.

A call that is cancelled in the middle closes its connection: the reply that is under way would
be taken for that of the next call.
"""

from __future__ import annotations

import asyncio
from os import getpid
from typing import Any, TypeVar

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError, ResponseError

from cachelib.backends.redis.settings import Settings, place_of, pool_of
from cachelib.backends.redis.talks import Talk, plain, spoils
from cachelib.errors import CacheUnavailable
from cachelib.model import Name

T = TypeVar("T")
Connection = Any
"""One of redis-py's connection classes; they share a protocol, but no type."""


class AsyncLanes:
    """The connections of one event loop, between `close` and `close`."""

    def __init__(self, pool: ConnectionPool, settings: Settings, place: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = getpid()
        self._pool, self._settings, self._place = pool, settings, place
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(settings.connections_max)
        self._closed = False

    async def take(self) -> Connection:
        """A connection that nobody uses: the one used last, or a new one. Waits for at most `wait_ms`."""
        try:
            async with asyncio.timeout(self._settings.wait_ms / 1000):
                await self._slots.acquire()
        except TimeoutError as cause:
            raise CacheUnavailable(
                f"redis at {self._place}: all {self._settings.connections_max} connections were in use "
                f"for {self._settings.wait_ms} ms; raise connections_max, or wait_ms"
            ) from cause
        try:
            return self._free.pop() if self._free else self._made()
        except BaseException:
            self._slots.release()
            raise

    async def take_live(self) -> Connection:
        """As `take`, but none that is known to be closed by the server: for what must not be sent twice."""
        while True:
            connection = await self.take()
            if not connection.is_connected or not await _has_something_to_read(connection):
                return connection
            await self.drop(connection)

    async def give(self, connection: Connection) -> None:
        """Back among the free ones."""
        if self._closed:
            await self.drop(connection)
            return
        self._free.append(connection)
        self._slots.release()

    async def drop(self, connection: Connection) -> None:
        """Close it: a reply may be under way that belongs to nobody."""
        self._slots.release()
        await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the free ones now, and the others when they are given back."""
        self._closed = True
        while self._free:
            await self._free.pop().disconnect()

    def _made(self) -> Connection:
        return self._pool.make_connection()  # type: ignore[no-untyped-call]


class AsyncTransport:
    """Carries talks to one server, for one event loop at a time."""

    def __init__(self, url: str, settings: Settings, options: dict[str, Any]) -> None:
        self._pool = pool_of(ConnectionPool, url, settings, options)
        self._settings = settings
        self.place = place_of(self._pool.connection_kwargs)
        self._lanes: AsyncLanes | None = None
        self._inherited: list[AsyncLanes] = []

    async def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`. As reading twice is harmless, a connection that broke is replaced once."""
        lanes = self._lanes_here()
        try:
            return await self._get(lanes, await lanes.take(), name)
        except _Idle:
            connection = await lanes.take()
            await connection.disconnect(nowait=True)  # the free ones broke, most likely, when this one did
            return await self._get(lanes, connection, name)

    async def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end, on one connection."""
        lanes = self._lanes_here()
        connection = await lanes.take_live()
        try:
            value, sound = await _converse(connection, talk)
        except (RedisError, OSError) as error:
            await lanes.drop(connection)
            raise CacheUnavailable(self._text(error)) from error
        except BaseException:  # a cancellation, too
            await lanes.drop(connection)
            raise
        await (lanes.give(connection) if sound else lanes.drop(connection))
        return value

    async def close(self) -> None:
        """Close every connection; the next call opens new ones. To be called on the loop that used them."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None and lanes.pid == getpid() and lanes.loop is asyncio.get_running_loop():
            await lanes.close()

    # --- how -----------------------------------------------------------------------------------

    async def _get(self, lanes: AsyncLanes, connection: Connection, name: Name) -> bytes | None:
        was_open = connection.is_connected
        try:
            await connection.send_packed_command(connection.pack_command(b"GET", name), False)
            raw = await connection.read_response()
        except (RedisError, OSError) as error:
            await lanes.drop(connection)
            closed_while_idle = was_open and isinstance(error, Disconnected)
            raise (_Idle if closed_while_idle else CacheUnavailable)(self._text(error)) from error
        except BaseException:  # a cancellation, too
            await lanes.drop(connection)
            raise
        await lanes.give(connection)
        return plain(raw)

    def _lanes_here(self) -> AsyncLanes:
        lanes, pid = self._lanes, getpid()
        if lanes is not None and lanes.pid == pid and lanes.loop is asyncio.get_running_loop():
            return lanes
        if lanes is not None and lanes.pid != pid:
            # Kept as they are: to close them would take the parent's sockets out of the parent's selector.
            self._inherited.append(lanes)
        self._lanes = AsyncLanes(self._pool, self._settings, self.place)
        return self._lanes

    def _text(self, error: Exception) -> str:
        return f"redis at {self.place}: {error}"


class _Idle(CacheUnavailable):
    """The server has closed the connection while nobody used it."""


async def _converse(connection: Connection, talk: Talk[T]) -> tuple[T, bool]:
    """The talk's result, and whether the connection may be used again."""
    replies: list[object] | None = None
    sound = True
    while True:
        try:
            commands = talk.send(replies)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            return end.value, sound
        if replies is not None and not connection.is_connected:
            raise Disconnected("the connection broke between two steps")  # I11: and a new one would not do
        await connection.send_packed_command(connection.pack_commands(commands), False)
        replies = [await _reply(connection) for _ in commands]
        sound = sound and not any(map(spoils, replies))


async def _reply(connection: Connection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as refused:
        return refused


async def _has_something_to_read(connection: Connection) -> bool:
    """An idle connection has nothing to read, unless it was closed."""
    look = getattr(connection, "can_read", None) or connection.can_read_destructive  # its name before redis-py 8
    try:
        return bool(await look())
    except (RedisError, OSError):
        return True
