"""What the workers of all nodes share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cachelib.stores.base import Store
from invalidator.epochs import Amnesty, Epochs
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.settings import ApplySettings
from invalidator.sources.base import Committed
from invalidator.work import Window


@dataclass(frozen=True, slots=True)
class Duties:
    """What all workers share.

    `start_over(why, anew, node)`: a new tenure for all that this node of the pool holds, or, where the layout
    names no nodes, new epochs for everything; unless `anew`, what was given since the store last went back
    is good. `identity`: who the store is, and how often it went back, as the
    service last saw it; a change makes every worker connect anew. `highest`: the highest version
    that the store has given out, None where it does not tell. `entities`: those whose changes are told.
    `turn_s`: a worker with nothing to do looks up so often.
    """

    settings: ApplySettings
    namespace: str
    consumer: str
    store: Store
    window: Window
    epochs: Epochs
    metrics: Metrics
    log: Log
    start_over: Callable[[str, bool, str], Amnesty]
    identity: Callable[[], tuple[str, int]]
    highest: Callable[[], int | None]
    committed: Callable[[], Committed | None]
    entities: Callable[[], frozenset[str]] = frozenset
    turn_s: float = 0.1
    clock_s: Callable[[], float] = time.monotonic
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
