"""The flights of threads: of those that miss one key, one looks and loads, and the others wait for it to land.

Safe after a fork: the parent's flights are nobody's here.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from cachelib.model import Name
from cachelib.port import Landing

YOUNG_S = 0.01
"""A thread whose key another began to look for so long ago, or less, joins that without asking the node itself: threads
that begin together do not begin in one moment. (Tasks do: those of a turn of the loop ask in one write.)"""


class ThreadFlight:
    """One call that looks and loads for others. `landed`: set when that is over; made by the first who waits for it."""

    __slots__ = ("began", "landed", "landing", "over")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.landed: threading.Event | None = None
        self.landing: Landing = None
        self.over = False


class ThreadFlights:
    """See `Flights`."""

    def __init__(self) -> None:
        self.under_way: dict[Name, ThreadFlight] = {}
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.under_way.clear()

    def take_off(self, name: Name) -> ThreadFlight | None:
        """See `Flights.take_off`."""
        if self._pid != os.getpid():  # the parent's flights never land here
            self._reset()
        with self._lock:
            if name in self.under_way:
                return None
            flight = self.under_way[name] = ThreadFlight()
            return flight

    def land(self, name: Name, flight: Any, landing: Landing) -> None:
        """See `Flights.land`."""
        flight.landing = landing
        with self._lock:  # who joins makes the event under it, so either sees the other
            flight.over = True
            if self.under_way.get(name) is flight:
                del self.under_way[name]
        if flight.landed is not None:
            flight.landed.set()

    def forget(self, name: Name) -> None:
        """See `Flights.forget`."""
        if self._flight(name) is not None:
            with self._lock:
                self.under_way.pop(name, None)

    def young(self, name: Name, now: float) -> bool:
        """Whether a flight for `name` took off less than `YOUNG_S` before `now` (of the monotonic clock, seconds)."""
        flight = self._flight(name)
        return flight is not None and now - flight.began < YOUNG_S

    async def join(self, name: Name, timeout_s: float) -> Landing:
        """See `Flights.join`."""
        flight = self._flight(name)
        return flight.landing if flight is not None and self._landed(flight).wait(timeout_s) else None

    async def wait(self, name: Name, timeout_s: float) -> None:
        """See `Flights.wait`."""
        flight = self._flight(name)
        if flight is None:
            time.sleep(timeout_s)
        else:
            self._landed(flight).wait(timeout_s)

    def _landed(self, flight: ThreadFlight) -> threading.Event:
        with self._lock:
            if flight.landed is None:
                flight.landed = threading.Event()
                if flight.over:  # it has landed meanwhile
                    flight.landed.set()
            return flight.landed

    def _flight(self, name: Name) -> ThreadFlight | None:
        return self.under_way.get(name) if self._pid == os.getpid() else None
