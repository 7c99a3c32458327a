"""The breaker, and the node behind it: what counts as a failure, and who is let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cachelib import nodes
from cachelib.backends import Memory
from cachelib.backends.base import Batch, Results
from cachelib.breaker import Breaker
from cachelib.drivers import run_now
from cachelib.errors import CacheFull, CacheUnavailable, ConfigError
from cachelib.model import Get, Name, NoOp, Op, Revoke
from cachelib.nodes import Node


def opened(failures: int = 3, retry_ms: int = 100) -> Breaker:
    breaker = Breaker(failures, retry_ms)
    for _ in range(failures):
        breaker.failed_at(1_000)
    return breaker


def test_it_is_closed_at_first() -> None:
    assert not Breaker().open
    assert Breaker().lets_through(0)


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(3, 100)
    states = []
    for _ in range(3):
        breaker.failed_at(1_000)
        states.append(breaker.open)
    assert states == [False, False, True]


def test_a_success_starts_the_count_anew() -> None:
    breaker = Breaker(2, 100)
    for _ in range(5):
        breaker.failed_at(1_000)
        breaker.succeeded()
    assert not breaker.open
    assert breaker.opened == 0


def test_an_open_one_lets_nobody_through_for_a_while() -> None:
    breaker = opened()
    assert not any(breaker.lets_through(now) for now in range(1_000, 1_100, 10))


def test_an_open_one_lets_one_through_each_time() -> None:
    breaker = opened()
    assert [breaker.lets_through(now) for now in (1_100, 1_100, 1_150, 1_200, 1_200)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_failed_try_makes_it_wait_again() -> None:
    breaker = opened()
    assert breaker.lets_through(1_100)
    breaker.failed_at(1_150)
    assert not breaker.lets_through(1_249)
    assert breaker.lets_through(1_250)


def test_a_successful_try_closes_it() -> None:
    breaker = opened()
    breaker.lets_through(1_100)
    breaker.succeeded()
    assert all(breaker.lets_through(1_101) for _ in range(3))


def test_it_counts_how_often_it_opened() -> None:
    breaker = opened()
    breaker.failed_at(1_100)
    assert breaker.opened == 1
    breaker.succeeded()
    for _ in range(3):
        breaker.failed_at(2_000)
    assert breaker.opened == 2


def test_a_clock_set_back_does_not_keep_it_open() -> None:
    assert opened().lets_through(500)


@pytest.mark.parametrize(("failures", "retry_ms"), [(0, 100), (1, 0), (-1, 5)])
def test_wrong_settings_are_refused(failures: int, retry_ms: int) -> None:
    with pytest.raises(ConfigError):
        Breaker(failures, retry_ms)


# --- a node behind a breaker -----------------------------------------------------------------

REVOKE = Revoke(0)


class Faulty:
    """A backend that fails in the way it is told to."""

    capability = Memory.capability

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.in_place = False
        """A batch has its errors in their places, as the protocol allows, and raises nothing."""
        self.calls = 0

    def _maybe(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error

    async def get(self, name: Name) -> bytes | None:
        self._maybe()
        return None

    async def get_many(self, names: list[Name]) -> list[bytes | None]:
        self._maybe()
        return [None for _ in names]

    async def execute(self, name: Name, op: Op, now_ms: int) -> NoOp:
        self._maybe()
        return NoOp()

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        if self.in_place and self.error is not None:
            self.calls += 1
            return [self.error for _ in batch]  # type: ignore[misc]
        self._maybe()
        return [NoOp() for _ in batch]


CALLS: list[Callable[[Node], Any]] = [
    lambda node: node.get(b"a"),
    lambda node: node.get_many([b"a", b"b"]),
    lambda node: node.execute(b"a", REVOKE),
    lambda node: node.execute_many([(b"a", REVOKE), (b"b", REVOKE)]),
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000_000]
    monkeypatch.setattr(nodes, "now_ms", lambda: now[0])
    return now


def tried(node: Node, call: Callable[[Node], Any]) -> bool:
    try:
        return all(not isinstance(one, Exception) for one in run_now(call(node)) or [])
    except TypeError:
        return True
    except (CacheUnavailable, CacheFull):
        return False


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_node_that_does_not_answer_is_left_alone(
    call: Callable[[Node], Any], in_place: bool, clock: list[int]
) -> None:
    backend = Faulty()
    backend.error, backend.in_place = CacheUnavailable("gone"), in_place
    node = Node(backend, Breaker(3, 100))  # type: ignore[arg-type]
    for _ in range(10):
        assert not tried(node, call)
    assert backend.calls == 3


@pytest.mark.parametrize("call", CALLS)
def test_a_node_that_answers_again_is_asked_again(call: Callable[[Node], Any], clock: list[int]) -> None:
    backend = Faulty()
    backend.error = CacheUnavailable("gone")
    node = Node(backend, Breaker(3, 100))  # type: ignore[arg-type]
    for _ in range(4):
        tried(node, call)
    backend.error = None
    assert not tried(node, call)
    clock[0] += 100
    assert [tried(node, call) for _ in range(3)] == [True] * 3


def test_a_batch_that_fails_in_part_is_a_failure(clock: list[int]) -> None:
    class Half(Faulty):
        async def execute_many(self, batch: Batch, now_ms: int) -> Results:
            return [NoOp(), CacheUnavailable("broke in the middle")]

    node = Node(Half(), Breaker(1, 100))  # type: ignore[arg-type]
    results = run_now(node.execute_many([(b"a", REVOKE), (b"b", REVOKE)]))
    assert isinstance(results[0], NoOp)
    assert node.breaker.open


@pytest.mark.parametrize("call", CALLS)
def test_a_full_node_does_answer(call: Callable[[Node], Any], clock: list[int]) -> None:
    backend = Faulty()
    backend.error = CacheFull("no memory")
    node = Node(backend, Breaker(1, 100))  # type: ignore[arg-type]
    for _ in range(3):
        assert not tried(node, call)
    assert backend.calls == 3


def test_the_refusal_says_what_happens_meanwhile(clock: list[int]) -> None:
    node = Node(Faulty(), Breaker(1, 100))  # type: ignore[arg-type]
    node.breaker.failed_at(clock[0])
    with pytest.raises(CacheUnavailable, match="left alone for a moment"):
        run_now(node.execute(b"a", Get(1, 100)))
