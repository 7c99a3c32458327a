"""A client program under simulation: the asyncio face itself, over a simulated world, store and node."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from cachelib.aio import AsyncCache
from cachelib.entity import Entity
from cachelib.errors import CacheError
from cachelib.model import Name, Op
from cachelib.policy import StoreBudget
from cachelib.port import Landing
from cachelib.testing.sim.history import Seen
from cachelib.testing.sim.loop import Loop, Process, Signal, Task, pause, until
from cachelib.testing.sim.store import SimStore
from cachelib.world import World


class Cancelled(BaseException):
    """The caller of a call gave it up."""


class SimFlight:
    """One load under way."""

    def __init__(self) -> None:
        self.landed = Signal()
        self.done = False
        self.landing: Landing = None


class SimFlights:
    """See `Flights`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.under_way: dict[Name, SimFlight] = {}

    def take_off(self, name: Name) -> SimFlight | None:
        """See `Flights.take_off`."""
        if name in self.under_way:
            return None
        flight = self.under_way[name] = SimFlight()
        return flight

    def land(self, name: Name, flight: Any, landing: Landing) -> None:
        """See `Flights.land`."""
        if self.under_way.get(name) is flight:
            del self.under_way[name]
        flight.done, flight.landing = True, landing
        self._loop.fire(flight.landed)

    def forget(self, name: Name) -> None:
        """See `Flights.forget`."""
        self.under_way.pop(name, None)

    async def join(self, name: Name, timeout_s: float) -> Landing:
        """See `Flights.join`."""
        flight = self.under_way.get(name)
        if flight is None:
            return None
        await until(flight.landed, max(0, int(timeout_s * 1e6)))
        return flight.landing if flight.done else None

    async def wait(self, name: Name, timeout_s: float) -> None:
        """See `Flights.wait`."""
        flight = self.under_way.get(name)
        us = max(1, int(timeout_s * 1e6))
        if flight is None:
            await pause(us)
        else:
            await until(flight.landed, us)


class SimGate:
    """See `Gate`."""

    def __init__(self, loop: Loop, places: int) -> None:
        self._loop = loop
        self._free = places
        self._left = Signal()

    async def enter(self, timeout_s: float) -> bool:
        """See `Gate.enter`."""
        last_us = self._loop.now_us + int(max(0.0, timeout_s) * 1e6)
        while self._free <= 0:
            if self._loop.now_us >= last_us:
                return False
            await until(self._left, last_us - self._loop.now_us)
        self._free -= 1
        return True

    def leave(self) -> None:
        """See `Gate.leave`."""
        self._free += 1
        self._loop.fire(self._left)


class SimWorld:
    """See `World`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.flights = SimFlights(loop)

    def gate(self, places: int) -> SimGate:
        """See `World.gate`."""
        return SimGate(self._loop, places)

    async def sleep(self, seconds: float) -> None:
        """See `World.sleep`."""
        await pause(int(seconds * 1e6))

    async def together(self, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
        """See `World.together`."""
        if len(calls) == 1:
            await calls[0]
            return
        loop = self._loop
        tasks = [loop.spawn(loop.current.process, call, loop.current.random) for call in calls]
        try:
            for task in tasks:
                while not task.done:
                    await until(task.ended, 60_000_000)
        except BaseException:
            for task in tasks:
                loop.throw(task, Cancelled())
            raise
        for task in tasks:
            if task.error is not None:
                raise task.error

    async def within(self, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """See `World.within`: what is not done in time is cancelled."""
        loop = self._loop
        task = loop.spawn(loop.current.process, call(), loop.current.random)
        try:
            await until(task.ended, int(seconds * 1e6))
        except BaseException:
            loop.throw(task, Cancelled())
            raise
        if not task.done:
            loop.throw(task, Cancelled())
            return False
        if task.error is not None:
            raise task.error
        return True


class SimCache(AsyncCache):
    """`AsyncCache`, whose cancelled calls are finished by a task of the simulation."""

    def __init__(self, loop: Loop, process: Process, backend: Any, store: SimStore, entities: tuple[Entity, ...]):
        self._sim = loop, process
        super().__init__(backend, store=store, entities=entities, budget=StoreBudget(wait="5s"))

    def _world(self) -> World:
        return SimWorld(self._sim[0])

    def _abandon(self, name: Name, op: Op) -> None:
        loop, process = self._sim

        async def execute() -> None:
            try:
                await self._pool.execute(name, op)
            except CacheError:
                pass  # nobody waits for it

        loop.spawn(process, execute(), Random(loop.current.random.getrandbits(32)))


class Client:
    """A process with its cache, and the calls that it is in."""

    def __init__(self, process: Process, cache: SimCache, node: Any) -> None:
        self.process = process
        self.cache = cache
        self.node = node
        self.calls: list[Task] = []
        self.own: Seen = {}
        """What it wrote and its node confirmed."""
