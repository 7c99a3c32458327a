"""`steps.settle`: a writer's cache step, which is done only when it was answered (I7)."""

from __future__ import annotations

from typing import Any

from cachelib import steps
from cachelib.drivers import AskingPort, Execute, Wait
from cachelib.errors import CacheUnavailable
from cachelib.model import NoOp, RaiseFloor
from cachelib.steps import WritePlan
from tests.unit.test_steps_read import World

OP = RaiseFloor(2, "update", 10_000)
DOWN = CacheUnavailable("no answer")


def settle(names: tuple[bytes, ...], *executes: Any) -> tuple[bool, list[bytes], list[int]]:
    """The result, the names asked in turn, and the pauses between."""
    run = steps.settle(AskingPort(World()), WritePlan(names, OP))  # type: ignore[arg-type]
    told, asked, pauses, reply = iter(executes), [], [], None
    try:
        while True:
            question = run.throw(reply) if isinstance(reply, Exception) else run.send(reply)
            if isinstance(question, Wait):
                pauses.append(question.ms)
                reply = None
            else:
                assert isinstance(question, Execute)
                asked.append(question.name)
                reply = next(told)
    except StopIteration as done:
        return done.value, asked, pauses


def test_an_answered_step_is_done() -> None:
    assert settle((b"a",), NoOp()) == (True, [b"a"], [])


def test_a_moving_key_is_told_under_both_names() -> None:
    assert settle((b"a", b"b"), NoOp(), NoOp()) == (True, [b"a", b"b"], [])


def test_a_step_without_an_answer_is_tried_again_after_a_growing_pause() -> None:
    done, asked, pauses = settle((b"a",), DOWN, DOWN, NoOp())
    assert (done, asked) == (True, [b"a"] * 3)
    assert pauses == [steps.FIRST_WAIT_MS, 2 * steps.FIRST_WAIT_MS]


def test_a_step_that_is_never_answered_is_not_done() -> None:
    done, asked, _ = settle((b"a",), *[DOWN] * steps.WRITE_TRIES)
    assert not done
    assert len(asked) == steps.WRITE_TRIES


def test_one_name_that_is_not_told_is_enough_to_be_not_done() -> None:
    assert not settle((b"a", b"b"), NoOp(), *[DOWN] * steps.WRITE_TRIES)[0]
