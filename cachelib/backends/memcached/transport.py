"""Connections for threads: one round trip at a time on each, the last used first."""

from __future__ import annotations

import contextlib
import socket
import weakref
from threading import Condition
from time import monotonic

from cachelib.backends.base import ConnectionLost
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.connect import all_busy, connect, late, where
from cachelib.backends.memcached.links import Counts, instance_behind, run
from cachelib.backends.memcached.replies import Reply, ReplyReader
from cachelib.backends.memcached.settings import Address, Settings
from cachelib.backends.memcached.wire import VALUE_HEADS, VALUES_MAX
from cachelib.errors import CacheUnavailable
from cachelib.forks import forgets_on_fork
from cachelib.model import Name
from cachelib.overlap import answer, place, turn
from cachelib.proof import Seen, tell

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


class SocketLinks:
    """Links to one server, the last used first. Safe from threads and after a fork."""

    def __init__(self, address: Address, settings: Settings, counts: Counts) -> None:
        self._address = address
        self._settings = settings
        self._counts = counts
        self._epoch = 0
        self._watchers: list[Seen] = []
        self._start()
        forgets_on_fork(self)

    def _start(self) -> None:
        self._idle: list[SocketLink] = []
        # Weak: one that an interrupt lost between two lines must not count against the bound for ever.
        self._all: weakref.WeakSet[SocketLink] = weakref.WeakSet()
        self._opening = 0
        self._waiting = 0
        self._changed = Condition()

    def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        wire.check_name(name)
        return self.get_made(name)

    def get_made(self, name: Name) -> bytes | None:
        """The hit path, for names that `keys.py` made; all of it is here."""
        try:
            link = self._idle.pop()  # one step under the interpreter's lock, so no other is needed
        except IndexError:
            link = self._wait_or_open(fresh=False)
        try:
            link.send(b"mg %b k v\r\n" % name)
            data = link.receive(RECEIVE_BYTES)
            size = len(data) - len(name)
            head = b"%b%b\r\n" % (VALUE_HEADS[size], name) if size < VALUES_MAX else ()
            value = data[len(head) : -2] if data.startswith(head) else link.rest(data, name)
        except BaseException as error:  # noqa: BLE001 - an interrupted call, too, leaves replies behind
            self.drop(link, error)
            return self._get_again(name, link.failed(error) if isinstance(error, OSError) else error)
        if link.epoch == self._epoch and not self._waiting:
            self._idle.append(link)
        else:
            self.give_back(link)
        return value

    def _get_again(self, name: Name, failed: BaseException) -> bytes | None:
        """The server may have restarted while the link lay idle: nothing changes by asking once more."""
        if not isinstance(failed, ConnectionLost):
            raise failed
        self._counts.add("reconnected")
        link = self._wait_or_open(fresh=True)
        try:
            value = link.value(name, wire.value_request(name))
        except BaseException as error:  # as above
            self.drop(link, error)
            raise
        self.give_back(link)
        return value

    async def take(self, *, fresh: bool = False) -> SocketLink:
        """See `Links.take`."""
        if not fresh:
            with contextlib.suppress(IndexError):
                return self._idle.pop()
        await (place() if self._full else turn())
        return self._wait_or_open(fresh=fresh)

    @property
    def _full(self) -> bool:
        """All connections that may be are there. As seen without a lock: who is wrong waits, within the bound."""
        return len(self._all) + self._opening >= self._settings.connections_max

    def give_back(self, link: SocketLink) -> None:
        """See `Links.give_back`."""
        if link.epoch == self._epoch:
            self._idle.append(link)
        else:
            self._discard(link)
        # A waiter counts itself first and looks at the list then: one of us sees the other.
        if self._waiting:
            self._wake()

    def drop(self, link: SocketLink, error: BaseException) -> None:
        """See `Links.drop`."""
        self._discard(link)

    def _discard(self, link: SocketLink) -> None:
        link.close()
        with self._changed:
            self._all.discard(link)
            self._changed.notify()

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._watchers.append(seen)  # several caches may share a backend
        self.close()

    def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        self._epoch += 1
        with contextlib.suppress(IndexError):
            while True:
                self._discard(self._idle.pop())

    def forget(self) -> None:
        """In a child after a fork: the connections, and locks in whatever state, are the parent's."""
        for link in self._all:
            link.close()
        self._counts.forget_lock()
        self._epoch += 1
        self._start()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    # --- opening -----------------------------------------------------------------------------

    def _wait_or_open(self, *, fresh: bool) -> SocketLink:
        link = self._idle_or_leave_to_open(fresh=fresh)
        if link is not None:
            return link
        try:
            link = self._open()
        finally:
            with self._changed:
                self._opening -= 1
                if link is not None:
                    self._all.add(link)
                else:
                    self._changed.notify()
        return link

    def _idle_or_leave_to_open(self, *, fresh: bool) -> SocketLink | None:
        until = monotonic() + self._settings.timeout_s
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    while (link := self._pop()) is not None:
                        if not fresh:
                            return link
                        link.close()  # where one was dead, so may be the others
                        self._all.discard(link)
                    if len(self._all) + self._opening < self._settings.connections_max:
                        self._opening += 1
                        return None
                    left_s = until - monotonic()
                    if left_s <= 0 or not self._changed.wait(left_s):
                        raise all_busy(self._address, self._settings)
            finally:
                self._waiting -= 1

    def _pop(self) -> SocketLink | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _open(self) -> SocketLink:
        connected = connect(self._address, self._settings)
        link = SocketLink(connected, self._address, self._settings.timeout_s, self._epoch)
        if not self._watchers:
            return link
        try:
            instance = run(instance_behind(link))
            if tell(self._watchers, instance):
                self.close()
                link.epoch = self._epoch
        except BaseException:
            link.close()
            raise
        return link
