"""Talks over redis-py's connections, for threads.

The connections are made by redis-py's pool, so TLS, AUTH, Unix sockets and timeouts are the
library's; the pool itself is not used: its checkout (a poll, locks, events) costs twice what the
round trip does. Ours is a list: append and pop are atomic.

The reading of a value is written out (`get`): it is what nearly every call is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from os import getpid
from threading import Condition
from typing import Any, TypeVar

from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError, ResponseError

from cachelib.backends.redis.settings import Settings, place_of, pool_of
from cachelib.backends.redis.talks import Talk, plain, spoils
from cachelib.errors import CacheUnavailable
from cachelib.model import Name
from cachelib.proof import Seen, tell

T = TypeVar("T")
Connection = Any
"""One of redis-py's connection classes; they share a protocol, but no type."""
Greet = Callable[[Connection], None]
"""A method (redis-py keeps it weakly) that is told of a connection before it is used."""


class Lanes:
    """The connections of one process, between `close` and `close`: the free ones, and how many there are."""

    def __init__(self, pool: ConnectionPool, settings: Settings, place: str, greet: Greet | None) -> None:
        self.free: list[Connection] = []
        self.pid = getpid()
        self.busy = False
        """Somebody waits for a connection, or these lanes are closed: `settle` after giving one back."""
        self._pool, self._settings, self._place, self._greet = pool, settings, place, greet
        self._open = self._waiting = 0
        self._closed = False
        self._changed = Condition()

    def take(self) -> Connection:
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

    def take_live(self) -> Connection:
        """As `take`, but none that the server has closed while it was idle: for what must not be sent twice."""
        while True:
            try:
                connection = self.free.pop()
            except IndexError:
                return self.take()
            if not _has_something_to_read(connection):
                return connection
            self.drop(connection)

    def settle(self) -> None:
        """See `busy`."""
        with self._changed:
            if self._closed:
                self._disconnect_free()
            self._changed.notify()

    def give(self, connection: Connection) -> None:
        """Back among the free ones."""
        self.free.append(connection)
        if self.busy:
            self.settle()

    def drop(self, connection: Connection) -> None:
        """Close it: a reply may be under way that belongs to nobody."""
        with self._changed:
            self._open -= 1
            self._changed.notify()
        connection.disconnect()

    def close(self) -> None:
        """Close the free ones now, and the others when they are given back."""
        with self._changed:
            self._closed = self.busy = True
            self._disconnect_free()

    def _made(self) -> Connection:
        try:
            connection = self._pool.make_connection()
        except BaseException:
            self._open -= 1
            raise
        if self._greet is not None:
            connection.register_connect_callback(self._greet)  # type: ignore[no-untyped-call]
        return connection

    def _wait(self, deadline: float) -> None:
        # Whoever gives back appends first and looks at `busy` then; we the other way round: one of us sees the other.
        self._waiting += 1
        self.busy = True
        try:
            if not self.free and not self._changed.wait(deadline - time.monotonic()):
                raise CacheUnavailable(
                    f"redis at {self._place}: all {self._settings.connections_max} connections were in use "
                    f"for {self._settings.wait_ms} ms; raise connections_max, or wait_ms"
                )
        finally:
            self._waiting -= 1
            self.busy = self._waiting > 0 or self._closed

    def _disconnect_free(self) -> None:
        while self.free:
            self.free.pop().disconnect()
            self._open -= 1


