"""A look-aside cache as it is usually written, over the same simulated world. Kept to fail.

Read: get; on a miss load and set. Write: commit, then delete. It has the surface of `AsyncCache`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from cachelib.asked import Read
from cachelib.entity import Entity
from cachelib.errors import CacheUnavailable
from cachelib.model import Row
from cachelib.testing.sim.loop import Loop, Process
from cachelib.testing.sim.store import SimStore, list_key, row_key


class NaiveTransaction:
    """Remembers which rows it changed, and so which keys to delete."""

    def __init__(self, tx: Any) -> None:
        self.connection = tx
        self.keys: list[str] = []
        self.written = "committed"

    async def put(self, entity: Entity, number: int, value: Any) -> None:
        before = self.connection.row(number)
        await self.connection.save(number, *value)
        self.keys += [row_key(number), list_key(value[0])] + ([list_key(before.grp)] if before else [])

    async def delete(self, entity: Entity, number: int) -> None:
        before = self.connection.row(number)
        await self.connection.remove(number)
        self.keys += [row_key(number)] + ([list_key(before.grp)] if before else [])


class NaiveCache:
    """See the module."""

    def __init__(
        self, loop: Loop, process: Process, backend: Any, store: SimStore, entities: tuple[Entity, ...]
    ) -> None:
        self._backend = backend
        self._store = store
        self._rows, self._lists = entities

    async def get(self, entity: Entity, number: int, *, default: Any = None) -> Any:
        name = entity.text(number)
        try:
            raw = await self._backend.get(name)
        except CacheUnavailable:
            raw = None
        if raw is not None:
            try:
                return _shown(json.loads(raw), default)
            except ValueError:
                pass  # even this one does not serve bytes that it cannot read
        loaded = await self._store.load(entity.load, [number])
        row = loaded.rows.get(number)
        value = row.value if isinstance(row, Row) else row
        await self._set(name, json.dumps(value).encode())
        return _shown(value, default)

    async def _set(self, name: bytes, raw: bytes) -> None:
        way, node = self._backend._way, self._backend._way.node
        try:
            await way.ask(lambda: node.plant(name, raw))
        except CacheUnavailable:
            pass  # the next one will set it

    async def read(self, entity: Entity, number: int) -> Read:
        value = await self.get(entity, number)
        return Read(value, value is not None, 0, "hit", 0, None)

    async def get_many(self, entity: Entity, numbers: Iterable[int]) -> dict[int, Any]:
        found = {number: await self.get(entity, number) for number in numbers}
        return {number: value for number, value in found.items() if value is not None}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[NaiveTransaction]:
        async with self._store.transaction() as store_tx:
            tx = NaiveTransaction(store_tx)
            yield tx
            await store_tx.commit()
            for key in dict.fromkeys(tx.keys):
                await self._delete(key.encode())

    async def _delete(self, name: bytes) -> None:
        way, node = self._backend._way, self._backend._way.node
        await way.ask(lambda: node.evict(name))

    async def invalidate(self, entity: Entity, number: int) -> None:
        await self._delete(entity.text(number))

    async def clear(self, *entities: Entity) -> None:
        way, node = self._backend._way, self._backend._way.node
        await way.ask(node.restart)

    async def set_mode(self, entity: Entity | None, mode: str) -> None:
        """It has none."""


def _shown(value: Any, default: Any) -> Any:
    return default if value is None else value
