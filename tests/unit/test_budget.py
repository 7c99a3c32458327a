"""The budget of loads: so many at once, so many a second, and a wait that ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.budget import Budget, Rate
from cachelib.drivers import run_now
from cachelib.errors import StoreBudgetExceeded
from cachelib.loops import LoopWorld
from cachelib.policy import StoreBudget
from cachelib.threads import ThreadWorld

# --- the rate --------------------------------------------------------------------------------


def test_a_second_is_saved_up() -> None:
    rate = Rate(10, 0.0)
    assert [rate.take(1, 0.0) for _ in range(11)] == [0.0] * 10 + [0.1]


def test_what_was_not_granted_is_not_taken() -> None:
    rate = Rate(10, 0.0)
    rate.take(10, 0.0)
    assert [rate.take(1, 0.0) for _ in range(5)] == [0.1] * 5
    assert rate.take(1, 0.1) == 0.0


def test_no_more_than_a_second_is_saved_up() -> None:
    rate = Rate(2, 0.0)
    assert [rate.take(1, 1000.0) for _ in range(3)] == [0.0, 0.0, 0.5]


def test_a_slow_rate_lets_one_through() -> None:
    rate = Rate(0.5, 0.0)
    assert [rate.take(1, 0.0), rate.take(1, 0.0), rate.take(1, 2.0)] == [0.0, 2.0, 0.0]


def test_a_batch_larger_than_a_second_waits_for_a_full_one_and_pays_it_back() -> None:
    rate = Rate(10, 0.0)
    assert rate.take(30, 0.0) == 0.0
    assert rate.take(1, 0.0) == pytest.approx(2.1)
    assert rate.take(1, 2.1) == 0.0


@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 8)), min_size=1, max_size=60), st.floats(1, 50))
def test_over_any_time_no_more_is_granted_than_the_rate_allows(asks: list[tuple[float, int]], per_s: float) -> None:
    rate, now, granted = Rate(per_s, 0.0), 0.0, 0
    for pause, count in asks:
        now += pause
        before = granted
        if rate.take(count, now) == 0.0:
            granted += count
            # The last batch may overdraw; what was granted before it was covered.
            assert before <= per_s * now + max(1.0, per_s) + 8


@given(st.integers(1, 100), st.floats(0.5, 50))
def test_the_pause_it_names_is_enough(count: int, per_s: float) -> None:
    rate, pause = Rate(per_s, 0.0), 0.0
    rate.take(count, 0.0)
    while not pause:
        pause = rate.take(1, 0.0)
    assert rate.take(1, pause) == 0.0


# --- the budget ------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class SleepingWorld(ThreadWorld):
    """Sleeping moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    async def sleep(self, seconds: float) -> None:
        self.clock.now += seconds


async def spend(budget: Budget, count: int = 1, until: float | None = None) -> str:
    async with budget.spend(count, until):
        return "spent"


def test_a_place_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(StoreBudget(at_once=1, wait=0), ThreadWorld())
    assert [run_now(spend(budget)) for _ in range(5)] == ["spent"] * 5


def test_a_place_is_given_back_after_a_failure() -> None:
    budget = Budget(StoreBudget(at_once=1, wait=0), ThreadWorld())

    async def fail() -> None:
        async with budget.spend(1):
            raise ValueError("the load failed")

    for _ in range(3):
        with pytest.raises(ValueError, match="the load failed"):
            run_now(fail())
    assert run_now(spend(budget)) == "spent"


def test_beyond_its_places_a_load_is_refused() -> None:
    budget = Budget(StoreBudget(at_once=1, wait=0), ThreadWorld())

    async def nested() -> None:
        async with budget.spend(1):
            await spend(budget)

    with pytest.raises(StoreBudgetExceeded, match="1 loads at once; waited 0"):
        run_now(nested())


def test_beyond_its_rate_a_load_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    budget = Budget(StoreBudget(per_s=10, wait="1s"), SleepingWorld(clock))
    for _ in range(15):
        run_now(spend(budget))
    assert clock.now == pytest.approx(50.5)


def test_a_wait_that_would_be_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    budget = Budget(StoreBudget(per_s=1, wait="500ms"), SleepingWorld(clock))
    run_now(spend(budget))
    with pytest.raises(StoreBudgetExceeded, match="1 per second"):
        run_now(spend(budget))
    assert clock.now == 50.0


def test_a_deadline_cuts_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    budget = Budget(StoreBudget(per_s=1, wait="10s"), SleepingWorld(clock))
    run_now(spend(budget))
    with pytest.raises(StoreBudgetExceeded):
        run_now(spend(budget, until=50.2))
    assert run_now(spend(budget, until=52.0)) == "spent"


def test_a_refused_load_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    budget = Budget(StoreBudget(at_once=1, per_s=1, wait=0), SleepingWorld(clock))
    run_now(spend(budget))
    for _ in range(3):
        with pytest.raises(StoreBudgetExceeded):
            run_now(spend(budget))
    clock.now += 1
    assert run_now(spend(budget)) == "spent"


class Inside:
    """How many are inside, and the most there were."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self.now -= 1


def test_threads_never_hold_more_than_the_places() -> None:
    budget, inside = Budget(StoreBudget(at_once=3, wait="30s"), ThreadWorld()), Inside()

    async def load() -> None:
        async with budget.spend(1):
            with inside:
                pass

    def work() -> None:
        for _ in range(200):
            run_now(load())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= inside.most <= 3


def test_tasks_never_hold_more_than_the_places() -> None:
    async def main() -> int:
        budget, inside = Budget(StoreBudget(at_once=3, wait="30s"), LoopWorld()), Inside()

        async def load() -> None:
            async with budget.spend(1):
                with inside:
                    await asyncio.sleep(0)

        await asyncio.gather(*(load() for _ in range(50)))
        return inside.most

    assert asyncio.run(main()) == 3


def test_a_cancelled_task_gives_its_place_back() -> None:
    async def main() -> str:
        budget = Budget(StoreBudget(at_once=1, wait="30s"), LoopWorld())
        began = asyncio.Event()

        async def hang() -> None:
            async with budget.spend(1):
                began.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hang())
        await began.wait()
        waiter = asyncio.create_task(spend(budget))
        await asyncio.sleep(0)
        for task in (waiter, holder):
            task.cancel()
        await asyncio.wait([waiter, holder])
        return await spend(budget)

    assert asyncio.run(main()) == "spent"


def test_without_a_wait_a_task_takes_a_free_place() -> None:
    async def main() -> list[str]:
        budget = Budget(StoreBudget(at_once=1, wait=0), LoopWorld())
        return [await spend(budget) for _ in range(3)]

    assert asyncio.run(main()) == ["spent"] * 3
