"""One connection for threads, used by one caller at a time."""

from __future__ import annotations

import contextlib
import socket
from time import monotonic

from cachelib.backends.base import ConnectionLost
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.connect import late, where
from cachelib.backends.memcached.replies import Reply, ReplyReader
from cachelib.backends.memcached.settings import Address
from cachelib.errors import CacheUnavailable
from cachelib.model import Name
from cachelib.overlap import answer

RECEIVE_BYTES = 65536


class SocketLink:
    """One connection. Its coroutines suspend only where an answer is on its way."""

    __slots__ = ("__weakref__", "_address", "_socket", "_timeout_s", "epoch", "receive", "send")

    def __init__(self, connected: socket.socket, address: Address, timeout_s: float, epoch: int) -> None:
        self._socket = connected
        self.send = connected.sendall
        """The socket's own, as is `receive`: for whoever wants nothing in between, and takes `failed` for an error."""
        self.receive = connected.recv
        self._address = address
        self._timeout_s = timeout_s
        self.epoch = epoch
        """Which opening of the pool it belongs to."""

    def value(self, name: Name, request: bytes) -> bytes | None:
        """The hit path: ask for one value."""
        try:
            self.send(request)
            data = self.receive(RECEIVE_BYTES)
        except OSError as error:
            raise self.failed(error) from error
        return self.rest(data, name)

    def rest(self, data: bytes, name: Name) -> bytes | None:
        """The value whose reply begins with what was received, however long it is."""
        return wire.value(self._rest(data, 1)[0], name)

    async def roundtrip(self, request: bytes, replies: int) -> list[Reply]:
        """See `Link.roundtrip`."""
        reader, until = ReplyReader(replies), monotonic() + self._timeout_s
        try:
            self.send(request)
            await answer(self._socket, self._timeout_s)
            while not self._has_all(self.receive(max(RECEIVE_BYTES, reader.missing)), reader, until):
                await answer(self._socket, self._timeout_s)
        except OSError as error:
            raise self.failed(error) from error
        return reader.replies

    def close(self) -> None:
        """Close our end; a connection that a fork shares stays open in the parent."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _rest(self, data: bytes, replies: int) -> list[Reply]:
        reader, until = ReplyReader(replies), monotonic() + self._timeout_s
        try:
            while not self._has_all(data, reader, until):
                data = self.receive(max(RECEIVE_BYTES, reader.missing))
        except OSError as error:
            raise self.failed(error) from error
        return reader.replies

    def _has_all(self, data: bytes, reader: ReplyReader, until: float) -> bool:
        if not data:
            raise ConnectionLost(f"memcached at {where(self._address)} closed the connection")
        if reader.whole(data):
            return True
        if monotonic() > until:  # it still sends, but too slowly
            raise late(self._address, self._timeout_s)
        return False

    def failed(self, error: OSError) -> CacheUnavailable:
        """What an error of the socket means."""
        if isinstance(error, TimeoutError | BlockingIOError):  # by Python's clock, by the kernel's
            return late(self._address, self._timeout_s)
        return ConnectionLost(f"the connection to memcached at {where(self._address)} broke: {error}")
