"""How fast, how old, what failed last: for people who look now. Monitoring has the metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from invalidator.sources.base import Polled

_MEMORY_S = 10.0
_PARTITIONS_MAX = 10_000
_ERROR_MAX = 300


class Rate:
    """Events a second, those of the last seconds counting most. Safe across threads."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = Lock()
        self._weight = 0.0
        self._at_s = self._began_s = clock_s()

    def add(self, number: int) -> None:
        """So many have happened."""
        with self._lock:
            self._weight = self._faded() + number

    def per_s(self) -> float:
        """The rate."""
        with self._lock:
            # Else the first seconds would look slow: less than the whole memory has been seen.
            seen = 1 - math.exp(-(self._clock_s() - self._began_s) / _MEMORY_S)
            return round(self._faded() / (_MEMORY_S * seen), 1) if seen else 0.0

    def _faded(self) -> float:
        now_s = self._clock_s()
        self._weight *= math.exp(-(now_s - self._at_s) / _MEMORY_S)
        self._at_s = now_s
        return self._weight


class _Partition:
    def __init__(self, clock_s: Callable[[], float]) -> None:
        self.rate = Rate(clock_s)
        self.changed_us = 0
        self.error = ""


class Tally:
    """What was read from each partition."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._partitions: dict[str, _Partition] = {}

    def saw(self, polled: Polled) -> None:
        """A poll has given this."""
        numbers: dict[str, int] = {}
        for event in polled.events:
            numbers[event.partition] = numbers.get(event.partition, 0) + 1
        for partition, number in numbers.items():
            self._of(partition).rate.add(number)
        for event in reversed(polled.events):
            if event.partition in numbers:
                del numbers[event.partition]
                self._of(event.partition).changed_us = event.change.at_us
            if not numbers:
                break
        for poison in polled.poison:
            self._of(poison.partition).error = f"{poison.position}: {poison.why}"[:_ERROR_MAX]

    def of(self, partition: str, now_us: int) -> dict[str, Any]:
        """How old the last change was that was read, how many come a second, and what could not be read last."""
        found = self._partitions.get(partition)
        if found is None:
            return {"last_change_s": None, "per_s": 0.0, "last_error": ""}
        age_s = round(max(0, now_us - found.changed_us) / 1e6, 3) if found.changed_us else None
        return {"last_change_s": age_s, "per_s": found.rate.per_s(), "last_error": found.error}

    def _of(self, partition: str) -> _Partition:
        found = self._partitions.get(partition)
        if found is None:
            if len(self._partitions) >= _PARTITIONS_MAX:
                self._partitions.clear()
            found = self._partitions[partition] = _Partition(self._clock_s)
        return found
