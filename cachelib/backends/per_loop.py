"""The connection to a node that each event loop has: made when first asked for, and again when it broke.

A backend may serve several loops (in several threads), each over a connection of its own. There
is no thread and no task in the background: one task connects, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from cachelib.backends.multiplexed import Multiplexed
from cachelib.errors import CacheUnavailable
from cachelib.forks import forgets_on_fork
from cachelib.proof import Seen, tell

R = TypeVar("R")
Loop = asyncio.AbstractEventLoop


class PerLoop(Generic[R]):
    """See the module.

    `dial` connects on the running loop, within its own bounds; it raises `CacheUnavailable`.
    """

    def __init__(self, dial: Callable[[], Awaitable[Multiplexed[R]]], place: str, *, wait_ms: int) -> None:
        self._dial = dial
        self._place = place
        self._wait_ms = wait_ms
        self._inherited: list[Multiplexed[R]] = []
        self._ask_start: Callable[[Multiplexed[R]], Awaitable[str]] | None = None
        self._watchers: list[Seen] = []
        self._start()
        forgets_on_fork(self)

    def _start(self) -> None:
        self._last: Multiplexed[R] | None = None
        self._lines: dict[Loop, Multiplexed[R]] = {}
        self._dialling: dict[Loop, asyncio.Task[Multiplexed[R]]] = {}

    def now(self) -> Multiplexed[R] | None:
        """The running loop's connection, where it can be asked without waiting."""
        line = self._last
        if line is None or not line.usable or line.full or line.loop is not asyncio.get_running_loop():
            return None
        return line

    async def ready(self) -> Multiplexed[R]:
        """The running loop's connection, with a free place on it. Raises `CacheUnavailable`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_ms / 1000
        while True:
            line = self._lines.get(loop)
            if line is None or not line.usable:
                line = await self._connected(loop)
            if line.usable and not line.full:
                self._last = line
                return line
            if not await line.free_place(until - loop.time()):
                raise CacheUnavailable(
                    f"{self._place}: as many requests as may be under way at once were so for {self._wait_ms} ms:"
                    " raise in_flight_max, or ask less at once"
                )

    def watch(self, ask: Callable[[Multiplexed[R]], Awaitable[str]], seen: Seen) -> None:
        """See `Backend.watch`. `ask`: which start of the server a connection leads to; "": it does not tell."""
        self._ask_start = ask
        self._watchers.append(seen)  # several caches may share a backend
        self._retire_all()

    def _retire_all(self) -> None:
        """Every loop's connection is asked nothing more."""
        for loop, line in list(self._lines.items()):
            line.usable = False
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(line.retire)

    async def close(self) -> None:
        """Close the running loop's connection, behind what is still under way on it."""
        loop = asyncio.get_running_loop()
        dialling = self._dialling.pop(loop, None)
        if dialling is not None:
            dialling.cancel()
            await asyncio.wait([dialling])
        line = self._lines.pop(loop, None)
        if line is not None:
            line.retire()
            await line.lost

    # --- connecting --------------------------------------------------------------------------

    async def _connected(self, loop: Loop) -> Multiplexed[R]:
        """One task connects, for all who wait: who is cancelled meanwhile disturbs nobody."""
        task = self._dialling.get(loop)
        if task is None or task.done():
            task = self._dialling[loop] = loop.create_task(self._connect(loop))
            task.add_done_callback(_looked_at)
        await asyncio.wait([task])
        if task.cancelled():
            raise CacheUnavailable(f"{self._place}: the backend was closed while a call was connecting")
        error = task.exception()
        if isinstance(error, CacheUnavailable):
            raise type(error)(*error.args) from error  # one of its own for each who waited
        return task.result()

    async def _connect(self, loop: Loop) -> Multiplexed[R]:
        for other in [other for other in list(self._lines) if other.is_closed()]:
            self._lines.pop(other, None)
            self._dialling.pop(other, None)
        line = await self._dial()
        if self._ask_start is not None:
            try:
                start = await self._ask_start(line)
            except BaseException:  # cancelled, too
                line.retire()
                raise
            if tell(self._watchers, start):
                self._retire_all()
        self._lines[loop] = line
        return line

    # --- after a fork ------------------------------------------------------------------------

    def forget(self) -> None:
        """In a child after a fork: the connections are the parent's, and so is the selector that they are in.

        So they are neither closed nor let go, which would take them out of it. Our end of each is
        replaced by nothing, or the server would not see the parent's close while the child lives.
        """
        self._inherited += self._lines.values()
        self._start()
        nothing = os.open(os.devnull, os.O_RDWR)
        for line in self._inherited:
            with contextlib.suppress(OSError):
                if (fileno := line.fileno()) >= 0:
                    os.dup2(nothing, fileno)
        os.close(nothing)


def _looked_at(task: asyncio.Task[Multiplexed[R]]) -> None:
    """Everybody who waited may be gone: its error is nobody's then."""
    if not task.cancelled():
        task.exception()
