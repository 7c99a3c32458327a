"""One client's membership in the group: what it has been given, what it has fetched, where it is to go on.

A client that is given up may go on calling for a while: each has a membership of its own, and only the
current one is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from threading import Condition
from typing import Protocol

from invalidator.metrics import Metrics
from invalidator.sources.base import Record
from invalidator.sources.kafka_buffer import Batch, Buffer
from invalidator.sources.kafka_places import Mark, Part

_TAKEN_S = 2.0
"""Partitions that were taken usually come back, or others do, within a moment: so long that is waited for."""


class Done(Protocol):
    """What the daemon knows of the progress of the nodes. Quick, from any thread."""

    def marks(self, parts: Collection[Part]) -> Mapping[Part, Mark]:
        """What can be committed."""

    def settled(self, parts: Collection[Part]) -> bool:
        """Whether all that was handed out of these is done."""


class Member:
    """A `Membership`. Everything is under `changed`, whose lock the puller shares."""

    def __init__(
        self, buffer: Buffer, done: Done, metrics: Metrics, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.changed = Condition()
        self.buffer = buffer
        self.parts: frozenset[Part] = frozenset()
        self.joined = False
        self.empty_since_s: float | None = None
        """Since when the group has given nothing."""
        self.waits_since_s: float | None = clock_s()
        """Since when the group has said nothing of what is read here."""
        self.gap = ""
        self.wanted: Mapping[Part, int] | None = None
        """Where to seek to, before anything else is kept."""
        self._upto: dict[Part, int] = {}
        self._number = 0
        self._taken_at_s: float | None = None
        self._done = done
        self._metrics = metrics
        self._clock_s = clock_s

    # --- told by the client ------------------------------------------------------------------

    def given(self, parts: Collection[Part]) -> None:
        """See `Membership.given`."""
        with self.changed:
            self.parts |= frozenset(parts)
            self.joined = True
            self.waits_since_s = None
            self.empty_since_s = None if self.parts else self._clock_s()
            self._moved()
        self._metrics.rebalances.labels("given").inc()

    def waits(self) -> bool:
        """See `Membership.waits`."""
        return self.waits_since_s is not None

    def settled(self, parts: Collection[Part]) -> bool:
        """See `Membership.settled`."""
        with self.changed:
            self.buffer.drop(parts)  # no more of these is handed out
        return self._done.settled(parts)

    def taken(self, parts: Collection[Part], *, lost: bool) -> Mapping[Part, Mark]:
        """See `Membership.taken`."""
        marks = {} if lost else self._done.marks(parts)
        with self.changed:
            self.parts -= frozenset(parts)
            self.buffer.drop(parts)
            for part in parts:
                self._upto.pop(part, None)
            if not self.parts and self.waits_since_s is None:
                self.waits_since_s = self._clock_s()
            if lost:
                self._moved()
            elif parts:
                self._taken_at_s = self._clock_s()
        self._metrics.rebalances.labels("lost" if lost else "taken").inc()
        return marks

    def _moved(self) -> None:
        self._number += 1
        self._taken_at_s = None
        self.joined = self.waits_since_s is None
        self.changed.notify_all()

    @property
    def number(self) -> int:
        """Changes with what is to be read."""
        with self.changed:
            taken_at_s = self._taken_at_s
            if taken_at_s is not None and self._clock_s() - taken_at_s >= _TAKEN_S:
                self._moved()
            return self._number

    # --- the puller's ------------------------------------------------------------------------

    def seek(self, offsets: Mapping[Part, int]) -> None:
        """Go on there; what was fetched before is of no use."""
        with self.changed:
            self.buffer.clear()
            self.wanted, self.gap = dict(offsets), ""
            self._upto = {}

    def obey(self) -> Mapping[Part, int] | None:
        """Where the client is to seek to now."""
        with self.changed:
            wanted, self.wanted = self.wanted, None
            if wanted is not None:
                self._upto = dict(wanted)
            return wanted

    def missed(self, why: str) -> None:
        """The log does not lead on."""
        with self.changed:
            if self.wanted is None:
                self.gap = why
                self.changed.notify_all()

    def keep(self, records: Sequence[Record], positions: Mapping[Part, int]) -> None:
        """What a poll gave, and where it has come to."""
        with self.changed:
            if self.wanted is not None:
                return  # the service goes on elsewhere
            for part, several in groupby(records, lambda one: Part(one.topic, one.partition)):
                batch = list(several)
                if part in self._upto and part in self.parts:
                    self._put(Batch(part, batch, batch[-1].offset + 1))
            for part, offset in positions.items():
                if self._upto.get(part, offset) < offset and part in self.parts:
                    self._put(Batch(part, (), offset))
            if self.buffer:
                self.changed.notify_all()

    def _put(self, batch: Batch) -> None:
        self.buffer.put(batch)
        self._upto[batch.part] = batch.upto
