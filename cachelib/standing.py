"""How a node stands: which start of its server answers, and what is proven of that start.

A backend tells, before it uses a new connection, which start of the server it leads to. Whoever read
something holds that against the start that it was proven of: `Trust.holds` turns false, for good, before
anything is read from another one. So a hit costs no question more (PROTOCOL.md, "Failover").
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from cachelib.errors import CacheUnavailable, StoreError
from cachelib.levels import NO_GROUND, Ground, strong_ground
from cachelib.model import Name
from cachelib.proof import ProofNote, Seen, decode_proof, proof_name
from cachelib.storeclock import store_mark

LOOK_S = 0.25
"""A node's note is read this often at most."""


class Watched(Protocol):
    """The part of a backend that is needed here."""

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""

    async def instance(self) -> str:
        """See `Backend.instance`."""

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""


class PartStart(Protocol):
    """Since when a name is where it is, in a node that is several servers."""

    since_us: int | None
    """The store's clock, asked after the start was met; set by whoever asks it."""

    def holds(self) -> bool:
        """It still is there, and always was, and the same start of that server answers."""


StartOf: TypeAlias = Callable[[Name], Awaitable[PartStart | None]]
"""What a backend that is several servers has as `start_of`. Raises `CacheUnavailable`."""


class Trust:
    """What is known of one start of a server. Times are of the monotonic clock, seconds."""

    __slots__ = ("_standing", "caught_up", "instance", "looked_at", "note", "since_us")

    def __init__(self, standing: Standing, instance: str) -> None:
        self._standing = standing
        self.instance = instance
        self.caught_up: frozenset[str] = frozenset()
        """Entities whose changes it was told, all up to some time after it started, and then by their writers."""
        self.since_us: int | None = None
        """The store's clock, asked after this start was met."""
        self.note: ProofNote | None = None
        """Its note as it was read last, if it is about this start."""
        self.looked_at = float("-inf")

    @property
    def start(self) -> str:
        """This start of this server, as no other server tells it; `instance` is what it tells itself."""
        address = self._standing.address
        return f"{self.instance} {address}" if address else self.instance

    def holds(self) -> bool:
        """No other start of the server was met since. Once false it stays so: each meeting makes a trust of its own."""
        return self._standing.trust is self


class Standing:
    """Of one node. `guard`: around each call of the backend."""

    def __init__(self, backend: Watched, guard: AbstractContextManager[None]) -> None:
        self._backend = backend
        self._guard = guard
        self._start_of: StartOf | None = getattr(backend, "start_of", None)
        self.address: str = getattr(backend, "address", "")
        """See `base.Addressed`."""
        self._watching = False
        self.trust: Trust | None = None

    async def strong(self, namespace: str, entity: str, name: Name, now_us: Callable[[], Awaitable[int]]) -> Ground:
        """What a strong read of this name stands on. `now_us` asks the store's clock."""
        if self._start_of is not None:
            return await self._part(self._start_of, name, now_us)
        try:
            trust = await self.current()
            if trust is None:
                return NO_GROUND
            if entity not in trust.caught_up:
                await self.look(trust, namespace)
            caught_up = entity in trust.caught_up
            if not caught_up and trust.since_us is None:
                trust.since_us = await now_us() + 1  # only now: the start was met before; and later than now
            return strong_ground(caught_up, trust.since_us, trust.holds)
        except (CacheUnavailable, StoreError):
            return NO_GROUND  # whoever asks them next meets it again, and knows what to do

    async def _part(self, start_of: StartOf, name: Name, now_us: Callable[[], Awaitable[int]]) -> Ground:
        """Of a node that is several servers: the one that has the name, since it has it. No note speaks of that."""
        try:
            with self._guard:
                start = await start_of(name)
            if start is None:
                return NO_GROUND
            since_us = start.since_us
            if since_us is None:
                since_us = start.since_us = await now_us() + 1
            return strong_ground(False, since_us, start.holds)
        except (CacheUnavailable, StoreError):
            return NO_GROUND

    async def watermark(self, namespace: str, entity: str, store: str) -> tuple[int | None, Trust | None]:
        """Up to when (the store's clock) every commit is applied on this node, and of which start that holds.

        `store`: whose commits, as `store_mark` says it. None where nobody can know.
        """
        try:
            trust = await self.current()
            if trust is None:
                return None, None
            await self.look(trust, namespace)
        except CacheUnavailable:
            return None, None
        note = trust.note
        if note is None or entity not in note.entities or store_mark(note.store) != store:
            return None, trust
        return note.watermark_us, trust

    def told(self, entity: str) -> Trust | None:
        """The start that answers, if it was told everything about the entity: then a hit needs nothing more."""
        trust = self.trust
        return trust if trust is not None and entity in trust.caught_up else None

    async def look(self, trust: Trust, namespace: str) -> None:
        """Read the note again, where that is due."""
        now = time.monotonic()
        if now - trust.looked_at < LOOK_S:
            return
        trust.looked_at = now  # others go on by what is known
        with self._guard:
            (raw,) = await self._backend.read_notes([proof_name(namespace)])
        note = decode_proof(raw)
        if note is None or note.caught_up != trust.instance:
            trust.note = None  # it may have come with the old data
            return
        trust.note = note
        trust.caught_up |= note.entities

    async def current(self) -> Trust | None:
        """The start that answers; None where the node does not tell."""
        if not self._watching:
            self._watching = True
            await self._backend.watch(self._seen)
        if self.trust is None:
            with self._guard:
                await self._backend.instance()  # opens a connection, which tells
        trust = self.trust
        return trust if trust is not None and trust.instance else None

    def _seen(self, instance: str) -> bool:
        before = self.trust
        if before is not None and before.instance == instance:
            return False
        self.trust = Trust(self, instance)
        return before is not None