class Transport:
    """Carries talks to one server."""

    def __init__(self, url: str, settings: Settings, options: dict[str, Any]) -> None:
        self._pool = pool_of(ConnectionPool, url, settings, options)
        self._settings = settings
        self.place = place_of(self._pool.connection_kwargs)
        self._ask: Callable[[], Talk[str]] | None = None
        self._watchers: list[Seen] = []
        self._lanes = self._new_lanes()

    def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`: one round trip, and as little else as can be."""
        lanes = self._lanes
        if lanes.pid != getpid():
            lanes = self._after_fork()
        try:
            connection = lanes.free.pop()
        except IndexError:
            return self._get(lanes, lanes.take(), name)
        try:
            connection.send_packed_command((b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name),), False)
            raw = connection.read_response()
        except Disconnected:
            # The server closed it while it was idle. Reading twice is harmless; a new one tells how things are.
            lanes.drop(connection)
            return self._get(lanes, self._new_connection(lanes), name)
        except (RedisError, OSError) as error:
            lanes.drop(connection)
            raise self._unavailable(error) from error
        except BaseException:
            lanes.drop(connection)
            raise
        lanes.free.append(connection)
        if lanes.busy:
            lanes.settle()
        return raw if raw is None or type(raw) is bytes else plain(raw)

    def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end, on one connection."""
        lanes = self._lanes
        if lanes.pid != getpid():
            lanes = self._after_fork()
        connection = lanes.take_live()
        try:
            value, sound = _converse(connection, talk)
        except (RedisError, OSError) as error:
            lanes.drop(connection)
            raise self._unavailable(error) from error
        except BaseException:
            lanes.drop(connection)
            raise
        if sound:
            lanes.give(connection)
        else:
            lanes.drop(connection)
        return value

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Backend.watch`; `ask` is the talk that finds out."""
        self._ask = ask
        self._watchers.append(seen)  # several caches may share a backend
        self.close()

    def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        lanes, self._lanes = self._lanes, self._new_lanes()
        if lanes.pid == getpid():
            lanes.close()

    # --- how -----------------------------------------------------------------------------------

    def _get(self, lanes: Lanes, connection: Connection, name: Name) -> bytes | None:
        """`get` over a connection that was chosen before."""
        try:
            connection.send_packed_command(connection.pack_command(b"GET", name), False)
            raw = connection.read_response()
        except (RedisError, OSError) as error:
            lanes.drop(connection)
            raise self._unavailable(error) from error
        except BaseException:
            lanes.drop(connection)
            raise
        lanes.give(connection)
        return plain(raw)

    def _new_connection(self, lanes: Lanes) -> Connection:
        """One that has no past: those that are free broke, most likely, when this one did."""
        connection = lanes.take()
        connection.disconnect()
        return connection

    def _new_lanes(self) -> Lanes:
        return Lanes(self._pool, self._settings, self.place, self._greet if self._watchers else None)

    def _greet(self, connection: Connection) -> None:
        """A connection has just been made."""
        assert self._ask is not None
        try:
            instance, _ = _converse(connection, self._ask())
        except CacheUnavailable:  # it may not be asked: then nothing is known of it
            instance = ""
        if tell(self._watchers, instance):
            self.close()

    def _after_fork(self) -> Lanes:
        # The parent goes on using its sockets: redis-py closes our copies without shutting them down.
        self._lanes = self._new_lanes()
        return self._lanes

    def _unavailable(self, error: Exception) -> CacheUnavailable:
        return CacheUnavailable(f"redis at {self.place}: {error}")


def _converse(connection: Connection, talk: Talk[T]) -> tuple[T, bool]:
    """The talk's result, and whether the connection may be used again."""
    replies: list[object] | None = None
    sound = True
    while True:
        try:
            commands = talk.send(replies)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            return end.value, sound
        # redis-py disconnects by raising, so we are not here then; before 8 it does not tell.
        if replies is not None and not getattr(connection, "is_connected", True):
            raise Disconnected("the connection broke between two steps")  # I11: and a new one would not do
        connection.send_packed_command(connection.pack_commands(commands), False)
        replies = [_reply(connection) for _ in commands]
        sound = sound and not any(map(spoils, replies))


def _reply(connection: Connection) -> object:
    try:
        return connection.read_response()
    except ResponseError as refused:
        return refused


def _has_something_to_read(connection: Connection) -> bool:
    """An idle connection has nothing to read, unless it was closed."""
    try:
        return bool(connection.can_read(0))
    except (RedisError, OSError):
        return True
