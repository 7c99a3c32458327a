"""Replicas of a Redis Cluster or behind Sentinels, for the hit GET of eventual reads: `…?replicas=eventual`.

What a replica shows may be older than its master's by the replication lag, so nothing but an eventual hit is taken from
one: whatever else a read or a write needs (the lease, a fill, a floor, a level that promises more) is the master's. A
process asks one replica of a master, chosen at random, as long as that is in step: looked at when a connection is made
and every second. One that does not answer, or lost its master, is left alone for a second; the master answers instead.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Any, Protocol, Self, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.exceptions import ResponseError

from cachelib.backends.redis.talks import Command, Talk
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.model import Name
from cachelib.overlap import to_its_end
from cachelib.proof import Seen

T = TypeVar("T")
Told: TypeAlias = Callable[[], None]
OPTION = "replicas"
LOOK_S = 1.0
"""A replica is asked so often whether it is in step with its master."""
REST_S = 1.0
"""So long the master is asked instead, before another choice."""
SILENT_S_MAX = 15
"""A master speaks to its replicas every 10 s at least (`repl-ping-replica-period`); one that does not is gone."""
IN_STEP = "in step"


class Shard(Protocol):
    """The way to one server. `get` is the face's: blocking, or awaited."""

    @property
    def get(self) -> Any:
        """See `Transport.get`."""

    async def converse(self, talk: Talk[T]) -> T:
        """See `Transport.converse`."""

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Transport.watch`."""

    async def close(self) -> None:
        """Close its connections."""


def without_option(url: str) -> tuple[str, bool]:
    """The URL without `replicas=`, and whether replicas are to be asked. Raises `ConfigError`."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    asked = [value for name, value in options if name == OPTION]
    if not asked:
        return url, False
    if asked != ["eventual"]:
        raise ConfigError(f"{OPTION}={asked[-1]!r} in a redis URL: it takes 'eventual', the only level that allows it")
    rest = urlencode([(name, value) for name, value in options if name != OPTION])
    return urlunsplit(parts._replace(query=rest)), True


def step_of(first: Sequence[Command]) -> Talk[str]:
    """`IN_STEP`, or "". `first`: what a connection to a replica needs to be told."""
    replies = yield [*first, (b"INFO", b"replication")]
    if any(isinstance(reply, Exception) for reply in replies):
        return ""
    said = replies[-1]
    if not isinstance(said, bytes):
        return ""
    told = dict(line.partition(b":")[::2] for line in said.splitlines())
    silent = told.get(b"master_last_io_seconds_ago", b"")
    fine = told.get(b"role") == b"slave" and told.get(b"master_link_status") == b"up"
    return IN_STEP if fine and silent.isdigit() and int(silent) <= SILENT_S_MAX else ""


class Replica:
    """One, as it was seen last."""

    def __init__(self, shard: Shard, first: Sequence[Command]) -> None:
        self.shard = shard
        self.in_step = False
        self.look_at = 0.0
        self._first = first
        shard.watch(lambda: step_of(first), self._seen)

    def _seen(self, told: str) -> bool:
        """A connection was made, and is not used yet."""
        self.in_step = told == IN_STEP
        return False

    async def look(self) -> None:
        """Ask it how it stands."""
        self.look_at = time.monotonic() + LOOK_S  # others go on by what is known
        try:
            self.in_step = await self.shard.converse(step_of(self._first)) == IN_STEP
        except CacheUnavailable:
            self.in_step = False


class Replicas:
    """Those of one backend. `dial`: the way to a place; `places`: where the replicas of a master are."""

    def __init__(
        self,
        dial: Callable[[str], Shard],
        places: Callable[[str], Awaitable[Sequence[str]]],
        first: Sequence[Command] = (),
    ) -> None:
        self._dial = dial
        self._places = places
        self._first = first
        self._replicas: dict[str, Replica] = {}
        self._chosen: dict[str, Replica] = {}
        self._rest_until: dict[str, float] = {}

    def now(self, master: str) -> Replica | None:
        """The one that may be asked without further thought."""
        replica = self._chosen.get(master)
        if replica is None or not replica.in_step or time.monotonic() >= replica.look_at:
            return None
        return replica

    async def ready(self, master: str) -> Replica | None:
        """The one to be asked; None: ask the master."""
        now, replica = time.monotonic(), self._chosen.get(master)
        if replica is not None and replica.in_step:
            if now >= replica.look_at:
                await replica.look()
        else:
            if now < self._rest_until.get(master, 0.0):
                return None
            self._rest_until[master] = now + REST_S  # one looks for another, and the rest ask the master meanwhile
            replica = await self._another(master)
        return replica if replica is not None and replica.in_step else None

    async def _another(self, master: str) -> Replica | None:
        try:
            places = await self._places(master)
        except CacheUnavailable:
            return None
        if not places:
            return None
        place = random.choice(places)
        replica = self._replicas.get(place)
        if replica is None:
            replica = self._replicas.setdefault(place, Replica(self._dial(place), self._first))
        await replica.look()
        self._chosen[master] = replica
        return replica

    def refused(self, replica: Replica, error: CacheUnavailable) -> None:
        """It did not answer a GET. A redirection is about one key; anything else is about the server."""
        if not isinstance(error.__cause__, ResponseError):
            replica.in_step = False

    async def close(self) -> None:
        """Close every connection."""
        for replica in list(self._replicas.values()):
            await replica.shard.close()


def _unheard() -> None:
    """Nobody wants to know."""


class EventualGet:
    """`Backend.get` by way of a replica, for threads. `master_of`: whose replicas have a name; None: not known yet."""

    def __init__(
        self, replicas: Replicas, master_of: Callable[[Name], str | None], get: Callable[[Name], bytes | None]
    ) -> None:
        self._replicas, self._master_of, self._get = replicas, master_of, get
        self._told: Told = _unheard

    def telling(self, told: Told) -> Self:
        """The same, for somebody who wants to be told of each item that came from a replica."""
        other = copy(self)
        other._told = told
        return other

    def __call__(self, name: Name) -> bytes | None:
        """The bytes that a replica has for `name`, or its master."""
        master = self._master_of(name)
        if master is not None:
            replica = self._replicas.now(master) or to_its_end(self._replicas.ready(master))
            if replica is not None:
                try:
                    raw: bytes | None = replica.shard.get(name)
                except CacheUnavailable as error:
                    self._replicas.refused(replica, error)
                else:
                    if replica.in_step:  # a connection that was just made has told
                        if raw is not None:
                            self._told()
                        return raw
        return self._get(name)


class AsyncEventualGet:
    """`EventualGet`, awaited."""

    def __init__(
        self,
        replicas: Replicas,
        master_of: Callable[[Name], str | None],
        get: Callable[[Name], Awaitable[bytes | None]],
    ) -> None:
        self._replicas, self._master_of, self._get = replicas, master_of, get
        self._told: Told = _unheard

    def telling(self, told: Told) -> Self:
        """See `EventualGet.telling`."""
        other = copy(self)
        other._told = told
        return other

    async def __call__(self, name: Name) -> bytes | None:
        """See `EventualGet`."""
        master = self._master_of(name)
        if master is not None:
            replica = self._replicas.now(master) or await self._replicas.ready(master)
            if replica is not None:
                try:
                    raw: bytes | None = await replica.shard.get(name)
                except CacheUnavailable as error:
                    self._replicas.refused(replica, error)
                else:
                    if replica.in_step:
                        if raw is not None:
                            self._told()
                        return raw
        return await self._get(name)
