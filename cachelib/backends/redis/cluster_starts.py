"""What a strong read on a Redis Cluster stands on: since when a slot is at a start of a master. Pure but for the clock.

In a cluster old data may come to a server in two ways: it restarts or is promoted (another *start*: run id and
replication id), or a slot comes to it with its items, from a master that may have been promoted with less (an
*arrival*). So what was loaded before a process knew of both may not be served as strong; what was loaded since may, as
on one node (PROTOCOL.md, "Failover"): every write since was told to this start, while the slot was there.

A slot that left and came back unseen shows in the master's configuration epoch: who takes a slot over gets a higher
one. So the epoch is a part of the start, and a master is asked for it every `LOOK_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

LOOK_S = 0.25
"""A master is asked so often which start it is, while strong reads go on."""
VALID_S = 0.5
"""An answer that comes later after that question counts for nothing. No slot leaves a master, loses writes in another
one's failover and comes back in so short a time: a failover alone takes a cluster-node-timeout to begin."""
ARRIVALS_KEPT = 1024


class Arrival:
    """Of a slot at a start of a master; of the slots that a master had all along, its start itself."""

    __slots__ = ("began", "instance", "looked_at", "master", "since_us")

    def __init__(self, instance: str, master: Arrival | None = None) -> None:
        self.instance = instance
        self.master = self if master is None else master
        self.since_us: int | None = None
        """The store's clock, asked after this was known."""
        self.looked_at = float("-inf")
        """When the question began that was answered last: it still is this start. Of the monotonic clock, seconds."""
        self.began = float("-inf")
        """When somebody last began to ask."""


class Start:
    """What one read stands on, as found before it looks."""

    __slots__ = ("_arrival", "_place", "_slot", "_starts")

    def __init__(self, starts: Starts, slot: int, place: str, arrival: Arrival) -> None:
        self._starts, self._slot, self._place, self._arrival = starts, slot, place, arrival

    @property
    def since_us(self) -> int | None:
        """See `Arrival.since_us`."""
        return self._arrival.since_us

    @since_us.setter
    def since_us(self, value: int) -> None:
        self._arrival.since_us = value

    def holds(self) -> bool:
        """Asked after an answer: it was this start's, and the slot was there all the while."""
        if self._starts.current(self._slot, self._place) is not self._arrival:
            return False
        return self._starts.clock() - self._arrival.master.looked_at <= VALID_S


class Starts:
    """Of all masters of a cluster, as one process met them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._masters: dict[str, Arrival] = {}
        self._moves = 0
        self._moved: dict[int, int] = {}
        """Slots that were elsewhere once, as this process saw it, and in which move it saw them move last."""
        self._arrivals: dict[tuple[int, str], Arrival] = {}
        """By move and place."""

    def master(self, place: str) -> Arrival | None:
        """The start that answered at this place last."""
        return self._masters.get(place)

    def told(self, place: str, instance: str) -> Arrival:
        """Which start answers there. Another one than before: nothing that was known of the place holds any more."""
        master = self._masters.get(place)
        if master is None or master.instance != instance:
            master = self._masters[place] = Arrival(instance)
        return master

    def moved(self, slots: Iterable[int]) -> None:
        """These slots, or a key of them, are elsewhere than they were. To be told before anybody goes by it."""
        self._moves += 1
        self._moved |= dict.fromkeys(slots, self._moves)

    def current(self, slot: int, place: str) -> Arrival | None:
        """What is known of the slot at this place; None: nothing."""
        master = self._masters.get(place)
        if slot not in self._moved:
            return master
        arrival = self._arrivals.get((self._moved[slot], place))
        return arrival if arrival is not None and arrival.master is master else None

    def of(self, slot: int, place: str) -> Start | None:
        """What a read of this slot stands on from now on; None where the master does not tell its start."""
        master = self._masters.get(place)
        if master is None or not master.instance:
            return None
        arrival = self.current(slot, place)
        if arrival is None:
            if len(self._arrivals) >= ARRIVALS_KEPT:  # of moves long ago, most of them; what is dropped is met anew
                self._arrivals.clear()
            arrival = self._arrivals[self._moved[slot], place] = Arrival(master.instance, master)
        return Start(self, slot, place, arrival)
