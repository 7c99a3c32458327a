"""What each read stands on: how its node stands, and what its level makes of that."""

from __future__ import annotations

from cachelib.entity import Entity
from cachelib.errors import CacheUnavailable
from cachelib.levels import FREE, NO_GROUND, Ground
from cachelib.model import Name
from cachelib.policy import Level, Strong
from cachelib.pool import Pool
from cachelib.stores.base import AsyncStore


class Grounds:
    """Of one cache."""

    def __init__(self, pool: Pool, store: AsyncStore | None, namespace: str) -> None:
        self._pool = pool
        self._store = store
        self._namespace = namespace

    async def of(self, entity: Entity, level: Level, name: Name) -> Ground:
        """What a read of this level may take from the node of this name."""
        if isinstance(level, Strong) and self._store is not None:
            try:
                standing = self._pool.of(name).standing
            except CacheUnavailable:
                return NO_GROUND
            return await standing.strong(self._namespace, entity.name, self._store.now_us)
        return FREE
