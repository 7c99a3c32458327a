"""Talks over connections for threads. The reading of a value is written out (`get`): nearly every call is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hiredis import pack_command
from redis.connection import ConnectionPool

from cachelib.backends.base import ConnectionLost
from cachelib.backends.redis.conversation import converse, conversing
from cachelib.backends.redis.lanes import Lanes
from cachelib.backends.redis.link import RECEIVE_BYTES, Late, Link
from cachelib.backends.redis.settings import Settings, place_of, pool_of
from cachelib.backends.redis.shapes import GET_HEADS, VALUE_HEADS, VALUES_MAX
from cachelib.backends.redis.talks import Talk, plain, strings
from cachelib.errors import CacheUnavailable
from cachelib.forks import forgets_on_fork
from cachelib.model import Name
from cachelib.overlap import place, turn
from cachelib.proof import Seen, tell

T = TypeVar("T")
_JOIN = b"".join


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
        self.rack = self._new_lanes()
        """See `Wire.rack`."""
        forgets_on_fork(self)

    # How one value is asked for and comes, see `Wire`.
    behind, opening, closing, names = b"\r\n", b"$", b"", False

    def before(self, length: int) -> bytes:
        """See `Wire.before`."""
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n" % length

    def get(self, name: Name) -> bytes | None:
        """The bytes kept for `name`: one round trip, and as little else as can be."""
        lanes = self.rack
        try:
            request = _JOIN((GET_HEADS[len(name)], name, b"\r\n"))
            link = lanes.free.pop()
        except IndexError:  # no such head, or no free connection
            return self._get(lanes, lanes.take(), name)
        try:
            link.send(request)
            data = link.receive(RECEIVE_BYTES)
            head = VALUE_HEADS[len(data)] if len(data) < VALUES_MAX else ()
            whole = data.startswith(head) and data.endswith(b"\r\n")
        except BaseException as error:  # noqa: BLE001 - an interrupted call, too, leaves a reply behind
            return self.again(lanes, link, name, error)
        if not whole:
            return self.rest(lanes, link, name, data)
        lanes.free.append(link)
        if lanes.busy:
            lanes.settle()
        return data[len(head) : -2]

    def rest(self, rack: Lanes, link: Link, name: Name, data: bytes) -> bytes | None:
        """See `Wire.rest`."""
        try:
            raw = plain(link.reply(data))
        except BaseException as error:  # noqa: BLE001 - as above
            return self.again(rack, link, name, error)
        rack.give(link)
        return raw

    def again(self, rack: Lanes, link: Link, name: Name, error: BaseException) -> bytes | None:
        """See `Wire.again`."""
        rack.drop(link)
        failed = link.failed(error) if isinstance(error, OSError) else error
        if not isinstance(failed, ConnectionLost):
            raise failed
        # The server closed it while it was idle. Reading twice is harmless; a new one tells how things are.
        return self._get(rack, self._new_connection(rack), name)

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """`get` for at least one name, all in one round trip."""
        lanes, request, count = self.rack, _packed(b"MGET", *names), len(names)
        try:
            return self._strings(lanes, lanes.take(), request, count)
        except ConnectionLost:  # see `again`
            return self._strings(lanes, self._new_connection(lanes), request, count)

    def _strings(self, lanes: Lanes, link: Link, request: bytes, count: int) -> list[bytes | None]:
        try:
            found = strings(link.one(request), count)
        except BaseException:
            lanes.drop(link)
            raise
        lanes.give(link)
        return found

    def converse(self, talk: Talk[T]) -> T:
        """Drive a talk to its end, on one connection."""
        lanes = self.rack
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
        lanes = self.rack
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
        lanes, self.rack = self.rack, self._new_lanes()
        lanes.close()

    def forget(self) -> None:
        """In a child after a fork."""
        lanes, self.rack = self.rack, self._new_lanes()
        lanes.forget()

    # --- how -----------------------------------------------------------------------------------

    def _get(self, lanes: Lanes, link: Link, name: Name) -> bytes | None:
        """`get` over a connection that was chosen before."""
        try:
            raw = plain(link.one(_packed(b"GET", name)))
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


def _packed(*command: bytes) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]
    return packed
