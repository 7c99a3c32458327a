"""Some hits, chosen by chance, are held against the store afterwards: shadow reads, as Uber's CacheFront has them.

The caller waits for nothing. A difference alone is no mismatch: the row may have changed since the hit. It is one when
an item is still served although the store has shown something else for `Compare.later`; or when one version has two
contents. So a correct cache has none, and one that is merely late has them only where it is later than that.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from cachelib.budget import Rate
from cachelib.compare import Known, Sight, Truth, certainly_stale, difference, identity, served, sight
from cachelib.entity import Entity
from cachelib.errors import CacheError
from cachelib.keys import Key
from cachelib.metrics import COMPARED, HIT_SAMPLE, MISMATCHES, Metrics
from cachelib.model import Item
from cachelib.nodes import now_ms
from cachelib.policy import Compare, Level, duration_ms
from cachelib.port import Loaded
from cachelib.world import World

QUEUE_MAX = 1000
"""Hits that wait to be compared, at most; beyond, none is chosen."""
_STEP_S = 0.05
_log = logging.getLogger("cachelib.compare")


class Asks(Protocol):
    """What the comparer needs of the core."""

    async def truth_of(self, entity: Entity, key: Key) -> Loaded:
        """What the store has for the key now. Raises `CacheError`."""

    async def item_of(self, entity: Entity, key: Key) -> bytes | None:
        """What the cache keeps for the key now. Raises `CacheError`."""


@dataclass(frozen=True, slots=True)
class _Hit:
    entity: Entity
    key: Key
    raw: bytes
    level: str


@dataclass(frozen=True, slots=True)
class _Doubt:
    hit: _Hit
    item: Item
    known: Known
    due_s: float


class Comparer:
    """`start` runs a coroutine beside the callers, and says how to wait for its end."""

    def __init__(
        self,
        policy: Compare,
        asks: Asks,
        world: World,
        metrics: Metrics,
        start: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self.share = policy.share
        self.every = policy.share > 1 / (HIT_SAMPLE + 1)
        """So many that each hit has to be offered; the hit path offers one of `HIT_SAMPLE` + 1."""
        self._later_s = duration_ms("Compare.later", policy.later) / 1000
        self._rate = Rate(policy.per_s, time.monotonic())
        self._asks = asks
        self._world = world
        self._metrics = metrics
        self._start = start
        self._hits: deque[_Hit] = deque()
        self._doubts: deque[_Doubt] = deque()
        self._working = self._stopped = False
        self._pid = os.getpid()
        self._guard = Lock()
        self.worker: Any = None
        """What `start` gave for the last work."""

    def offer(self, entity: Entity, key: Key, raw: bytes, level: Level, one_of: int = 1) -> None:
        """A hit on these bytes; one of `one_of` is offered. Costs a random number, and seldom more."""
        if random.random() >= self.share * one_of or len(self._hits) >= QUEUE_MAX or self._stopped:
            return
        self._hits.append(_Hit(entity, key, raw, type(level).__name__.lower()))
        if not self._working or self._pid != os.getpid():
            self._begin()

    def _begin(self) -> None:
        """Have one worker, and never two."""
        if self._pid != os.getpid():  # the parent's worker does not work here, nor does it let go of the lock
            self._pid, self._guard, self._working = os.getpid(), Lock(), False
        with self._guard:
            if self._working:
                return
            self._working = True
        self.worker = self._start(self._work())

    def stop(self) -> None:
        """Compare no more; the worker ends within a moment."""
        self._stopped = True

    async def _work(self) -> None:
        """Until nothing waits: so a cache that is seldom read keeps no thread."""
        while not self._stopped and (self._hits or self._doubts):
            if self._hits and not self._rate.take(1, time.monotonic()):
                await self._tried(self._first, self._hits.popleft())
            elif self._doubts and self._doubts[0].due_s <= time.monotonic():
                await self._tried(self._second, self._doubts.popleft())
            else:
                await self._world.sleep(_STEP_S)
        self._working = False
        if self._hits and not self._stopped:  # one came between the look and the line before
            self._begin()

    async def _tried(self, look: Callable[[Any], Coroutine[Any, Any, None]], one: Any) -> None:
        try:
            await look(one)
        except CacheError:
            pass  # neither proves anything where it does not answer; the callers notice by themselves

    async def _first(self, hit: _Hit) -> None:
        truth = await self._truth(hit)
        self._metrics.tally(hit.entity.name).add(COMPARED, "level", hit.level)
        item = served(hit.raw, now_ms())
        found = None if item is None else difference(item, truth, hit.entity.packer.unpack)
        if item is None or found is None:
            return
        if found == "differs" and truth.version:
            self._mismatch(hit, item, truth)
            return
        known = Known(truth.version, not truth.found, truth.as_of_us)
        self._doubts.append(_Doubt(hit, item, known, time.monotonic() + self._later_s))

    async def _second(self, doubt: _Doubt) -> None:
        hit = doubt.hit
        item = served(await self._asks.item_of(hit.entity, hit.key), now_ms())
        if item is None or sight(item, doubt.known) is not Sight.SUSPECT:
            return
        truth = await self._truth(hit)
        same = identity(item) == identity(doubt.item) and difference(item, truth, hit.entity.packer.unpack) is not None
        if same or certainly_stale(item, doubt.known, truth):
            self._mismatch(hit, item, truth)

    async def _truth(self, hit: _Hit) -> Truth:
        loaded = await self._asks.truth_of(hit.entity, hit.key)
        return Truth(loaded.found, loaded.version, loaded.content, loaded.as_of_us)

    def _mismatch(self, hit: _Hit, item: Item, truth: Truth) -> None:
        self._metrics.tally(hit.entity.name).add(MISMATCHES, "level", hit.level)
        _log.warning(
            "the cache serves what the store does not have: key %r of %s, %s read,"
            " %s of version %s (floor %s, as of %s), the store has %s",
            hit.key,
            hit.entity.name,
            hit.level,
            item.content.kind.name.lower(),
            item.version,
            item.floor,
            item.as_of_us,
            f"version {truth.version}" if truth.found else "no row",
        )
