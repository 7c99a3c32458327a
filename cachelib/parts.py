"""What a face builds the core from: the pool, the store, and what is set for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cachelib.entity import Entity
from cachelib.lane import Faces
from cachelib.loading import TableLoaderOf
from cachelib.metrics import Metrics
from cachelib.policy import L1, StoreBudget
from cachelib.pool import Pool
from cachelib.stores.base import AsyncStore
from cachelib.world import Abandon, World


@dataclass(frozen=True, slots=True)
class Parts:
    """See the module."""

    pool: Pool
    faces: Faces
    store: AsyncStore | None
    table_loader: TableLoaderOf | None
    world: World
    abandon: Abandon
    namespace: str
    budget: StoreBudget
    metrics: Metrics
    entities: Iterable[Entity]
    l1: L1 | None = None
    gutter_ms: int = 0
