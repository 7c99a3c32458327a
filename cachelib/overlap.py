"""Conversations of one thread with several servers, side by side, and without another thread.

A conversation is a coroutine that yields where it would wait: `answer` when it has sent something and the answer is on
its way, `turn` before it connects, `place` before it waits for a connection that others have. Alone it is just let go
on, and blocks in its socket (`to_its_end`). Several are all let send first, and then each goes on when its own answer
is there (`side_by_side`): a server that hangs costs its own timeout, once for all that hang, and nobody's answer waits.
Connecting alone is one after the other, behind everything that can be sent at once.
"""

from __future__ import annotations

import select
import time
import types
from collections import deque
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")


class Socket(Protocol):
    """The part of a socket that is needed here. One of TLS has besides `pending()`: what is already deciphered."""

    def fileno(self) -> int:
        """Its number."""


class Wait:
    """What a conversation yields."""

    __slots__ = ()


class Turn(Wait):
    """See `turn`."""

    __slots__ = ()


class Place(Wait):
    """See `place`."""

    __slots__ = ()


class Answer(Wait):
    """See `answer`. `until`: of the monotonic clock, seconds."""

    __slots__ = ("sock", "until")

    def __init__(self, sock: Socket, timeout_s: float | None) -> None:
        self.sock = sock
        self.until = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    def is_here(self) -> bool:
        """Some of it was received already."""
        pending = getattr(self.sock, "pending", None)
        return pending is not None and bool(pending())


_TURN = Turn()
_PLACE = Place()


@types.coroutine
def turn() -> Generator[Wait, None, None]:
    """Let those go first who can send at once. Then the conversation may connect."""
    yield _TURN


@types.coroutine
def place() -> Generator[Wait, None, None]:
    """Let all others go first who hold a connection. Then it may wait until another thread gives one back.

    I10: two threads that each wait for a connection of which the other holds the last would wait in vain.
    """
    yield _PLACE


@types.coroutine
def answer(sock: Socket, timeout_s: float | None) -> Generator[Wait, None, None]:
    """Wait until there is something to read. Raises `TimeoutError`, or leaves the timeout to the socket."""
    yield Answer(sock, timeout_s)


def to_its_end(call: Coroutine[Any, Any, T]) -> T:
    """Run one conversation, or any coroutine that waits for nothing else."""
    try:
        while isinstance(call.send(None), Wait):
            pass
    except StopIteration as done:
        return cast(T, done.value)
    call.close()
    raise RuntimeError("a coroutine for threads suspended: it waited for something else than its server")


def side_by_side(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their ends. They raise nothing but interruptions; then the others are closed."""
    run = _SideBySide(calls)
    try:
        run.to_the_end()
    finally:
        run.close()


class _SideBySide:
    def __init__(self, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
        self._waiting: list[tuple[Answer, Coroutine[Any, Any, None]]] = []
        self._later = deque(calls)
        self._last: deque[Coroutine[Any, Any, None]] = deque()

    def to_the_end(self) -> None:
        while self._later or self._waiting or self._last:
            if self._later:
                self._go_on(self._later.popleft())
            elif not self._waiting:
                self._go_on(self._last.popleft())
            elif len(self._waiting) == 1:
                self._go_on(self._waiting.pop()[1])  # it blocks in its socket, which counts its timeout
            else:
                self._those_answered()

    def _go_on(self, call: Coroutine[Any, Any, None], late: TimeoutError | None = None) -> None:
        try:
            wait = call.send(None) if late is None else call.throw(late)
        except StopIteration:
            return
        if isinstance(wait, Answer):
            self._waiting.append((wait, call))
        elif isinstance(wait, Turn):
            self._later.append(call)
        elif isinstance(wait, Place):
            self._last.append(call)
        else:
            call.close()
            raise RuntimeError("a conversation suspended: it waited for something else than its server")

    def _those_answered(self) -> None:
        """Wait until one goes on, or is late."""
        waiting, self._waiting = self._waiting, []
        here = [wait.is_here() for wait, _ in waiting]
        poll = select.poll()
        for wait, _ in waiting:
            poll.register(wait.sock.fileno(), select.POLLIN)
        left_s = 0.0 if any(here) else min(wait.until for wait, _ in waiting) - time.monotonic()
        ready = dict(poll.poll(None if left_s == float("inf") else max(0.0, left_s) * 1000))
        now = time.monotonic()
        try:
            while waiting:
                (wait, call), known = waiting.pop(0), here.pop(0)
                if known or wait.sock.fileno() in ready:
                    self._go_on(call)
                elif now >= wait.until:
                    self._go_on(call, TimeoutError("timed out"))
                else:
                    self._waiting.append((wait, call))
        finally:
            self._waiting += waiting

    def close(self) -> None:
        for call in [*(call for _, call in self._waiting), *self._later, *self._last]:
            call.close()
