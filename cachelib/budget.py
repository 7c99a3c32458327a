"""How many loads of the store misses may cause, at once and per second (I10).

Leases pace one key. When a whole cache is gone, every key misses: then this is what stands
between the readers and the store.
"""

from __future__ import annotations

import time

from cachelib.errors import StoreBudgetExceeded
from cachelib.policy import StoreBudget, duration_ms
from cachelib.world import World


class Rate:
    """A token bucket: `per_s` loads a second, at most one second's worth saved up. Pure.

    Changed without a lock: threads that race let a few loads more or less through.
    """

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s)
        self._saved = self._burst
        self._at_s = now_s

    def take(self, count: int, now_s: float) -> float:
        """Take `count` loads and answer 0, or take nothing and answer after how many seconds to try again."""
        self._saved = min(self._burst, self._saved + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        need = min(float(count), self._burst)  # a batch larger than the bucket waits for a full one
        if self._saved >= need - 1e-9:  # what rounding leaves is no reason for a pause that ends at once, for ever
            self._saved -= count
            return 0.0
        return (need - self._saved) / self._per_s


class Spending:
    """See `Budget.spend`."""

    __slots__ = ("_budget", "_count", "_until")

    def __init__(self, budget: Budget, count: int, until: float | None) -> None:
        self._budget = budget
        self._count = count
        self._until = until

    async def __aenter__(self) -> None:
        await self._budget.enter(self._count, self._until)

    async def __aexit__(self, *error: object) -> None:
        self._budget.leave()


class Budget:
    """The budget of one cache."""

    def __init__(self, policy: StoreBudget, world: World) -> None:
        self._policy = policy
        self._world = world
        self._wait_s = duration_ms("StoreBudget.wait", policy.wait) / 1000
        self._gate = world.gate(policy.at_once)
        self._rate = Rate(policy.per_s, time.monotonic()) if policy.per_s else None

    def spend(self, count: int, until: float | None = None) -> Spending:
        """`async with`: a place for one load of `count` keys, waited for until then. Raises `StoreBudgetExceeded`."""
        return Spending(self, count, until)

    async def enter(self, count: int, until: float | None) -> None:
        """Take a place; `leave` it."""
        now = time.monotonic()
        last = now + self._wait_s
        last = last if until is None else min(until, last)
        if not await self._gate.enter(last - now):
            raise self._exceeded()
        if self._rate is not None:
            try:
                await self._pace(count, last)
            except BaseException:
                self._gate.leave()
                raise

    def leave(self) -> None:
        """The load has ended."""
        self._gate.leave()

    async def _pace(self, count: int, last: float) -> None:
        while self._rate is not None:
            pause = self._rate.take(count, time.monotonic())
            if not pause:
                return
            if time.monotonic() + pause > last:
                raise self._exceeded()
            await self._world.sleep(pause)

    def _exceeded(self) -> StoreBudgetExceeded:
        policy = self._policy
        rate = "" if policy.per_s is None else f", {policy.per_s:g} per second"
        return StoreBudgetExceeded(
            f"the store budget is spent ({policy.at_once} loads at once{rate}; waited {policy.wait!r}):"
            " the cache misses more than the store may be asked; retry later, or raise StoreBudget"
        )
