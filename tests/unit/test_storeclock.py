"""The store's clock as a process knows it: never wrong by more than it says."""

from __future__ import annotations

import random

import pytest

from cachelib.drivers import run_now
from cachelib.errors import StoreError
from cachelib.storeclock import ASK_S, DRIFT, StoreClock, store_mark


class World:
    """The store's clock runs at its own rate and offset; an answer takes its time on either way."""

    def __init__(self, rng: random.Random, rate: float) -> None:
        self.rng, self.rate = rng, rate
        self.offset_us = rng.randint(-(10**12), 10**12)
        self.now_s = 1_000.0
        self.asked, self.down = 0, False

    def truth(self) -> int:
        return int(self.now_s * 1_000_000 * self.rate) + self.offset_us

    async def identity(self) -> str:
        if self.down:
            raise StoreError("down")
        return "system-1"

    async def now_us(self) -> int:
        self.asked += 1
        self.now_s += self.rng.random() * 0.2
        answer = self.truth()
        self.now_s += self.rng.random() * 0.2
        return answer


@pytest.mark.parametrize("seed", range(6))
def test_store_clock_is_within_its_bounds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    world = World(rng, 1 + rng.uniform(-0.8, 0.8) * DRIFT)
    monkeypatch.setattr("time.monotonic", lambda: world.now_s)
    monkeypatch.setattr("time.monotonic_ns", lambda: int(world.now_s * 1e9))
    clock = StoreClock(world)  # type: ignore[arg-type]
    for _ in range(300):
        run_now(clock.ready())
        assert clock.earliest_us() <= world.truth() <= clock.latest_us()
        assert clock.latest_us() - clock.earliest_us() < 500_000
        world.now_s += rng.random() * 2
    assert world.asked < 300 * 2 / ASK_S


def test_store_that_goes_away_leaves_the_clock_a_little_less_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(random.Random(1), 1 + DRIFT / 2)
    monkeypatch.setattr("time.monotonic", lambda: world.now_s)
    monkeypatch.setattr("time.monotonic_ns", lambda: int(world.now_s * 1e9))
    clock = StoreClock(world)  # type: ignore[arg-type]
    world.down = True
    with pytest.raises(StoreError):
        run_now(clock.ready())
    world.down = False
    run_now(clock.ready())
    before = clock.latest_us() - clock.earliest_us()
    world.down = True
    world.now_s += 600
    run_now(clock.ready())
    assert clock.earliest_us() <= world.truth() <= clock.latest_us()
    assert before < clock.latest_us() - clock.earliest_us() < before + 2 * 600_000_000 * DRIFT + 10
    assert clock.mark == store_mark("system-1")
