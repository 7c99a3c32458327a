"""What each read stands on: how its node stands, and what its level makes of that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cachelib.entity import Entity
from cachelib.errors import CacheUnavailable
from cachelib.history import UNBOUND, History, binding_of, key_mark
from cachelib.levels import FREE, NO_GROUND, Ground, strong_in_session
from cachelib.model import Name
from cachelib.policy import Level, Strong
from cachelib.pool import Pool
from cachelib.port import Found
from cachelib.standing import Trust
from cachelib.storeclock import StoreClock
from cachelib.stores.base import AsyncStore


@dataclass(frozen=True, slots=True)
class Where:
    """Where a key is: its text, its names, and the number of the layout that says so."""

    text: bytes
    names: tuple[Name, ...]
    number: int


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
        return await standing.strong(self._namespace, entity.name, self._store.now_us)

    async def trust(self, names: tuple[Name, ...]) -> Trust | None:
        """The start of the server that keeps this name; None while it moves, or where the node does not tell."""
        try:
            return await self._pool.of(names[0]).standing.current() if len(names) == 1 else None
        except CacheUnavailable:
            return None

    async def binding(self, names: tuple[Name, ...], text: bytes, number: int) -> int:
        """Where a key is kept now, in the layout of this number, for a session."""
        trust = await self.trust(names)
        return UNBOUND if trust is None else binding_of(trust.instance, number, names[0], text)

    def _in_session(
        self, key: int, where: Where, ground: Ground, history: History, trust: Trust | None, clock: StoreClock
    ) -> Ground:
        found = UNBOUND if trust is None else binding_of(trust.instance, where.number, where.names[0], where.text)
        binding = history.meet(found, where.number)
        asked, mark = history.ground(key, binding)

        def record(found: Found) -> None:
            history.saw(key, mark, found, binding, clock.latest_us())

        return replace(asked, holds=ground.holds if trust is None else trust.holds, record=record)
