"""Talks over one connection for each event loop, shared by all of its tasks.

redis-py connects (so TLS, AUTH, Unix sockets and timeouts are the library's); from then on the
socket is ours: its own reading and writing is one caller's at a time. See `multiplexed.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from redis.asyncio.connection import ConnectionPool
from redis.connection import DefaultParser
from redis.exceptions import RedisError

from cachelib.backends.base import ConnectionLost
from cachelib.backends.multiplexed import Multiplexed
from cachelib.backends.per_loop import PerLoop
from cachelib.backends.redis.public_way import SpokenStream, writer_of
from cachelib.backends.redis.sentinels import leave_sentinels
from cachelib.backends.redis.settings import Settings, place_of, pool_of
from cachelib.backends.redis.talks import Talk, plain, spoils
from cachelib.errors import CacheUnavailable, MissingExtra, ProtocolError
from cachelib.model import Name
from cachelib.proof import Seen

try:
    from hiredis import ProtocolError as Garbled
    from hiredis import Reader, pack_command
except ImportError as cause:
    raise MissingExtra("the async redis backend reads with hiredis: pip install 'leasecache[redis]'") from cause

T = TypeVar("T")
Line = Multiplexed[object]


class Resp:
    """RESP2, read by hiredis. See `Dialect`."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._reader = Reader(replyError=DefaultParser.parse_error)
        self.has_rest = self._reader.has_data
        """See `Dialect.has_rest`."""

    def request(self, name: Name) -> bytes:
        """See `Dialect.request`."""
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)

    def feed(self, data: bytes) -> list[object]:
        """See `Dialect.feed`."""
        gets = self._reader.gets
        replies: list[object] = []
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:  # RESP2 has no booleans
                replies.append(reply)
        except Garbled as error:
            raise ProtocolError(f"redis at {self._place} sent no RESP ({error}); the connection was dropped") from error
        return replies

    def value(self, reply: object, name: Name) -> bytes | None:
        """See `Dialect.value`."""
        return reply if reply is None or type(reply) is bytes else plain(reply)


class Replies(Resp):
    """What redis-py has read already, see `public_way.py`."""

    def feed(self, data: object) -> list[object]:
        """See `Dialect.feed`: a whole reply."""
        return [data]


class AsyncTransport:
    """Carries talks to one server, over one connection for each event loop."""

    def __init__(self, url: str, settings: Settings, options: dict[str, Any]) -> None:
        self._pool = pool_of(ConnectionPool, url, settings, options)
        self._settings = settings
        self.pool = self._pool
        """redis-py's, which makes the connections."""
        self.place = f"redis at {place_of(self._pool.connection_kwargs)}"
        self.lines: PerLoop[object] = PerLoop(self._dial, self.place, wait_ms=settings.wait_ms)

    async def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`. As reading twice is harmless, a connection that broke is replaced once."""
        line = self.lines.now() or await self.lines.ready()
        try:
            return await line.ask_value(name)
        except ConnectionLost:
            return await (await self.lines.ready()).ask_value(name)

    async def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end, on one connection."""
        return await _converse(self.lines.now() or await self.lines.ready(), talk)

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Backend.watch`; `ask` is the talk that finds out."""

        async def start(line: Line) -> str:
            try:
                return await _converse(line, ask(), whole=False)
            except ConnectionLost:
                raise
            except CacheUnavailable:  # it may not be asked: then nothing is known of it
                return ""

        self.lines.watch(start, seen)

    async def close(self) -> None:
        """Close the running loop's connection; the next call opens a new one."""
        await self.lines.close()

    async def _dial(self) -> Line:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._settings.connect_timeout_ms / 1000):
                await connection.connect()
        except (RedisError, OSError) as error:  # TimeoutError is one
            await connection.disconnect(nowait=True)
            raise CacheUnavailable(f"{self.place}: {str(error) or 'no connection in time'}") from error
        except BaseException:  # a cancellation, too
            await connection.disconnect(nowait=True)
            raise
        finally:
            await leave_sentinels(self._pool)
        return self._taken_over(connection)

    def _taken_over(self, connection: Any) -> Line:
        """The connection's socket under a protocol of ours, after redis-py has shaken hands."""
        writer = writer_of(connection)
        line = Line(
            Resp(self.place) if writer is not None else Replies(self.place),
            self.place,
            timeout_s=self._settings.timeout_ms / 1000,
            in_flight_max=self._settings.in_flight_max,
        )
        if writer is None:
            line.connection_made(SpokenStream(connection, line))
            return line
        line.over = writer  # a stream writer that goes closes its transport
        writer.transport.set_protocol(line)
        line.connection_made(writer.transport)
        connection._reader = connection._writer = None
        return line


async def _converse(line: Line, talk: Talk[T], *, whole: bool = True) -> T:
    """`whole`: after a refusal the connection is not asked anything more."""
    replies: list[object] | None = None
    try:
        while True:
            try:
                commands = talk.send(replies)  # type: ignore[arg-type]  # None starts it
            except StopIteration as end:
                value: T = end.value
                return value
            # I11: on this connection or none: one that broke answers nothing any more.
            request = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
            replies = await line.ask(request, len(commands))
            if whole and any(map(spoils, replies)):
                line.retire()
    except ProtocolError as error:
        line.end(error)  # I12: nor is anything else to be believed that comes over it
        raise
