"""What the store has, asked the way a miss would ask, but filling nothing: for who compares a cache with its store."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from cachelib.compare import Truth
from cachelib.drivers import run_now
from cachelib.entity import Entity, FunctionLoader, TableLoader
from cachelib.errors import BadKey, CacheError, ConfigError, LoadFailed
from cachelib.keys import Key
from cachelib.loading import Loading
from cachelib.model import Row
from cachelib.port import Loaded
from cachelib.threads import DirectStore

_BYTES_MAX = 64 * 1024 * 1024


class Truths:
    """Over a `SqlStore`. Entities without a loader that can run here are asked for their version only."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._loadings: dict[Entity, Loading | None] = {}

    def knows(self, entity: Entity) -> bool:
        """Whether there is anything to ask: the rows, or at least their versions."""
        return self._loading(entity) is not None or entity.versioned

    def of(self, entity: Entity, keys: Sequence[Key]) -> list[Truth]:
        """One question for all keys. Raises `StoreError`, `LoadFailed`."""
        loading = self._loading(entity)
        try:
            if loading is None:
                return self._versions(entity, keys)
            return [truth_of(loaded) for loaded in loading.sorted_out(keys, run_now(loading.ask(keys, None)))]
        except CacheError:
            raise
        except Exception as cause:
            raise LoadFailed(f"loading {keys[0]!r} of {entity!r} failed: {type(cause).__name__}: {cause}") from cause

    def _versions(self, entity: Entity, keys: Sequence[Key]) -> list[Truth]:
        if entity.table is None or entity.version is None:
            raise ConfigError(f"{entity!r} can be compared with nothing: it has no load= that runs here, no version")
        loader = self._store.table_loader(entity.table, entity.key, entity.version)
        answer = self._store.load(loader, keys)
        rows = {entity.text(key): row for key, row in answer.rows.items()}
        found = [rows.get(entity.text(key)) for key in keys]
        return [Truth(row is not None, _version(row), None, answer.as_of_us) for row in found]

    def _loading(self, entity: Entity) -> Loading | None:
        if entity not in self._loadings:
            self._loadings[entity] = self._resolved(entity)
        return self._loadings[entity]

    def _resolved(self, entity: Entity) -> Loading | None:
        load = entity.load
        if load is None or inspect.iscoroutinefunction(load):
            return None
        if isinstance(load, FunctionLoader) and inspect.iscoroutinefunction(load.call):
            return None
        if not isinstance(load, TableLoader | FunctionLoader) and not callable(load):
            return None
        return Loading(entity, DirectStore(self._store), self._store.table_loader, _BYTES_MAX)


def truth_of(loaded: Loaded) -> Truth:
    """What a load found."""
    return Truth(loaded.found, loaded.version, loaded.content, loaded.as_of_us)


def _version(row: Any) -> int:
    return (row.version or 0) if isinstance(row, Row) else 0


__all__ = ["BadKey", "Truths", "truth_of"]
