"""Connections for threads: one round trip at a time on each, the last used first."""

from __future__ import annotations

import contextlib
import weakref
from threading import Condition
from time import monotonic

from cachelib.backends.base import ConnectionLost
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.connect import all_busy, connect
from cachelib.backends.memcached.link import RECEIVE_BYTES, SocketLink
from cachelib.backends.memcached.links import Counts, instance_behind, run
from cachelib.backends.memcached.settings import Address, Settings
from cachelib.backends.memcached.wire import VALUE_HEADS, VALUES_MAX
from cachelib.forks import forgets_on_fork
from cachelib.model import Name
from cachelib.overlap import place, turn
from cachelib.proof import Seen, tell


class LinkRack:
    """The links that nobody uses, between `close` and `close`. See `Rack`."""

    __slots__ = ("_links", "busy", "closed", "epoch", "free")

    def __init__(self, links: SocketLinks, epoch: int) -> None:
        self._links = weakref.ref(links)  # else what nobody closed would wait for the collector
        self.free: list[SocketLink] = []
        self.busy = self.closed = False
        self.epoch = epoch

    def settle(self) -> None:
        """See `Rack.settle`."""
        links = self._links()
        if links is not None:
            links.settled(self)


class SocketLinks:
    """Links to one server, the last used first. Safe from threads and after a fork."""

    # How one value is asked for and comes, see `Wire`.
    behind, opening, closing, names = b" k v\r\n", b"VA ", b" k", True

    def __init__(self, address: Address, settings: Settings, counts: Counts) -> None:
        self._address = address
        self._settings = settings
        self._counts = counts
        self._watchers: list[Seen] = []
        self._start(0)
        forgets_on_fork(self)

    def _start(self, epoch: int) -> None:
        # Weak: one that an interrupt lost between two lines must not count against the bound for ever.
        self._all: weakref.WeakSet[SocketLink] = weakref.WeakSet()
        self._opening = 0
        self._waiting = 0
        self._changed = Condition()
        self.rack = LinkRack(self, epoch)
        """See `Wire.rack`."""

    def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        wire.check_name(name)
        return self.get_made(name)

    def before(self, length: int) -> bytes:
        """See `Wire.before`."""
        return b"mg "

    def get_made(self, name: Name) -> bytes | None:
        """`get`, for names that `keys.py` made."""
        try:
            link = self.rack.free.pop()  # one step under the interpreter's lock, so no other is needed
        except IndexError:
            link = self._wait_or_open(fresh=False)
        try:
            link.send(b"mg %b k v\r\n" % name)
            data = link.receive(RECEIVE_BYTES)
            size = len(data) - len(name)
            head = b"%b%b\r\n" % (VALUE_HEADS[size], name) if size < VALUES_MAX else ()
            whole = data.startswith(head) and data.endswith(b"\r\n")
        except BaseException as error:  # noqa: BLE001 - an interrupted call, too, leaves replies behind
            return self.again(self.rack, link, name, error)
        if not whole:
            return self.rest(self.rack, link, name, data)
        self.give_back(link)
        return data[len(head) : -2]

    def rest(self, rack: LinkRack, link: SocketLink, name: Name, data: bytes) -> bytes | None:
        """See `Wire.rest`."""
        try:
            value = link.rest(data, name)
        except BaseException as error:  # noqa: BLE001 - as above
            return self.again(rack, link, name, error)
        self.give_back(link)
        return value

    def again(self, rack: LinkRack, link: SocketLink, name: Name, error: BaseException) -> bytes | None:
        """See `Wire.again`."""
        self.drop(link, error)
        failed = link.failed(error) if isinstance(error, OSError) else error
        if not isinstance(failed, ConnectionLost):
            raise failed
        # The server may have restarted while the link lay idle: nothing changes by asking once more.
        self._counts.add("reconnected")
        link = self._wait_or_open(fresh=True)
        try:
            value = link.value(name, wire.value_request(name))
        except BaseException as lost:  # as above
            self.drop(link, lost)
            raise
        self.give_back(link)
        return value

    async def take(self, *, fresh: bool = False) -> SocketLink:
        """See `Links.take`."""
        if not fresh:
            with contextlib.suppress(IndexError):
                return self.rack.free.pop()
        await (place() if self._full else turn())
        return self._wait_or_open(fresh=fresh)

    @property
    def _full(self) -> bool:
        """All connections that may be are there. As seen without a lock: who is wrong waits, within the bound."""
        return len(self._all) + self._opening >= self._settings.connections_max

    def give_back(self, link: SocketLink) -> None:
        """See `Links.give_back`."""
        rack = self.rack
        if link.epoch != rack.epoch:
            self._discard(link)
            return
        rack.free.append(link)
        if rack.busy:  # who waits, or closes, says so first and looks at the list then: one of us sees the other
            rack.settle()

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
        with self._changed:
            rack, self.rack = self.rack, LinkRack(self, self.rack.epoch + 1)
            self.rack.busy = self._waiting > 0
        rack.closed = rack.busy = True
        self.settled(rack)

    def forget(self) -> None:
        """In a child after a fork: the connections, and locks in whatever state, are the parent's."""
        for link in self._all:
            link.close()
        self._counts.forget_lock()
        self._start(self.rack.epoch + 1)

    def settled(self, rack: LinkRack) -> None:
        """A link was put where somebody waits for one, or where nobody will look for it any more."""
        with contextlib.suppress(IndexError):
            while rack.closed:
                self._discard(rack.free.pop())
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
                    self.rack.busy = True
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
                self.rack.busy = self._waiting > 0

    def _pop(self) -> SocketLink | None:
        try:
            return self.rack.free.pop()
        except IndexError:
            return None

    def _open(self) -> SocketLink:
        connected = connect(self._address, self._settings)
        link = SocketLink(connected, self._address, self._settings.timeout_s, self.rack.epoch)
        if not self._watchers:
            return link
        try:
            instance = run(instance_behind(link))
            if tell(self._watchers, instance):
                self.close()
                link.epoch = self.rack.epoch
        except BaseException:
            link.close()
            raise
        return link
