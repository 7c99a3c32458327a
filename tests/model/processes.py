"""Coroutines that can be copied: a process is its script and the replies that it has had.

A coroutine of `steps.py` cannot be copied, but it is deterministic given the replies. So to
know what a process does next, its coroutine is run again from the start over a fixed world
and given the same replies. Answers are remembered: a search asks the same thing again and again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cachelib.drivers import AskingPort, Execute, Join, Load, Question, Wait
from cachelib.errors import CacheError
from cachelib.model import Answer, BelowFloor, Held, Hit, Item, Leased, Name, Op

NOW_MS = 1_000_000
"""The clock of the search stands still; what time would do are moves of the world."""

Script = Callable[[Any], Coroutine[Any, Any, Any]]


class Cancelled(BaseException):
    """The caller of an operation gave up."""


class FixedWorld:
    """The part of a port that asks nobody. Nonces are 1, 2, …: the search makes them unique."""

    def __init__(self) -> None:
        self._nonces = itertools.count(1)
        self.abandoned: list[Op] = []

    def now_ms(self) -> int:
        return NOW_MS

    def nonce(self) -> int:
        return next(self._nonces)

    def jitter(self) -> float:
        return 0.0

    def note(self, event: str) -> None:
        pass

    def abandon(self, name: Name, op: Op) -> None:
        self.abandoned.append(op)

    def take_off(self, name: Name) -> None:
        pass

    def land(self, name: Name, landing: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Asks:
    """The process waits for an answer to this."""

    question: Execute | Load


@dataclass(frozen=True, slots=True)
class Ended:
    """The process is done: its result, or the error it raised, and what it left to be executed some time."""

    result: Any
    abandoned: tuple[Op, ...] = ()


def replay(script: Script, replies: tuple[Any, ...]) -> Asks | Ended:
    """Where a process stands after these replies; an exception among them is thrown in."""
    world = FixedWorld()
    steps = script(AskingPort(world))  # type: ignore[arg-type]
    try:
        question = _answer_pauses(steps, steps.send(None))
        for reply in replies:
            failed = isinstance(reply, BaseException)
            question = _answer_pauses(steps, steps.throw(reply) if failed else steps.send(reply))
    except StopIteration as done:
        return Ended(done.value, tuple(world.abandoned))
    except (CacheError, Cancelled) as error:
        return Ended(error, tuple(world.abandoned))
    finally:
        steps.close()
    return Asks(question)


def _answer_pauses(steps: Coroutine[Any, Any, Any], question: Question) -> Execute | Load:
    """A pause touches nothing that others see, so it is not a step of the search."""
    while isinstance(question, Wait | Join):
        question = steps.send(None)
    return question


def as_told(answer: Answer, whole_items: bool) -> Answer:
    """An answer without what a process does not look at, so that equal futures are one state.

    The item that comes with a lease counts only where loads fail or stale content may be shown.
    """
    match answer:
        case Hit(item):
            return Hit(Item(item.content, version=item.version))
        case Leased(token, item):
            return Leased(token, item.but(lease=0, lease_until_ms=0) if whole_items else Item())
        case Held(_, item):
            return Held(1, item.but(lease=0, lease_until_ms=0) if whole_items else Item())
        case BelowFloor():
            return BelowFloor(0)
        case _:
            return answer
