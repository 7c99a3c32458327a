"""The world of an asyncio event loop. Cancelling a waiter disturbs nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cachelib.model import Name
from cachelib.port import Landing


class LoopGate:
    """See `Gate`."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    async def enter(self, timeout_s: float) -> bool:
        """See `Gate.enter`."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._places.acquire()
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """See `Gate.leave`."""
        self._places.release()


class LoopFlights:
    """See `Flights`."""

    def __init__(self) -> None:
        self.under_way: dict[Name, asyncio.Future[Landing]] = {}

    def take_off(self, name: Name) -> asyncio.Future[Landing] | None:
        """See `Flights.take_off`."""
        if name in self.under_way:
            return None
        flight = self.under_way[name] = asyncio.get_running_loop().create_future()
        return flight

    def land(self, name: Name, flight: Any, landing: Landing) -> None:
        """See `Flights.land`."""
        if self.under_way.get(name) is flight:
            del self.under_way[name]
        if not flight.done():
            flight.set_result(landing)

    def forget(self, name: Name) -> None:
        """See `Flights.forget`."""
        self.under_way.pop(name, None)

    async def join(self, name: Name, timeout_s: float) -> Landing:
        """See `Flights.join`."""
        flight = self.under_way.get(name)
        if flight is None:
            return None
        done, _ = await asyncio.wait([flight], timeout=timeout_s)
        return flight.result() if done else None

    async def wait(self, name: Name, timeout_s: float) -> None:
        """See `Flights.wait`."""
        flight = self.under_way.get(name)
        if flight is None:
            await asyncio.sleep(timeout_s)
        else:
            await asyncio.wait([flight], timeout=timeout_s)


class LoopWorld:
    """See `World`."""

    def __init__(self) -> None:
        self.flights = LoopFlights()

    def gate(self, places: int) -> LoopGate:
        """See `World.gate`."""
        return LoopGate(places)

    async def sleep(self, seconds: float) -> None:
        """See `World.sleep`."""
        await asyncio.sleep(seconds)

    async def together(self, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
        """See `World.together`."""
        if len(calls) == 1:
            await calls[0]
            return
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(call)
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def within(self, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """See `World.within`: what is not done in time is cancelled."""
        task = asyncio.get_running_loop().create_task(call())
        task.add_done_callback(_looked_at)
        try:
            done, _ = await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            task.result()
            return True
        task.cancel()
        return False


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Nobody may wait for it any more: its error is not lost, it was not asked for."""
    if not task.cancelled():
        task.exception()
