"""Connections by redis-py's public methods alone, where a version of it keeps its socket elsewhere than is known.

`link.py` and `aio_transport.py` take over the socket that redis-py has opened. Where that is (`Connection._sock`,
`._writer`) is no promise of redis-py's, so it is looked at each time. If it is not there, these stand in its place:
as right, and some three times as slow.
"""

from __future__ import annotations

import asyncio
import socket
import warnings
from contextlib import suppress
from typing import Any

import redis
from hiredis import ProtocolError as Garbled
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from cachelib.backends.base import ConnectionLost
from cachelib.backends.multiplexed import Multiplexed
from cachelib.errors import CacheUnavailable, ProtocolError

SOCKET, WRITER = "_sock", "_writer"
"""Attributes of redis-py's connections for threads and for asyncio."""

_REPLIES = (ResponseError, BusyLoadingError, AuthenticationError)
"""What a server answers, and redis-py raises."""

_told: set[str] = set()


def socket_of(connection: Any) -> socket.socket | None:
    """The socket of a connection for threads that is open; None where it is not found."""
    found = getattr(connection, SOCKET, None)
    if isinstance(found, socket.socket):
        return found
    _tell(SOCKET)
    return None


def writer_of(connection: Any) -> asyncio.StreamWriter | None:
    """The stream of a connection for asyncio that is open; None where it is not found."""
    found = getattr(connection, WRITER, None)
    if isinstance(found, asyncio.StreamWriter):
        return found
    _tell(WRITER)
    return None


def _tell(missing: str) -> None:
    if missing not in _told:
        _told.add(missing)
        warnings.warn(
            f"redis-py {redis.__version__} has no {missing} where this version of leasecache looks for it, so Redis is"
            " asked by its public methods: that is right, but several times slower; use an older redis-py, or a newer"
            " leasecache",
            RuntimeWarning,
            stacklevel=2,
        )


class Spoken:
    """A connection for threads, with the methods of a socket and of a reader as `Link` uses them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, request: bytes) -> None:
        """As `socket.sendall`."""
        try:
            self._connection.send_packed_command([request], check_health=False)
        except RedisError as error:
            raise _as_sockets(error) from error

    def receive(self, _bytes: int) -> bytes:
        """As `socket.recv`: there may be something; `gets` waits for it."""
        return b"?"

    def feed(self, _data: bytes) -> None:
        """As `Reader.feed`: redis-py has fed its own."""

    def gets(self) -> object:
        """As `Reader.gets`, but it waits."""
        try:
            return self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
        except _REPLIES as reply:
            return reply
        except RedisError as error:
            raise _as_sockets(error) from error

    def has_rest(self, _timeout_ms: int = 0) -> bool:
        """As `Reader.has_data` and `poll`: more came than was asked for, or the end."""
        try:
            return bool(self._connection.can_read(timeout=0))
        except (RedisError, OSError):
            return True


def _as_sockets(error: RedisError) -> Exception:
    if isinstance(error, RedisTimeout):
        return TimeoutError(str(error))
    return Garbled(str(error)) if isinstance(error, InvalidResponse) else ConnectionResetError(str(error))


class SpokenStream(asyncio.Transport):
    """A connection for asyncio as the transport of a `Multiplexed`, which is given replies instead of bytes.

    One task writes what was asked, and reads as many replies as are owed for it.
    """

    def __init__(self, connection: Any, line: Multiplexed[object]) -> None:
        super().__init__()
        self._connection = connection
        self._line = line
        self._out: list[bytes] = []
        self._owed = 0
        """Replies to what was written, and to nothing that is still to be written: that may be waited for in vain."""
        self._pump: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None

    def write(self, data: Any) -> None:
        """See `asyncio.Transport`."""
        self._out.append(data)
        self._owed = self._line.owed
        if self._pump is None and self._end is None:
            self._pump = self._line.loop.create_task(self._run())

    async def _run(self) -> None:
        connection = self._connection
        can_read = getattr(connection, "can_read", None) or connection.can_read_destructive  # its name before 8.0
        try:
            if await can_read():  # I12: to whom would it be a reply?
                raise InvalidResponse("something that nobody asked for, or the end")
            while self._owed:
                out, self._out = self._out, []
                if out:
                    await connection.send_packed_command(b"".join(out), check_health=False)
                reply = await self._reply()
                self._owed -= 1
                self._line.data_received(reply)  # type: ignore[arg-type]  # see the class
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing over it can be believed any more
            self._line.end(self._as_ours(error))
        finally:
            self._pump = None

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
        except _REPLIES as reply:
            return reply

    def _as_ours(self, error: Exception) -> CacheUnavailable:
        place = self._line.place
        if isinstance(error, RedisTimeout | TimeoutError):
            return CacheUnavailable(f"{place} did not answer in time")
        if isinstance(error, InvalidResponse):
            return ProtocolError(f"{place} sent no RESP, or more than was asked for ({error})")
        return ConnectionLost(f"the connection to {place} broke: {error}")

    def abort(self) -> None:
        """See `asyncio.Transport`."""
        if self._end is None:
            if self._pump is not None:
                self._pump.cancel()
            self._end = self._line.loop.create_task(self._close())

    async def _close(self) -> None:
        with suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)
        self._line.connection_lost(None)
