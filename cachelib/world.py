"""The world that the core runs in: waiting, gates and flights, awaited.

The core (`core.py`, `view.py`, `nodes.py`, `budget.py`) is written once, in coroutines over these
protocols. `threads.py` has a world whose methods never suspend, so that `drivers.run_now` runs
the core to its end in the calling thread; `loops.py` has the one of an asyncio event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence
from typing import Any, Protocol

from cachelib.model import Name, Op
from cachelib.port import Landing


class Gate(Protocol):
    """So many may be inside at once."""

    async def enter(self, timeout_s: float) -> bool:
        """Take a place; False: none became free in time."""

    def leave(self) -> None:
        """Give the place back."""


class Flights(Protocol):
    """One load per key and process: the first caller flies, the others wait for it to land.

    The lease does the same among processes; a flight saves the waiters of one process their
    polling.
    """

    @property
    def under_way(self) -> Collection[Name]:
        """What may be joined. One object always, so that to look whether there is anything takes no call."""

    def take_off(self, name: Name) -> Hashable | None:
        """Begin a flight; None where one is under way already (its lease ended under a slow load)."""

    def land(self, name: Name, flight: Hashable, landing: Landing) -> None:
        """End the flight that `take_off` began; its waiters get `landing`."""

    def forget(self, name: Name) -> None:
        """Nobody joins the flight for `name` any more, as this process has changed it; who has joined it goes on."""

    async def join(self, name: Name, timeout_s: float) -> Landing:
        """How the flight for `name` lands; None where there is none, or when the time is up."""

    async def wait(self, name: Name, timeout_s: float) -> None:
        """Let the time pass, or less if a flight for `name` lands."""


class Abandon(Protocol):
    """See `Port.abandon`."""

    def __call__(self, name: Name, op: Op) -> None:
        """Execute `op` some time."""


class World(Protocol):
    """What differs between threads and an event loop."""

    @property
    def flights(self) -> Flights:
        """The loads under way."""

    def gate(self, places: int) -> Gate:
        """A gate with so many places."""

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""

    async def together(self, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Run all of them to their ends, at once where this world can. They raise nothing but interruptions."""

    async def within(self, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """Run a call, but wait for it no longer than this. False: it is not done, and ends by itself some time.

        What it raises within the time is raised here.
        """
