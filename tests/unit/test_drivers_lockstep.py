"""`drivers.lockstep`: a batch is single-key coroutines whose questions are asked together."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cachelib import steps
from cachelib.drivers import AskingPort, lockstep, run_now
from cachelib.errors import CacheError, CacheUnavailable, LoadFailed
from cachelib.item import apply
from cachelib.model import Answer, Item, Name, Op, Release, value_of
from cachelib.port import Loaded
from tests.unit.test_steps_read import PLAN, World


class Batch(World):
    """A node and a store that answer batches, and write down each round."""

    def __init__(self, items: dict[Name, Item] | None = None, *, ahead: int = 0) -> None:
        super().__init__()
        self.items: dict[Name, Item | None] = dict(items or {})
        self.rounds: list[tuple[str, int]] = []
        self.waited_ms = 0
        self.failing: dict[Any, CacheError] = {}
        self.interruption: BaseException | None = None
        self._first = ahead

    def nonce(self) -> int:
        return self._first + super().nonce()

    async def execute_many(self, batch: Sequence[tuple[Name, Op]]) -> Sequence[Answer | CacheError]:
        self.rounds.append(("execute", len(batch)))
        return [self.failing.get(name) or self._apply(name, op) for name, op in batch]

    def _apply(self, name: Name, op: Op) -> Answer:
        self.items[name], answer = apply(self.items.get(name), op, self.now_ms())
        return answer

    async def load_many(self, keys: Sequence[Any]) -> Sequence[Loaded | CacheError]:
        self.rounds.append(("load", len(keys)))
        if self.interruption is not None:
            raise self.interruption
        return [self.failing.get(key) or Loaded(value_of(key.encode()), key, True, 2, 0) for key in keys]

    async def wait(self, name: Name, ms: int) -> None:
        self.rounds.append(("wait", 1))
        self.waited_ms += ms


def reads(port: Any, *keys: str, **changes: Any) -> list[Any]:
    return [
        steps.read(AskingPort(port), replace(PLAN, key=key, names=(key.encode(),), **changes))  # type: ignore[arg-type]
        for key in keys
    ]


def test_one_round_for_all_leases_one_for_all_loads_one_for_all_fills() -> None:
    port = Batch()
    results = run_now(lockstep(port, reads(port, "a", "b", "c")))  # type: ignore[arg-type]
    assert [found.value for found in results] == ["a", "b", "c"]
    assert port.rounds == [("execute", 3), ("load", 3), ("execute", 3)]


def test_operations_go_before_loads_and_loads_before_pauses() -> None:
    held = Item(lease=99, lease_until_ms=PLAN.pace.hold_ms + World().now_ms())
    port = Batch({b"held": held})
    results = run_now(lockstep(port, reads(port, "held", "free")))  # type: ignore[arg-type]
    assert port.rounds[:4] == [("execute", 2), ("load", 1), ("execute", 1), ("wait", 1)]
    assert [found.source for found in results] == ["store", "filled"]


def test_an_error_ends_only_its_own_read() -> None:
    port = Batch()
    port.failing = {"b": LoadFailed("no b"), b"c": CacheUnavailable("no c")}
    results = run_now(lockstep(port, reads(port, "a", "b", "c", store_when_down=False)))  # type: ignore[arg-type]
    assert results[0].value == "a"
    assert isinstance(results[1], LoadFailed)
    assert isinstance(results[2], CacheUnavailable)


class Crossing(Batch):
    """Its operations reach the node one at a time, so that another batch may come between."""

    async def execute_many(self, batch: Sequence[tuple[Name, Op]]) -> Sequence[Answer | CacheError]:
        answers: list[Answer] = []
        for name, op in batch:
            answers.append(self._apply(name, op))
            await _turn()
        return answers

    async def wait(self, name: Name, ms: int) -> None:
        self.waited_ms += ms
        await _turn()


@types.coroutine
def _turn() -> Generator[None, None, None]:
    yield


def take_turns(*batches: Any) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(batches):
        for at, batch in enumerate(batches):
            if at not in results:
                try:
                    batch.send(None)
                except StopIteration as done:
                    results[at] = done.value
    return [results[at] for at in range(len(batches))]


def test_two_batches_that_hold_each_others_leases_do_not_wait_them_out() -> None:
    """Each has one lease and wants the other's: both load and fill what they hold before they wait."""
    one, other = Crossing(), Crossing(ahead=1_000)
    other.items = one.items
    both = take_turns(
        lockstep(one, reads(one, "a", "b")),  # type: ignore[arg-type]
        lockstep(other, reads(other, "b", "a")),  # type: ignore[arg-type]
    )
    assert [[found.source for found in batch] for batch in both] == [["filled", "hit"], ["filled", "hit"]]
    assert max(one.waited_ms, other.waited_ms) <= 2 * steps.FIRST_WAIT_MS


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_interrupted_batch_abandons_its_leases(interruption: BaseException) -> None:
    port = Batch()
    port.interruption = interruption
    with pytest.raises(type(interruption)):
        run_now(lockstep(port, reads(port, "a", "b")))  # type: ignore[arg-type]
    assert [type(op) for op in port.abandoned] == [Release, Release]
    assert port.landed == [None, None]


def test_a_read_that_breaks_at_its_start_leaves_no_other_unfinished() -> None:
    port = Batch()

    async def broken() -> None:
        raise RuntimeError("a bug")  # no error of the cache: the batch as a whole ends

    first, last = reads(port, "a", "b")
    with pytest.raises(RuntimeError, match="a bug"):
        run_now(lockstep(port, [first, broken(), last]))  # type: ignore[arg-type]
    assert first.cr_frame is None
    assert last.cr_frame is None  # closed, though it never began


def test_a_port_for_threads_must_not_suspend() -> None:
    port = World()
    with pytest.raises(RuntimeError, match="suspended"):
        run_now(reads(port, "a")[0])
