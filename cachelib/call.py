"""One call of a cache, as the steps see it: the port to nodes, store, clock and flights."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from cachelib.budget import Budget
from cachelib.errors import (
    BadKey,
    CacheError,
    CacheUnavailable,
    ConfigError,
    DeadlineExceeded,
    LoadFailed,
    StoreBudgetExceeded,
)
from cachelib.loading import Loading
from cachelib.metrics import LOADS, Tally
from cachelib.model import Answer, Name, Op, Token
from cachelib.nodes import now_ms
from cachelib.pool import Pool
from cachelib.port import Landing, Loaded
from cachelib.world import Abandon, World


class Call:
    """Implements `BatchPort` for one call about keys of one entity."""

    def __init__(
        self,
        *,
        node: Pool,
        world: World,
        budget: Budget,
        loading: Loading | None,
        tally: Tally,
        abandon: Abandon,
        until: float | None = None,
    ) -> None:
        self._node = node
        self._world = world
        self._budget = budget
        self._loading = loading
        self._tally = tally
        self._until = until
        self._flights: dict[Name, Hashable] = {}
        self.abandon = abandon
        self.note: Callable[[str], None] = tally.note
        self.now_ms = now_ms
        self.jitter = random.random

    def nonce(self) -> Token:
        """See `Port.nonce`."""
        return int.from_bytes(os.urandom(8), "big") or 1

    async def execute(self, name: Name, op: Op) -> Answer:
        """See `Port.execute`."""
        if self._until is not None:
            self._in_time("the cache")
        return await self._node.execute(name, op)

    async def execute_many(self, batch: Sequence[tuple[Name, Op]]) -> Sequence[Answer | CacheError]:
        """See `BatchPort.execute_many`."""
        try:
            if self._until is not None:
                self._in_time("the cache")
            return await self._node.execute_many(batch)
        except (CacheUnavailable, DeadlineExceeded) as failure:
            return [failure] * len(batch)

    async def load(self, key: Any) -> Loaded:
        """See `Port.load`."""
        return (await self._load([key]))[0]

    async def load_many(self, keys: Sequence[Any]) -> Sequence[Loaded | CacheError]:
        """See `BatchPort.load_many`."""
        try:
            return await self._load(keys)
        except (LoadFailed, StoreBudgetExceeded, DeadlineExceeded) as failure:
            return [failure] * len(keys)

    async def _load(self, keys: Sequence[Any]) -> list[Loaded]:
        loading, tally = self._loading, self._tally
        if loading is None:
            raise ConfigError("this call loads nothing")
        if self._until is not None:
            self._in_time("the store")
        async with self._budget.spend(len(keys), self._until):
            began = time.monotonic()
            try:
                loaded = loading.sorted_out(keys, await loading.ask(keys, self._left()))
            except (ConfigError, BadKey):
                raise
            except Exception as cause:
                tally.add(LOADS, "outcome", "failed", len(keys))
                raise LoadFailed(f"loading {_some(keys)} failed: {type(cause).__name__}: {cause}") from cause
            tally.load_seconds.add(time.monotonic() - began)
        found = sum([row.found for row in loaded])
        if found:
            tally.add(LOADS, "outcome", "found", found)
        if found < len(keys):
            tally.add(LOADS, "outcome", "absent", len(keys) - found)
        return loaded

    async def join(self, name: Name, ms: int) -> Landing:
        """See `Port.join`."""
        if self.lead(name):
            return None
        until = time.monotonic() + self._at_most(ms)
        while True:
            landing = await self._world.flights.join(name, max(0.0, until - time.monotonic()))
            if self._until is not None:
                self._in_time("another call's load")
            if landing is not None or until - time.monotonic() < 0.001:  # a clock's last step is not waited for
                return landing
            if self.lead(name):  # that one ended without a result
                return None

    async def wait(self, name: Name, ms: int) -> None:
        """See `Port.wait`."""
        if name in self._flights:  # it is this call that lands it
            await self._world.sleep(self._at_most(ms))
        else:
            await self._world.flights.wait(name, self._at_most(ms))
        if self._until is not None:
            self._in_time("another reader's lease")

    def lead(self, name: Name) -> bool:
        """See `Port.lead`."""
        self.take_off(name)
        return name in self._flights

    def take_off(self, name: Name) -> None:
        """See `Port.take_off`."""
        if name in self._flights:
            return
        flight = self._world.flights.take_off(name)
        if flight is not None:
            self._flights[name] = flight

    def land(self, name: Name, landing: Landing) -> None:
        """See `Port.land`."""
        flight = self._flights.pop(name, None)
        if flight is not None:
            self._world.flights.land(name, flight, landing)

    def _left(self) -> float | None:
        return None if self._until is None else max(0.001, self._until - time.monotonic())

    def _at_most(self, ms: int) -> float:
        left = self._left()
        return ms / 1000 if left is None else min(ms / 1000, left)

    def _in_time(self, what: str) -> None:
        """Asked only where there is a deadline."""
        if self._until is not None and time.monotonic() >= self._until:
            raise DeadlineExceeded(f"the deadline passed while waiting for {what}")


def _some(keys: Sequence[Any]) -> str:
    return f"key {keys[0]!r}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
