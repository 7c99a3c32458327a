"""What `rounds.py` needs of a connection and of a pool of them, sync or async.

The methods of the sync ones suspend only where an answer is on its way, see `overlap.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeVar

from cachelib.backends.base import ConnectionLost
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.replies import Reply
from cachelib.errors import ProtocolError
from cachelib.overlap import to_its_end

T = TypeVar("T")
LinkT = TypeVar("LinkT", bound="Link")


class Link(Protocol):
    """One connection, used by one caller at a time."""

    async def roundtrip(self, request: bytes, replies: int) -> list[Reply]:
        """Send, and read exactly so many replies.

        Raises `ConnectionLost`, `ProtocolError` or another `CacheUnavailable`. After any error,
        cancellation included, the link must be given to `drop`.
        """


class Links(Protocol[LinkT]):
    """A bounded pool of connections to one server."""

    async def take(self, *, fresh: bool = False) -> LinkT:
        """A link for one round trip after the other; `fresh`: none that may have died idle.

        Raises `CacheUnavailable`.
        """

    def give_back(self, link: LinkT) -> None:
        """Everything that was asked was answered."""

    def drop(self, link: LinkT, error: BaseException) -> None:
        """What was asked ended in an error (or was cancelled): nobody may take its replies for another's."""


class Counts:
    """What happened that no answer shows. Safe from threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Count one."""
        with self._lock:
            self._counts[what] += 1

    def forget_lock(self) -> None:
        """In a child after a fork: a thread that is not there may hold it."""
        self._lock = Lock()

    def read(self) -> dict[str, int]:
        """A copy: `cas_lost`, `gave_way`, `too_large`, `out_of_memory`, `undecodable`, `reconnected`."""
        with self._lock:
            return dict(self._counts)


async def ask(links: Links[LinkT], counts: Counts, request: bytes, replies: int, read: Callable[[list[Reply]], T]) -> T:
    """Ask something that changes nothing; once more where the link had died, which it may while it lies idle."""
    for fresh in (False, True):
        link = await links.take(fresh=fresh)
        try:
            answer = read(await link.roundtrip(request, replies))
        except ConnectionLost as lost:
            links.drop(link, lost)
            if fresh:
                raise
            counts.add("reconnected")
        except BaseException as error:  # a cancelled call, too, leaves replies behind
            links.drop(link, error)
            raise
        else:
            links.give_back(link)
            return answer
    raise AssertionError("the second time answers or raises")


async def instance_behind(link: Link) -> str:
    """Which start of the server a link leads to; "" where it does not tell."""
    (reply,) = await link.roundtrip(wire.STATS_REQUEST, 1)
    try:
        return wire.instance(reply)
    except ProtocolError:
        return ""


run = to_its_end
"""Run a coroutine over sync links."""
