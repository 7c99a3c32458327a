"""A reader that was cancelled while it looked took the lease with it.

Order of events: a miss asks the node · the node grants the lease · the task is cancelled before
the answer is read · nobody loads, nobody gives the lease back, and every other reader of the key
waits for the rest of `hold`. Only a load that was cancelled gave its lease back.

Of its class: a loop that cancels calls at every await; `tests/integration/test_client_life.py`.
"""

from __future__ import annotations

import asyncio

from cachelib import AsyncCache, Entity, LeasePolicy
from cachelib.backends import AsyncMemory
from cachelib.entity import FunctionLoader
from cachelib.model import Answer, Get, Name, Op


class SlowAnswer(AsyncMemory):
    """The node does what it is asked at once; its answer takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.slow = True

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        answer = await super().execute(name, op, now_ms)
        if isinstance(op, Get) and self.slow:
            self.asked.set()
            await asyncio.Event().wait()
        return answer


def test_a_reader_cancelled_while_it_looks_gives_the_lease_back() -> None:
    async def main() -> None:
        backend = SlowAnswer()
        entity = Entity("n:{n}", load=FunctionLoader(lambda n: n), lease=LeasePolicy(hold="30s", wait_max="60s"))
        async with AsyncCache(backend) as cache:
            task = asyncio.create_task(cache.get(entity, 7))
            await backend.asked.wait()
            task.cancel()
            await asyncio.wait([task])
            backend.slow = False
            assert await cache.get(entity, 7, deadline="5s") == 7

    asyncio.run(main())
