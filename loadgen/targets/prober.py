"""Changes a key behind the library, and looks until the change is seen: again and again, in a thread of its own."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cachelib import Cache
from loadgen.engine.pace import Shift, now_ns
from loadgen.levels import Level
from loadgen.plan import RunPlan
from loadgen.record import ABSENT, STAMP_BITS, How, Source, Status
from loadgen.tables import Subject
from loadgen.targets.items import Items
from loadgen.targets.reading import shown_before, write_row
from loadgen.targets.stamped import Behind

NOTHING = 0
"""Stands for the version of a look that failed: below any."""
POLL_S = 0.003
GIVEN_UP_S = 30.0
AFTER_S = 3.0
"""How long after the end of the load the last change is still looked for."""
KEYS = 64
"""Probes take turns on so many keys: a later change of a key would hide whether an earlier one was seen."""


class Rows(Protocol):
    """What a prober needs of its worker."""

    plan: RunPlan
    items: Items
    names: Sequence[str]
    subjects: tuple[Subject, ...]
    subject: list[int]
    cache: Cache


class Prober:
    """`rate_per_s`: changes a second at most; the next begins when the one before was seen, or given up."""

    def __init__(self, rows: Rows, thread: int, rate_per_s: float) -> None:
        self.reads, self.writes = array("q"), array("q")
        self._rows, self._thread, self._gap_ns = rows, thread, int(1e9 / rate_per_s)
        self._seq = 0
        random = np.random.default_rng([rows.plan.seed, thread, 6])
        behind = [key for key in range(rows.items.space.keys) if rows.subjects[rows.subject[key]].behind]
        # What a bounded read loads for want of a proof is seen whether the cache was told or not.
        behind = [key for key in behind if rows.subjects[rows.subject[key]].level is not Level.BOUNDED] or behind
        self._keys: list[int] = random.permutation(behind)[:KEYS].tolist()

    def run(self, shift: Shift, start_ns: int, end_ns: int) -> None:
        """Until the end."""
        behind = Behind(self._rows.plan.target.store_url)
        at_ns = start_ns
        while self._keys and at_ns < end_ns and shift.wait_until(at_ns) >= 0:
            key = self._keys[self._seq % len(self._keys)]
            self._look(key)  # an uncached key would be seen at once, and tell nothing
            if changed := self._change(behind, key):
                self._watch(shift, end_ns, key, changed)
            at_ns = max(at_ns + self._gap_ns, now_ns())
        behind.close()

    def _change(self, behind: Behind, key: int) -> int:
        """The version that it made; 0 where it made none."""
        self._seq += 1
        number, stamp, start_ns = self._rows.subject[key], self._thread << STAMP_BITS | self._seq, now_ns()
        named: dict[str, Any] = {"key": self._rows.names[key], "writer": self._thread, "seq": self._seq}
        named["payload"] = self._rows.items.payload(key)
        result = behind.change(self._rows.subjects[number], named, gone=False)
        row = write_row((number, key, stamp), How.PROBE, gone=False, result=result, times=(start_ns, now_ns()))
        self.writes.extend(row)
        return result.version if result.status is Status.ACKNOWLEDGED else 0

    def _watch(self, shift: Shift, end_ns: int, key: int, changed: int) -> None:
        """Until it is seen, or what somebody wrote over it: else one such key would keep us until time runs out."""
        given_up_ns = min(end_ns + int(AFTER_S * 1e9), now_ns() + int(GIVEN_UP_S * 1e9))
        while self._look(key) < changed and now_ns() < given_up_ns:
            if shift.wait_until(now_ns() + int(POLL_S * 1e9)) < 0:
                return

    def _look(self, key: int) -> int:
        """The version that is shown."""
        rows, start_ns = self._rows, now_ns()
        number = rows.subject[key]
        try:
            found = rows.cache.read(rows.subjects[number].entity, rows.names[key])
        except Exception:  # noqa: BLE001 - an error here is one of the cache, which the ordinary reads count
            return NOTHING
        value: dict[str, Any] | None = found.value
        if value is not None:
            shown_before(value)
        stamp = ABSENT if value is None else value["writer"] << STAMP_BITS | value["seq"]
        row = (number, key, start_ns, start_ns, now_ns(), 0, stamp, Source.OTHER, self._thread)
        self.reads.extend(row)
        return found.version
