"""The stage of a run on the library: the store filled with the workload's rows, cache, invalidator, a warm cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cachelib import Cache
from cachelib.stores import SqlStore
from loadgen.database import Database
from loadgen.plan import TargetPlan
from loadgen.servers import Invalidator
from loadgen.stage import Stage, StageSettings
from loadgen.targets.items import ENVIRONMENT, Items

CHUNK = 500
Advance = Callable[[str, int, int], None]
"""Told of a long work: what, how much of it is done, how much there is."""


class ItemStage(Stage):
    """Told how far it is by `advance`. Given a `store_url`, its tables of this workload are made anew."""

    def __init__(self, items: Items, advance: Advance) -> None:
        self.items, self._advance = items, advance
        target = items.plan.target
        settings = StageSettings(
            "items", target.backend, target.cache_url or None, target.invalidator, pins=items.plan.pins
        )
        super().__init__(settings, items.dataset)
        self.store_url = target.store_url or self.store_url
        self.namespace = target.namespace or self.namespace
        numbers = items.subject[: items.space.keys].tolist()
        self._keys_of: list[list[int]] = [[] for _ in items.subjects]
        for key, number in enumerate(numbers):
            self._keys_of[number].append(key)

    @property
    def target(self) -> TargetPlan:
        """The plan's target, with the URLs of what was started."""
        from msgspec.structs import replace

        return replace(
            self.items.plan.target, cache_url=self.cache_url, store_url=self.store_url, namespace=self.namespace
        )

    def new_invalidator(self) -> Invalidator:
        """See `Stage.new_invalidator`."""
        daemon = super().new_invalidator()
        daemon.environment[ENVIRONMENT] = self.items.text
        return daemon

    def fill_tables(self, database: Database) -> list[list[str]]:
        """See `Stage.fill_tables`."""
        names = self.items.space.names
        for subject, keys in zip(self.items.subjects, self._keys_of, strict=True):
            database.execute(f"drop table if exists {subject.table}")
            database.execute(subject.create)
            database.insert(
                f"insert into {subject.table} (name, payload) values (:name, :payload)", self._rows(keys, subject.table)
            )
        return [[names[key] for key in keys] for keys in self._keys_of]

    def _rows(self, keys: list[int], table: str) -> Iterator[dict[str, Any]]:
        for done, key in enumerate(keys):
            if done % CHUNK == 0:
                self._advance(f"rows of {table}", done, len(keys))
            yield {"name": self.items.space.names[key], "payload": self.items.payload(key)}
        self._advance(f"rows of {table}", len(keys), len(keys))

    def warm(self) -> None:
        """Read every key once, so that the load finds what a cache in use holds."""
        store = SqlStore(self.store_url)
        entities = [subject.entity for subject in self.items.subjects]
        try:
            with Cache(self.cache_url, store=store, entities=entities, namespace=self.namespace) as cache:
                for entity, names in zip(entities, self.keys, strict=True):
                    for done in range(0, len(names), CHUNK):
                        cache.get_many(entity, names[done : done + CHUNK])
                        self._advance(f"cache of {entity.name}", min(done + CHUNK, len(names)), len(names))
        finally:
            store.close()
