"""Asking the store on behalf of a miss: one entity's loader, its rows as content and value."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cachelib.codecs import Packer
from cachelib.entity import Entity, FunctionLoader, TableLoader
from cachelib.errors import BadKey, ConfigError, ValueTooLarge
from cachelib.keys import Key
from cachelib.model import ABSENCE, Row, value_of
from cachelib.port import Loaded
from cachelib.stores.base import AsyncStore
from cachelib.stores.base import Loaded as StoreLoaded

TableLoaderOf = Callable[[str, tuple[str, ...], str], Any]
"""How the store makes a loader of a table: (table, key columns, version column) -> loader."""


class Loading:
    """How an entity's missing keys are loaded."""

    def __init__(self, entity: Entity, store: AsyncStore | None, table_loader: TableLoaderOf | None, bytes_max: int):
        self._entity = entity
        self._packer: Packer = entity.packer
        self._bytes_max = bytes_max
        self._store = store
        self.loader = _resolved(entity, table_loader)

    async def ask(self, keys: Sequence[Key], timeout_s: float | None) -> StoreLoaded:
        """The rows of these keys. Raises whatever the loader or the store raises."""
        if isinstance(self.loader, FunctionLoader):
            return StoreLoaded({key: await self._call(self.loader, key) for key in keys}, time.time_ns() // 1000)
        if self.loader is None:
            raise ConfigError(f"{self._entity!r} has no load=, so a key that is not cached cannot be read")
        if self._store is None:
            raise ConfigError(f"{self._entity!r} loads from a store: give the cache one, Cache(…, store=…)")
        return await self._store.load(self.loader, keys, timeout_s=timeout_s)

    async def _call(self, loader: FunctionLoader, key: Key) -> Any:
        fields = self._entity.template.fields
        values = key if isinstance(key, tuple) else (key,)
        named = dict(key) if isinstance(key, Mapping) else dict(zip(fields, values, strict=True))
        value = loader.call(**named)
        return await value if inspect.isawaitable(value) else value

    def sorted_out(self, keys: Sequence[Key], answer: StoreLoaded) -> list[Loaded]:
        """What each key was found to be. Raises `ConfigError` for rows that the entity cannot keep."""
        rows: Mapping[Any, Any] = answer.rows
        if not _has_all(rows, keys):
            # A loader may name a row 7 that was asked for as "7": the key's text decides.
            by_text = {self._entity.text(key): row for key, row in rows.items()}
            found = [by_text.get(self._entity.text(key), _MISSING) for key in keys]
        else:
            found = [rows[key] for key in keys]
        if isinstance(self._entity.load, TableLoader):
            for key, row in zip(keys, found, strict=True):
                self._check_name(key, row)
        return [self.loaded(row, answer.as_of_us) for row in found]

    def _check_name(self, key: Key, row: Any) -> None:
        """A database may take '07' for 7. The change log says 7, so nothing would ever void what is kept for '07'."""
        if row is _MISSING:
            return
        entity = self._entity
        own = entity.template.from_columns(row.value, entity.key)
        if own is None or entity.text(own) != entity.text(key):
            raise BadKey(f"key {key!r} of {entity!r} gives the row whose key is {own!r}: ask for it as that")

    def loaded(self, row: Any, as_of_us: int) -> Loaded:
        """One row as content and as value; the value is what a hit on the content would give."""
        if row is _MISSING:
            return Loaded(ABSENCE, None, False, 0, as_of_us)
        value, version = (row.value, row.version or 0) if isinstance(row, Row) else (row, 0)
        versioned = self._entity.versioned
        if versioned and not version:
            raise ConfigError(
                f"the loader of {self._entity!r} gave a row without a version: answer Row(value, version),"
                " or declare version=None for a store that has none"
            )
        version = version if versioned else 0
        try:
            payload = self._packer.pack(value, self._bytes_max)
        except ValueTooLarge:
            return Loaded(None, value, True, version, as_of_us)
        # Decoded again: a miss returns exactly what a hit will, and nobody else holds the object.
        return Loaded(value_of(payload), self._packer.unpack(payload), True, version, as_of_us)


_MISSING = object()


def _has_all(rows: Mapping[Any, Any], keys: Sequence[Key]) -> bool:
    try:
        return all(map(rows.__contains__, keys))
    except TypeError:  # a key that is a mapping cannot be looked up
        return False


def missing_row() -> Any:
    """What `Loading.loaded` takes for a row that does not exist."""
    return _MISSING


def _resolved(entity: Entity, table_loader: TableLoaderOf | None) -> Any:
    if not isinstance(entity.load, TableLoader):
        return entity.load
    if table_loader is None:
        raise ConfigError(f"{entity!r} loads from table {entity.load.table!r}: it needs Cache(…, store=…)")
    return table_loader(entity.load.table, entity.load.key, entity.load.version)
