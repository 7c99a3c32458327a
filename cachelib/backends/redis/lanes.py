"""The connections of one process to one Redis: a list of free ones (append and pop are atomic), the last used first.

redis-py's pool makes them, but is not used otherwise: its checkout (a poll, locks, events) costs twice what the round
trip does.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from threading import Condition
from typing import TypeAlias

from redis.connection import ConnectionPool

from cachelib.backends.redis.link import Link
from cachelib.backends.redis.settings import Settings
from cachelib.errors import CacheUnavailable

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
