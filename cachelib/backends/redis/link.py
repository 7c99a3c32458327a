"""One connection for threads, used by one caller at a time.

redis-py opens it (TLS, AUTH, Unix sockets, timeouts, its handshake); from then on the socket is
ours, with hiredis to read: around a round trip of a read redis-py's own sending and receiving takes
three times as long. What was measured is in tests/bench/RESULTS.md.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from redis.connection import ConnectionPool, DefaultParser
from redis.exceptions import RedisError

from cachelib.backends.base import ConnectionLost
from cachelib.backends.redis.public_way import Spoken, socket_of
from cachelib.errors import CacheUnavailable, MissingExtra, ProtocolError
from cachelib.overlap import answer

try:
    from hiredis import ProtocolError as Garbled
    from hiredis import Reader
except ImportError as cause:
    raise MissingExtra("the redis backend reads with hiredis: pip install 'leasecache[redis]'") from cause

RECEIVE_BYTES = 65536


class Late(CacheUnavailable):
    """The server did not answer in time."""


class Link:
    """See the module. Connects when first asked. After any error it must be closed: a reply may be under way."""

    __slots__ = (
        *("__weakref__", "_connection", "_greet", "_place", "_slow", "_socket"),
        *("_feed", "_gets", "_has_rest", "_poll", "receive", "send"),
    )

    def __init__(self, pool: ConnectionPool, place: str, greet: Callable[[Link], None] | None = None) -> None:
        self._connection: Any = pool.make_connection()
        self._place = place
        self._greet = greet
        """Told of the connection when it was made, before it is used."""
        self._socket: socket.socket | None = None
        self._slow = False
        """There is no socket to be found, see `public_way.py`."""
        self.receive: Callable[[int], bytes]
        self._feed: Callable[[bytes], Any]
        self._gets: Callable[[], Any]
        self._has_rest: Callable[[], bool]
        self._poll: Callable[[int], Any]
        self.send: Callable[[bytes], Any]
        """The socket's own, as is `receive`: for whoever wants nothing in between, and takes `failed` for an error."""
        self._forget()

    def one(self, request: bytes) -> object:
        """Ask what has one reply; an error reply is an exception as its value."""
        (reply,) = self.many(request, 1)
        return reply

    def reply(self, data: bytes) -> object:
        """The one reply that begins with what was received, however long it is."""
        try:
            found = self._rest(data)
        except (OSError, Garbled) as error:
            raise self.failed(error) from error
        self._nothing_behind()
        return found

    def many(self, request: bytes, replies: int) -> list[object]:
        """Ask what has so many replies, at least one."""
        found = [self._first(request)]
        try:
            while len(found) < replies:
                reply = self._gets()
                found.append(reply if reply is not False else self._rest(self.receive(RECEIVE_BYTES)))
        except (OSError, Garbled) as error:
            raise self.failed(error) from error
        self._nothing_behind()
        return found

    async def answered(self, request: bytes, replies: int) -> list[object]:
        """`many`, in a conversation beside others (`overlap.py`)."""
        found: list[object] = []
        try:
            self.send(request)
            sock = self._socket
            if sock is None:
                found = [self._gets() for _ in range(replies)]
            while len(found) < replies:
                assert sock is not None
                await answer(sock, self._connection.socket_timeout)
                data = self.receive(RECEIVE_BYTES)
                if not data:
                    raise self._closed()
                self._feed(data)
                while len(found) < replies and (reply := self._gets()) is not False:
                    found.append(reply)
        except (OSError, Garbled) as error:
            raise self.failed(error) from error
        self._nothing_behind()
        return found

    def _nothing_behind(self) -> None:
        if self._has_rest():  # I12: who knows what the replies before it were replies to
            raise ProtocolError(f"{self._place} sent more than was asked for; the connection was dropped")

    def _first(self, request: bytes) -> object:
        try:
            self.send(request)
            return self._rest(self.receive(RECEIVE_BYTES))
        except (OSError, Garbled) as error:
            raise self.failed(error) from error

    def _rest(self, data: bytes) -> object:
        """Receive until a reply is whole. RESP2 has no booleans, so False is hiredis's "not yet"."""
        while data:
            self._feed(data)
            reply = self._gets()
            if reply is not False:
                return reply
            data = self.receive(RECEIVE_BYTES)
        raise self._closed()

    def _closed(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self._place} was closed by the server")

    # --- life --------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """It has a socket, as far as we know."""
        return self._slow or self._socket is not None

    def connect(self) -> None:
        """Open it, if it is not. Raises `CacheUnavailable`."""
        if self.is_connected:
            return
        connection = self._connection
        try:
            connection.connect()
        except (RedisError, OSError) as error:
            raise CacheUnavailable(f"{self._place}: {error}") from error
        sock = socket_of(connection)
        if sock is None:
            self._speak(Spoken(connection))
        else:
            self._take_over(sock)
        if self._greet is not None:
            self._greet(self)

    def _take_over(self, sock: socket.socket) -> None:
        if not isinstance(sock, ssl.SSLSocket):
            _let_the_kernel_count(sock)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._poll = poll.poll
        reader = Reader(replyError=DefaultParser.parse_error)
        self._socket = sock
        self.send, self.receive = sock.sendall, sock.recv
        self._feed, self._gets, self._has_rest = reader.feed, reader.gets, reader.has_data

    def _speak(self, spoken: Spoken) -> None:
        self._slow = True
        self.send, self.receive, self._poll = spoken.send, spoken.receive, spoken.has_rest
        self._feed, self._gets, self._has_rest = spoken.feed, spoken.gets, spoken.has_rest

    def has_something_to_read(self) -> bool:
        """An idle connection has nothing to read, unless it was closed."""
        try:
            return self.is_connected and bool(self._poll(0))
        except OSError:
            return True

    def disconnect(self) -> None:
        """Close it; asked again, it connects anew. In the child of a fork the parent's stays open."""
        self._forget()
        self._connection.disconnect()

    def _forget(self) -> None:
        self._socket, self._slow = None, False
        self.send = self._connect_and_send

    def _connect_and_send(self, request: bytes) -> None:
        self.connect()
        self.send(request)

    def failed(self, error: Exception) -> CacheUnavailable:
        """What an error of the socket or of hiredis means."""
        if isinstance(error, Garbled):
            return ProtocolError(f"{self._place} sent no RESP ({error}); the connection was dropped")
        if isinstance(error, TimeoutError | BlockingIOError):  # by Python's clock, by the kernel's
            return Late(f"{self._place} did not answer in time")
        return ConnectionLost(f"the connection to {self._place} broke: {error}")


def _let_the_kernel_count(sock: socket.socket) -> None:
    """Bound sending and receiving by socket options: Python's own timeouts cost a `poll` before each call."""
    timeout_s = sock.gettimeout()
    if timeout_s is None:
        return
    sock.settimeout(None)
    seconds, rest = divmod(timeout_s, 1)
    interval = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
