"""Conversations side by side: all are asked before any is waited for, and each waits for its own server only."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from cachelib.overlap import answer, place, side_by_side, to_its_end, turn

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Connections, our end and the server's."""
    made = [socket.socketpair() for _ in range(5)]
    yield made
    for ours, theirs in made:
        ours.close()
        theirs.close()


def test_all_are_asked_before_any_is_read(pairs: list[Pair]) -> None:
    """The first is answered when the last has been asked, and by nobody else: one after the other would hang."""
    told: list[bytes] = []

    async def talk(number: int) -> None:
        ours, _ = pairs[number]
        ours.settimeout(30)
        ours.sendall(b"?")
        if number == len(pairs) - 1:
            for _, theirs in pairs:
                theirs.sendall(b"!")
        await answer(ours, 30.0)
        told.append(ours.recv(1))

    side_by_side([talk(number) for number in range(len(pairs))])
    assert told == [b"!"] * len(pairs)


def test_who_is_answered_goes_on_while_others_wait(pairs: list[Pair]) -> None:
    """A second round of one server does not wait for the first of another."""
    done: list[str] = []

    async def two_rounds() -> None:
        ours, theirs = pairs[0]
        for _ in range(2):
            theirs.sendall(b"!")
            await answer(ours, 30.0)
            ours.recv(1)
        done.append("two rounds")
        pairs[1][1].sendall(b"!")

    async def slow() -> None:
        await answer(pairs[1][0], 30.0)
        done.append("slow")

    side_by_side([slow(), two_rounds()])
    assert done == ["two rounds", "slow"]


def test_all_servers_that_hang_cost_one_timeout(pairs: list[Pair]) -> None:
    late: list[int] = []

    async def talk(number: int) -> None:
        ours = pairs[number][0]
        ours.settimeout(1.0)
        try:
            await answer(ours, 1.0)
            ours.recv(1)
        except TimeoutError:
            late.append(number)

    began = time.monotonic()
    side_by_side([talk(number) for number in range(len(pairs))])
    assert sorted(late) == [*range(len(pairs))]
    assert time.monotonic() - began < 4  # one after the other: 5 s at least


def test_who_has_to_connect_lets_others_send_first(pairs: list[Pair]) -> None:
    order: list[str] = []

    async def connects() -> None:
        await turn()
        order.append("connects")

    async def sends() -> None:
        order.append("sends")
        pairs[0][1].sendall(b"!")
        await answer(pairs[0][0], 30.0)
        order.append("reads")

    side_by_side([connects(), sends()])
    assert order == ["sends", "connects", "reads"]


def test_nobody_waits_for_a_connection_while_he_holds_one(pairs: list[Pair]) -> None:
    order: list[str] = []

    async def waits() -> None:
        await place()
        order.append("waits")

    async def holds() -> None:
        pairs[0][1].sendall(b"!")
        await answer(pairs[0][0], 30.0)
        order.append("gave back")

    side_by_side([waits(), holds(), waits()])
    assert order == ["gave back", "waits", "waits"]


@pytest.mark.parametrize("where", [turn, place, None])
def test_an_interruption_ends_the_others_too(pairs: list[Pair], where: Callable[[], Any] | None) -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await answer(pairs[0][0], 30.0)
        finally:
            ended.append("waiting")

    async def interrupted() -> None:
        await (where() if where is not None else answer(pairs[1][0], 30.0))
        raise KeyboardInterrupt

    pairs[1][1].sendall(b"!")
    calls: list[Coroutine[Any, Any, None]] = [other(), interrupted()]
    if where is place:  # it comes last
        pairs[0][1].sendall(b"!")
    with pytest.raises(KeyboardInterrupt):
        side_by_side(calls)
    assert ended == ["waiting"]


def test_alone_a_conversation_just_goes_on(pairs: list[Pair]) -> None:
    async def talk() -> bytes:
        ours, theirs = pairs[0]
        await turn()
        await place()
        theirs.sendall(b"!")
        await answer(ours, None)
        return ours.recv(1)

    assert to_its_end(talk()) == b"!"


def test_who_waits_for_anything_else_is_told() -> None:
    class Other:
        def __await__(self) -> Iterator[None]:
            yield None

    async def wrong() -> None:
        await Other()

    with pytest.raises(RuntimeError, match="suspended: it waited"):
        to_its_end(wrong())
    with pytest.raises(RuntimeError, match="suspended: it waited"):
        side_by_side([wrong(), wrong()])
