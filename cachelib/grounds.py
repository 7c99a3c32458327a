"""What each read stands on: how its node stands, and what its level makes of that."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from zlib import crc32

from cachelib.entity import Entity
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.history import UNBOUND, History, binding_of, key_mark
from cachelib.levels import FREE, NO_GROUND, Ground, always, both, bounded_ground, strong_in_session
from cachelib.model import ANY, Name
from cachelib.policy import Bounded, Level, Strong
from cachelib.pool import Pool
from cachelib.port import Found
from cachelib.standing import Trust
from cachelib.storeclock import StoreClock
from cachelib.stores.base import AsyncStore


@dataclass(frozen=True, slots=True)
class Where:
    """Where a key is: its text, its names, the number of the layout that says so, and whether its lease runs."""

    text: bytes
    names: tuple[Name, ...]
    number: int
    leased: bool


class Grounds:
    """Of one cache."""

    def __init__(self, pool: Pool, store: AsyncStore | None, namespace: str) -> None:
        self._pool = pool
        self._store = store
        self._namespace = namespace
        self.clock = None if store is None else StoreClock(store)

    async def of(self, entity: Entity, level: Level, where: Where, history: History | None = None) -> Ground:
        """What a read of this level may take from the key's node; `history`: that of its session."""
        if isinstance(level, Strong):
            ground = await self._strong(entity, where.names[0])
        elif isinstance(level, Bounded):
            ground = await self._bounded(entity, level, where)
        else:
            ground = FREE
        if history is None or not entity.tables or self.clock is None:
            return ground
        await self.clock.ready()
        history.of_store(self.clock.mark)
        key = key_mark(entity.name, where.text)
        if isinstance(level, Strong):
            return strong_in_session(ground, history.strong_least_us(key))
        return self._in_session(key, where, ground, history, await self.trust(where.names), self.clock)

    async def _strong(self, entity: Entity, name: Name) -> Ground:
        if self._store is None:
            return FREE
        try:
            standing = self._pool.of(name).standing
        except CacheUnavailable:
            return NO_GROUND
        return await standing.strong(self._namespace, entity.name, name, self._store.now_us)

    async def _bounded(self, entity: Entity, level: Bounded, where: Where) -> Ground:
        clock = self.clock
        if clock is None:
            raise ConfigError(f"{level!r} needs a store, by whose clock it goes: Cache(…, store=…)")
        await clock.ready()
        watermark_us, trust = None, None
        # I13: under a lapsed lease, or while it moves, the item may be one that nobody tells any more.
        if where.leased and len(where.names) == 1:
            with suppress(CacheUnavailable):
                standing = self._pool.of(where.names[0]).standing
                watermark_us, trust = await standing.watermark(self._namespace, entity.name, clock.mark)
        now_us = clock.latest_us()
        holds = always if trust is None else trust.holds
        ground = bounded_ground(now_us, level.max_age_us, watermark_us, holds)

        def record(found: Found) -> Found:
            proven_us = watermark_us if found.source == "hit" and ground.requirement == ANY else None
            return replace(found, proven_us=proven_us or 0, now_us=now_us)

        return replace(ground, record=record)

    async def trust(self, names: tuple[Name, ...]) -> Trust | None:
        """The start of the server that keeps this name; None while it moves, or where the node does not tell."""
        try:
            return await self._pool.of(names[0]).standing.current() if len(names) == 1 else None
        except CacheUnavailable:
            return None

    def place(self, trust: Trust | None) -> int:
        """Which cache this is: of several nodes by their names, of one by the start of its server."""
        return crc32((" ".join(sorted(self._pool.names)) or self._start(trust)).encode())

    def _start(self, trust: Trust | None) -> str:
        """The start of a server. In a pool each name says whose it is; one node needs an address, as other caches may
        have one of the same names whose server tells the same."""
        if trust is None:
            return ""
        return trust.instance if self._pool.names else trust.start

    def _binding(self, trust: Trust | None, number: int, name: Name, text: bytes) -> int:
        return UNBOUND if trust is None else binding_of(self._start(trust), number, name, text)

    async def met(self, history: History, names: tuple[Name, ...], text: bytes, number: int) -> int:
        """Where a key is kept now, in the layout of this number, as a session meets it."""
        trust = await self.trust(names)
        return history.meet(self._binding(trust, number, names[0], text), number, self.place(trust))

    def _in_session(
        self, key: int, where: Where, ground: Ground, history: History, trust: Trust | None, clock: StoreClock
    ) -> Ground:
        found = self._binding(trust, where.number, where.names[0], where.text)
        binding = history.meet(found, where.number, self.place(trust))
        asked, mark = history.ground(key, binding)

        def record(found: Found) -> Found:
            history.saw(key, mark, found, binding, clock.latest_us())
            return found if ground.record is None else ground.record(found)

        return both(ground, replace(asked, holds=always if trust is None else trust.holds, record=record))
