"""Talks over connections for threads: a list of free ones (append and pop are atomic), the last used first.

redis-py's pool makes them, but is not used otherwise: its checkout (a poll, locks, events) costs
twice what the round trip does. The reading of a value is written out (`get`): it is what nearly
every call is.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from threading import Condition
from typing import Any, TypeAlias, TypeVar

from hiredis import pack_command
from redis.connection import ConnectionPool

from cachelib.backends.base import ConnectionLost
from cachelib.backends.redis.conversation import converse, conversing
from cachelib.backends.redis.link import RECEIVE_BYTES, Late, Link
from cachelib.backends.redis.settings import Settings, place_of, pool_of
from cachelib.backends.redis.shapes import GET_HEADS, VALUE_HEADS, VALUES_MAX
from cachelib.backends.redis.talks import Talk, plain
from cachelib.errors import CacheUnavailable
from cachelib.forks import forgets_on_fork
from cachelib.model import Name
from cachelib.overlap import place, turn
from cachelib.proof import Seen, tell

T = TypeVar("T")
_JOIN = b"".join
Greet: TypeAlias = Callable[[Link], None]
"""Told of a connection that was just made, before it is used."""


class Lanes:
    """The connections of one process, between `close` and `close`: the free ones, and how many there are."""

    def __init__(self, pool: ConnectionPool, settings: Settings, place: str, greet: Greet | None) -> None:
        self.free: list[Link] = []
        self.busy = False
        """Somebody waits for a connection, or these lanes are closed: `settle` after giving one back."""
        self._pool, self._settings, self._place, self._greet = pool, settings, place, greet
        self._open = self._waiting = 0
        self._closed = False
        self._changed = Condition()
        # Weak: one that an interrupt lost between two lines is closed by its end.
        self._all: weakref.WeakSet[Link] = weakref.WeakSet()

    def take(self) -> Link:
        """A connection that nobody uses: the one used last, or a new one. Waits for at most `wait_ms`."""
        try:
            return self.free.pop()
        except IndexError:
            pass
        deadline = time.monotonic() + self._settings.wait_ms / 1000
        with self._changed:
            while True:
                if self.free:
                    return self.free.pop()
                if self._open < self._settings.connections_max:
                    self._open += 1
                    return self._made()
                self._wait(deadline)

    def take_live(self) -> Link:
        """As `take`, but none that the server has closed while it was idle: for what must not be sent twice."""
        return self.idle() or self.take()

    def idle(self) -> Link | None:
        """The one used last that is free and was not closed; None: to get one may take its time."""
        while True:
            try:
                link = self.free.pop()
            except IndexError:
                return None
            if not link.has_something_to_read():
                return link
            self.drop(link)

    @property
    def full(self) -> bool:
        """All connections that may be are there. As seen without a lock: who is wrong waits, within the bound."""
        return self._open >= self._settings.connections_max

    def settle(self) -> None:
        """See `busy`."""
        with self._changed:
            if self._closed:
                self._disconnect_free()
            self._changed.notify()

    def give(self, link: Link) -> None:
        """Back among the free ones."""
        self.free.append(link)
        if self.busy:
            self.settle()

    def drop(self, link: Link) -> None:
        """Close it: a reply may be under way that belongs to nobody."""
        with self._changed:
            self._open -= 1
            self._changed.notify()
        link.disconnect()

    def close(self) -> None:
        """Close the free ones now, and the others when they are given back."""
        with self._changed:
            self._closed = self.busy = True
            self._disconnect_free()

    def _made(self) -> Link:
        try:
            link = Link(self._pool, self._place, self._greet)
        except BaseException:
            self._open -= 1
            raise
        self._all.add(link)
        return link

    def _wait(self, deadline: float) -> None:
        # Whoever gives back appends first and looks at `busy` then; we the other way round: one of us sees the other.
        self._waiting += 1
        self.busy = True
        try:
            if not self.free and not self._changed.wait(deadline - time.monotonic()):
                raise CacheUnavailable(
                    f"{self._place}: all {self._settings.connections_max} connections were in use "
                    f"for {self._settings.wait_ms} ms; raise connections_max, or wait_ms"
                )
        finally:
            self._waiting -= 1
            self.busy = self._waiting > 0 or self._closed

    def forget(self) -> None:
        """In a child after a fork: the parent goes on using its sockets, so our copies are closed and no more."""
        for link in self._all:
            link.disconnect()

    def _disconnect_free(self) -> None:
        while self.free:
            self.free.pop().disconnect()
            self._open -= 1


class Transport:
    """Carries talks to one server."""

    def __init__(self, url: str, settings: Settings, options: dict[str, Any]) -> None:
        self._pool = pool_of(ConnectionPool, url, settings, options)
        self._settings = settings
        self.pool = self._pool
        """redis-py's, which makes the connections."""
        self.place = f"redis at {place_of(self._pool.connection_kwargs)}"
        self._ask: Callable[[], Talk[str]] | None = None
        self._watchers: list[Seen] = []
        self._lanes = self._new_lanes()
        forgets_on_fork(self)

    def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`: one round trip, and as little else as can be."""
        lanes = self._lanes
        try:
            request = _JOIN((GET_HEADS[len(name)], name, b"\r\n"))
            link = lanes.free.pop()
        except IndexError:  # no such head, or no free connection
            return self._get(lanes, lanes.take(), name)
        try:
            link.send(request)
            data = link.receive(RECEIVE_BYTES)
            head = VALUE_HEADS[len(data)] if len(data) < VALUES_MAX else ()
            raw = data[len(head) : -2] if data.startswith(head) else plain(link.reply(data))
        except BaseException as error:  # noqa: BLE001 - an interrupted call, too, leaves a reply behind
            lanes.drop(link)
            return self._get_again(lanes, name, link.failed(error) if isinstance(error, OSError) else error)
        lanes.free.append(link)
        if lanes.busy:
            lanes.settle()
        return raw

    def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end, on one connection."""
        lanes = self._lanes
        link = lanes.take_live()
        try:
            value, sound = converse(link, talk)
        except BaseException:  # an interrupted call, too, leaves replies behind
            lanes.drop(link)
            raise
        if sound:
            lanes.give(link)
        else:
            lanes.drop(link)
        return value

    async def conversing(self, talk: Talk[T]) -> T:
        """`converse`, beside other conversations of this thread (`overlap.py`)."""
        lanes = self._lanes
        link = lanes.idle()
        if link is None:
            await (place() if lanes.full else turn())
            link = lanes.take_live()
        try:
            value, sound = await conversing(link, talk)
        except BaseException:
            lanes.drop(link)
            raise
        if sound:
            lanes.give(link)
        else:
            lanes.drop(link)
        return value

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Backend.watch`; `ask` is the talk that finds out."""
        self._ask = ask
        self._watchers.append(seen)  # several caches may share a backend
        self.close()

    def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        lanes, self._lanes = self._lanes, self._new_lanes()
        lanes.close()

    def forget(self) -> None:
        """In a child after a fork."""
        lanes, self._lanes = self._lanes, self._new_lanes()
        lanes.forget()

    # --- how -----------------------------------------------------------------------------------

    def _get_again(self, lanes: Lanes, name: Name, failed: BaseException) -> bytes | None:
        """After a `get` that failed on a connection that was free."""
        if not isinstance(failed, ConnectionLost):
            raise failed
        # The server closed it while it was idle. Reading twice is harmless; a new one tells how things are.
        return self._get(lanes, self._new_connection(lanes), name)

    def _get(self, lanes: Lanes, link: Link, name: Name) -> bytes | None:
        """`get` over a connection that was chosen before."""
        try:
            raw = plain(link.one(_request(name)))
        except BaseException:
            lanes.drop(link)
            raise
        lanes.give(link)
        return raw

    def _new_connection(self, lanes: Lanes) -> Link:
        """One that has no past: those that are free broke, most likely, when this one did."""
        link = lanes.take()
        link.disconnect()
        return link

    def _new_lanes(self) -> Lanes:
        return Lanes(self._pool, self._settings, self.place, self._greet if self._watchers else None)

    def _greet(self, link: Link) -> None:
        """A connection has just been made."""
        assert self._ask is not None
        try:
            instance, _ = converse(link, self._ask())
        except (ConnectionLost, Late):
            raise
        except CacheUnavailable:  # it may not be asked: then nothing is known of it
            instance = ""
        if tell(self._watchers, instance):
            self.close()


def _request(name: Name) -> bytes:
    packed: bytes = pack_command((b"GET", name))  # type: ignore[arg-type]
    return packed
