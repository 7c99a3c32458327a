"""A load failed after its caller's deadline had passed: giving the lease back was refused, for the deadline, so every
other reader waited for the lease to end, and the caller was told of the deadline and not of what failed.

The tests of deadlines should have caught it; their loads were slow or failed, never both.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from cachelib import AsyncCache, Cache, Entity, LeasePolicy, LoadFailed
from cachelib.entity import FunctionLoader
from cachelib.metrics import EVENTS

DEADLINE_S = 0.02
LEASE = LeasePolicy(hold="30s", wait_max="40s")


def test_next_reader_takes_over_at_once() -> None:
    fails = [True]

    def load(id: int) -> str:
        if fails.pop():
            time.sleep(DEADLINE_S * 2)
            raise ValueError("no such thing today")
        return "value"

    entity = Entity("thing:{id}", load=FunctionLoader(load), version=None, lease=LEASE)
    with Cache("memory://") as cache:
        with pytest.raises(LoadFailed, match="no such thing today"):
            cache.get(entity, 1, deadline=DEADLINE_S)
        fails[:] = [False]
        assert cache.get(entity, 1) == "value"
        assert cache.metrics.values().get((EVENTS, "thing", "wait"), 0) == 0


def test_next_task_takes_over_at_once() -> None:
    fails = [True]

    async def load(id: int) -> str:
        if fails.pop():
            await asyncio.sleep(DEADLINE_S * 2)
            raise ValueError("no such thing today")
        return "value"

    async def main() -> None:
        entity = Entity("thing:{id}", load=FunctionLoader(load), version=None, lease=LEASE)
        async with AsyncCache("memory://") as cache:
            with pytest.raises(LoadFailed, match="no such thing today"):
                await cache.get(entity, 1, deadline=DEADLINE_S)
            fails[:] = [False]
            async with asyncio.timeout(20):
                assert await cache.get(entity, 1) == "value"

    asyncio.run(main())
