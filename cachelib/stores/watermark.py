"""Up to which time has the log been read? PROTOCOL.md, "Proof of freshness". Pure.

A poll's clock T was read before its snapshot, so every commit up to T has a transaction
number below that snapshot's xmax. Once a reader has everything below some number, all commits
up to the T of any poll whose xmax was no higher are behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock

_KEPT_MAX = 512


class Watermarks:
    """What all polls of one store have taught: pairs (xmax, T), both rising. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: list[tuple[int, int]] = []

    def learn(self, clock_us: int, xmax: int) -> None:
        """A poll read this clock, then took a snapshot with this xmax."""
        with self._lock:
            known = self._known
            last_xmax, last_us = known[-1] if known else (0, 0)
            if xmax < last_xmax:
                return  # a slower thread's poll: it knows nothing that is not known
            clock_us = max(clock_us, last_us)  # what was below a lower xmax is below a higher one
            if xmax == last_xmax:
                known[-1] = (xmax, clock_us)
                return
            known.append((xmax, clock_us))
            if len(known) > _KEPT_MAX:
                # A long transaction holds them all up: keep every other one, and both ends (I10).
                del known[1:-1:2]

    def claim(self, all_below: int) -> int | None:
        """The latest time up to which every commit has a number below `all_below`, if known."""
        with self._lock:
            proven = bisect_right(self._known, all_below, key=lambda pair: pair[0])
            return self._known[proven - 1][1] if proven else None
