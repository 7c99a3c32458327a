"""An open transaction as the application sees it: SQL, and reads and writes of entities.

Reads see the store through the transaction and never fill. What is changed, by any SQL, is told
to the cache at the end (`commit.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cachelib.asked import NO_KEY, key_of
from cachelib.commit import Written
from cachelib.core import Core
from cachelib.entity import Entity
from cachelib.errors import ConfigError
from cachelib.keys import Key
from cachelib.model import Row


class Transaction:
    """For threads. `connection` is the SQLAlchemy connection that everything runs on."""

    def __init__(self, core: Core, tx: Any) -> None:
        self._core = core
        self._tx = tx
        self.connection = tx.connection
        self.written: Written | None = None
        """Set once the transaction has ended well."""

    def execute(self, sql: Any, params: Mapping[str, Any] | None = None, **named: Any) -> Any:
        """Run SQL text with named parameters, or a SQLAlchemy statement; answers its result."""
        return self._tx.execute(sql, {**(params or {}), **named})

    def get(self, entity: Entity, key: Key = NO_KEY, *, default: Any = None, **named: Any) -> Any:
        """The value as this transaction sees it, straight from the store."""
        key = key_of(entity, key, named)
        return value_in(entity, key, _loader(self._core, entity)(self._tx, [key]), default)

    def put(self, entity: Entity, key: Key, value: Any) -> None:
        """Write a value with the entity's `save`."""
        _saver(entity, "save")(self._tx, key_of(entity, key, {}), value)

    def delete(self, entity: Entity, key: Key) -> None:
        """Delete a row with the entity's `remove`."""
        _saver(entity, "remove")(self._tx, key_of(entity, key, {}))


class AsyncTransaction:
    """`Transaction` with `await`."""

    def __init__(self, core: Core, tx: Any) -> None:
        self._core = core
        self._tx = tx
        self.connection = tx.connection
        self.written: Written | None = None

    async def execute(self, sql: Any, params: Mapping[str, Any] | None = None, **named: Any) -> Any:
        """See `Transaction.execute`."""
        return await self._tx.execute(sql, {**(params or {}), **named})

    async def get(self, entity: Entity, key: Key = NO_KEY, *, default: Any = None, **named: Any) -> Any:
        """See `Transaction.get`."""
        key = key_of(entity, key, named)
        return value_in(entity, key, await _loader(self._core, entity)(self._tx, [key]), default)

    async def put(self, entity: Entity, key: Key, value: Any) -> None:
        """See `Transaction.put`."""
        await _saver(entity, "save")(self._tx, key_of(entity, key, {}), value)

    async def delete(self, entity: Entity, key: Key) -> None:
        """See `Transaction.delete`."""
        await _saver(entity, "remove")(self._tx, key_of(entity, key, {}))


class LoopTransaction:
    """An async store's transaction as `commit.OpenTransaction`."""

    def __init__(self, tx: Any) -> None:
        self._tx = tx
        self.changes = tx.changes
        self.touched = tx.touched
        self.commit = tx.commit

    async def load(self, loader: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        """Run a loader inside the transaction."""
        rows: Mapping[Any, Any] = await loader(self._tx, keys)
        return rows


def value_in(entity: Entity, key: Key, rows: Mapping[Any, Any], default: Any) -> Any:
    """The value that a loader's rows hold for a key."""
    text = entity.text(key)
    for other, row in rows.items():
        if entity.text(other) == text:
            return row.value if isinstance(row, Row) else row
    return default


def _loader(core: Core, entity: Entity) -> Any:
    loader = core.knows(entity).loading.loader
    if not callable(loader):
        raise ConfigError(f"{entity!r} has no loader that runs in a transaction")
    return loader


def _saver(entity: Entity, which: str) -> Any:
    saver = getattr(entity, which)
    if saver is None:
        raise ConfigError(f"{entity!r} has no {which}=: declare it, or run SQL with tx.execute(…)")
    return saver
