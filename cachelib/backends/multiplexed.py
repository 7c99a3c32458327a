"""One connection of an event loop to a node, shared by all of its tasks.

Requests are written in the order in which they are asked, one write for all of a turn of the loop,
and each reply goes to the oldest request that still wants one. Nobody owns the connection, so:

- A caller that is cancelled leaves its place in the row behind; its replies are read and dropped.
- A reply that cannot be the oldest request's, or that nobody wants, ends the connection and every
  request on it (I12): from there on no reply could be trusted.
- A server that does not answer the oldest request in time ends it, too. No request has a timer of
  its own: a watch looks a few times per timeout how far the row has moved.

Nothing here knows a protocol; `Dialect` does. Source of the idea: the multiplexers of
StackExchange.Redis and coredis; measured in a prototype of the same shape.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from cachelib.backends.base import ConnectionLost
from cachelib.errors import CacheUnavailable, ProtocolError
from cachelib.model import Name

R = TypeVar("R")

WATCHES = 4
"""The watch looks so often within one timeout: a request is late after 1 to 1.25 timeouts."""


class Dialect(Protocol[R]):
    """How one connection is spoken on. Keeps what was received of a reply that is not whole yet."""

    def request(self, name: Name) -> bytes:
        """Ask for the value of a name."""

    def feed(self, data: bytes) -> list[R]:
        """The replies that `data` makes whole. Raises `ProtocolError`."""

    def has_rest(self) -> bool:
        """The beginning of another reply was received."""

    def value(self, reply: R, name: Name) -> bytes | None:
        """What a reply to `request(name)` says. Raises `ProtocolError` where it is none, or `CacheUnavailable`."""


class _Batch(Generic[R]):
    """A request that wants several replies."""

    __slots__ = ("replies", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.replies: list[R] = []


Waiting: TypeAlias = "tuple[asyncio.Future[Any], Name | _Batch[R]]"


class Multiplexed(asyncio.Protocol, Generic[R]):
    """See the module. Made when connected; `over` is what else must live as long as the connection."""

    def __init__(self, dialect: Dialect[R], place: str, *, timeout_s: float, in_flight_max: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.place = place
        self.over: Any = None
        self.usable = True
        """It may be asked. False for ever once it broke, or was retired."""
        self.lost: asyncio.Future[None] = self.loop.create_future()
        """Done when the socket is closed."""
        self._dialect = dialect
        self._feed, self._value, self._request = dialect.feed, dialect.value, dialect.request
        self._timeout_s = timeout_s
        self._in_flight_max = in_flight_max
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Waiting[R]] = deque()
        self._owed = 0
        """Replies that are still to come."""
        self._out: list[bytes] = []
        self._asked = 0
        self._marks: deque[int] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._paused = False
        self._places: deque[asyncio.Future[None]] = deque()
        self._error: CacheUnavailable | None = None

    # --- asking ------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """So many requests are under way, or so many bytes unsent, that another has to wait."""
        return self._paused or len(self._waiting) >= self._in_flight_max

    @property
    def owed(self) -> int:
        """Replies that are still to come."""
        return self._owed if self._error is None else 0

    def ask_value(self, name: Name) -> asyncio.Future[bytes | None]:
        """Ask for one value."""
        return self._send(self._request(name), 1, name)

    def ask(self, request: bytes, replies: int) -> asyncio.Future[list[R]]:
        """Ask anything that is answered by so many replies, at least one."""
        return self._send(request, replies, _Batch(replies))

    async def roundtrip(self, request: bytes, replies: int) -> list[R]:
        """`ask`, awaited."""
        return await self.ask(request, replies)

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        socket = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if socket is None else int(socket.fileno())

    async def free_place(self, wait_s: float) -> bool:
        """Wait until one more may be asked (or nothing ever again); False: that took longer than this."""
        place: asyncio.Future[None] | None = None
        try:
            async with asyncio.timeout(wait_s):
                while self.full and self._error is None:
                    place = self.loop.create_future()
                    self._places.append(place)
                    await place
        except TimeoutError:
            return False
        except BaseException:
            if place is not None and place.done() and not self.full:
                self._wake()  # it was this caller's turn: the next one's now
            raise
        return True

    def _send(self, request: bytes, replies: int, what: Name | _Batch[R]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.loop.create_future()
        if self._error is not None:
            future.set_exception(_same(self._error))
            return future
        if not self._out:
            self.loop.call_soon(self._flush)
            if self._watch is None:
                self._look_again()
        self._out.append(request)
        self._waiting.append((future, what))
        self._owed += replies
        self._asked += 1
        return future

    def _flush(self) -> None:
        """One write for everything that was asked in this turn of the loop."""
        out, self._out = self._out, []
        if self._error is None and self._transport is not None:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    # --- being answered ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._error is not None:
            return
        try:
            replies = self._feed(data)
            owed = self._owed - len(replies)
            if owed < 0 or (owed == 0 and self._dialect.has_rest()):
                raise ProtocolError(f"{self.place} sent more than was asked for; the connection was dropped")
            self._owed = owed
            self._deliver(replies)
        except ProtocolError as error:
            self.end(error)
            return
        if self._places and not self.full:
            self._wake()
        if not self.usable and not self._waiting:
            self._close()

    def _deliver(self, replies: list[R]) -> None:
        waiting, value = self._waiting, self._value
        for reply in replies:
            future, what = waiting[0]
            if isinstance(what, bytes):
                try:
                    found = value(reply, what)
                except ProtocolError:
                    raise
                except CacheUnavailable as refused:
                    if not future.done():
                        future.set_exception(refused)
                    self.retire()
                else:
                    if not future.done():  # it was cancelled
                        future.set_result(found)
                waiting.popleft()
                continue
            what.replies.append(reply)
            what.wanted -= 1
            if not what.wanted:
                waiting.popleft()
                if not future.done():
                    future.set_result(what.replies)

    def _wake(self) -> None:
        self._let_in(self._in_flight_max - len(self._waiting))

    def _let_in(self, number: int) -> None:
        """The first so many who still wait for a place."""
        while number > 0 and self._places:
            place = self._places.popleft()
            if not place.done():
                place.set_result(None)
                number -= 1

    # --- time --------------------------------------------------------------------------------

    def _look_again(self) -> None:
        self._watch = self.loop.call_later(self._timeout_s / WATCHES, self._look)

    def _look(self) -> None:
        """Everything that had been asked one timeout ago must have been answered by now."""
        self._watch = None
        if not self._waiting:
            self._marks.clear()
            return
        marks = self._marks
        if len(marks) == WATCHES and self._asked - len(self._waiting) < marks.popleft():
            self.end(CacheUnavailable(f"{self.place} did not answer within {self._timeout_s * 1000:.0f} ms"))
            return
        marks.append(self._asked)
        self._look_again()

    # --- ending ------------------------------------------------------------------------------

    def retire(self) -> None:
        """Ask nothing more; what is under way is still answered."""
        self.usable = False
        if not self._waiting:
            self._close()

    def end(self, error: CacheUnavailable) -> None:
        """Close at once; every request under way fails with an error like this one."""
        if self._error is None:
            self.usable = False
            self._error = error
            waiting, self._waiting = self._waiting, deque()
            for future, _ in waiting:
                if not future.done():
                    future.set_exception(_same(error))
            self._let_in(len(self._places))
            if self._watch is not None:
                self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        self.end(ConnectionLost(f"the connection to {self.place} was closed"))

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        what = f"broke: {exc}" if exc else "was closed by the server"
        self.end(ConnectionLost(f"the connection to {self.place} {what}"))
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the server does not read, so nobody asks more."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = False
        self._wake()


def _same(error: CacheUnavailable) -> CacheUnavailable:
    """One of its own for each who is told: an exception that is raised twice mixes up its tracebacks."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
