"""The second look: when is a change that was applied surely visible to every load?

PROTOCOL.md, "Applying the log". The order of events that one look would miss:

    the log shows a commit that others cannot read yet
    it is applied; the cache then evicts what that left
    a reader misses, loads the old row, and fills it in
    the commit becomes visible, and nothing tells the cache again

So what such a source shows is applied at once, and once more when it is surely visible, unless it already was when it
was applied the first time: what the store shows afterwards says nothing of that moment. Only then is it done (I9): what
waits for those before it, and for its dead letters, is how far the log is done. The looks themselves wait for nobody:
they come as soon as they are due, whatever stands before them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cachelib.effects import Effect
from cachelib.stores.base import Snapshot
from invalidator.settings import ApplySettings
from invalidator.sources.base import Event, merged
from invalidator.work import Work


class Visibility(Protocol):
    """Knows which changes can be read by everybody."""

    def look(self) -> None:
        """Ask anew: once for a batch, after it was polled. Raises `StoreError`."""

    def hidden(self, events: Sequence[Event]) -> Sequence[Event]:
        """Those of the events that were not surely visible at the last look."""

    def mark(self, hidden: Sequence[Event]) -> Any:
        """By which to ask for them later."""

    def shows(self, mark: Any) -> bool:
        """Whether all that were so marked were surely visible at the last look."""


class SettleDelay:
    """Visible after a fixed time: an assumption, to be set above what the store's commits and replicas need."""

    def __init__(self, delay_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._delay_s = delay_s
        self._clock_s = clock_s

    def look(self) -> None:
        """See `Visibility.look`."""

    def hidden(self, events: Sequence[Event]) -> Sequence[Event]:
        """See `Visibility.hidden`."""
        return events

    def mark(self, hidden: Sequence[Event]) -> float:
        """See `Visibility.mark`."""
        return self._clock_s()

    def shows(self, mark: float) -> bool:
        """See `Visibility.shows`."""
        return self._clock_s() - mark >= self._delay_s


class BySnapshot:
    """Visible when a snapshot of the store shows the change's transaction: exact.

    The log must be the store's own, as its transactions are known by number. `otherwise` is for events without one,
    and for stores that have no snapshots.
    """

    def __init__(self, ask: Callable[[], Snapshot | None], otherwise: SettleDelay) -> None:
        self._ask = ask
        self._otherwise = otherwise
        self._last: Snapshot | None = None

    def look(self) -> None:
        """See `Visibility.look`."""
        self._last = self._ask()

    def hidden(self, events: Sequence[Event]) -> Sequence[Event]:
        """See `Visibility.hidden`."""
        return [event for event in events if not self._shown(event.change.tx)]

    def mark(self, hidden: Sequence[Event]) -> tuple[frozenset[int], float | None]:
        """See `Visibility.mark`."""
        txs = {event.change.tx for event in hidden} if self._last is not None else {None}
        return frozenset(tx for tx in txs if tx is not None), self._otherwise.mark(hidden) if None in txs else None

    def shows(self, mark: tuple[frozenset[int], float | None]) -> bool:
        """See `Visibility.shows`."""
        numbers, at_s = mark
        return (at_s is None or self._otherwise.shows(at_s)) and all(self._shown(tx) for tx in numbers)

    def _shown(self, tx: int | None) -> bool:
        return self._last is not None and tx is not None and self._last.shows(tx)


@dataclass(frozen=True, slots=True)
class Late:
    """What of a poll cannot be done yet. It holds no event: a row may be large, and many may wait (I10).

    `hidden`: so many events need a second look; `mark` is theirs, and `effects`, and `renew` the entities that they
    give a new epoch. `letter`: up to which dead letter has to be kept before (0: none).
    """

    hidden: int = 0
    mark: Any = None
    effects: tuple[Effect, ...] = ()
    renew: frozenset[str] = frozenset()
    letter: int = 0


@dataclass(slots=True)
class Held:
    """A work that waits for its last look, from when on; what of it was told is taken out."""

    work: Work
    late: Late
    since_s: float


LOOK_EVERY_S = 0.05
"""So seldom the store is asked where only last looks wait for it: one question and one batch for several polls."""
_NOT_DUE_MAX = 100
"""A search for looks that are due passes over so many that are not: it is made at each poll (I10)."""


class Looks:
    """Holds back what is not done yet, in the log's order. `kept(letter)`: whether dead letters are, up to that one."""

    def __init__(
        self,
        visibility: Visibility | None,
        changes_max: int,
        kept: Callable[[int], bool] = lambda _: True,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.visibility = visibility
        self._changes_max = changes_max
        self._kept = kept
        self._clock_s = clock_s
        self._waiting: deque[Held] = deque()
        self._taken_out = False
        self._asked_at_s = float("-inf")
        self.pending = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def look(self) -> None:
        """Ask anew what can be read. Raises `StoreError`."""
        if self.visibility is not None:
            self.visibility.look()
        self._asked_at_s = self._clock_s()

    @property
    def asked_long_ago(self) -> bool:
        """It is time to ask again."""
        return self._clock_s() - self._asked_at_s >= LOOK_EVERY_S

    @property
    def full(self) -> bool:
        """No more may be read for now (I10)."""
        return self.pending >= self._changes_max

    @property
    def oldest_s(self) -> float:
        """How long the first one waits for its last look already."""
        first = next((held for held in self._waiting if held.late.hidden), None)
        return self._clock_s() - first.since_s if first is not None else 0.0

    def rest(self, work: Work, late: Late) -> list[Work]:
        """What is to be applied now of a work that was just polled.

        Where sources show early that is its end only: all of it has been told by `Work.first_look` already.
        """
        told = self.visibility is not None and len(work.effects) > 0
        if not (self._waiting or late.hidden or late.letter):
            return [replace(work, effects=late.effects, changes=0, oldest_us=0, partial=True) if told else work]
        end = replace(work, effects=late.effects, changes=late.hidden, oldest_us=0, partial=True)
        self._hold(Held(end, late, self._clock_s()))
        return [] if told or not work.effects else [work.first_look()]

    def _hold(self, held: Held) -> None:
        last = self._waiting[-1] if self._waiting else None
        waits = held.late.hidden or held.late.letter or held.work.effects
        if last is not None and not (last.late.hidden or waits):
            # Nothing of it waits but for its place: it takes no place of its own (I10).
            last.work = _joined(last.work, held.work)
            return
        self._waiting.append(held)
        self.pending += held.work.room

    def due(self) -> list[Held]:
        """Those whose last look is due, in the log's order; each is to be given to `take`."""
        found, not_due = [], 0
        for held in self._waiting:
            if not held.late.hidden:
                if held.work.effects:
                    found.append(held)
                continue
            if self.visibility is not None and self.visibility.shows(held.late.mark):
                found.append(held)
            else:
                not_due += 1
                if not_due == _NOT_DUE_MAX:
                    break
        return found

    def take(self, held: Held) -> list[Work]:
        """Its last look, with those that are done before it. Nothing is done yet where it is not the first."""
        works = self.done()
        if self._waiting[0] is held and self._kept(held.late.letter):
            return [*works, self._pop()]
        work, held.work = held.work, replace(held.work, effects=(), changes=0)
        held.late = Late(letter=held.late.letter)
        self.pending += held.work.room - work.room
        self._taken_out = True
        return [*works, replace(work, after={}, watermark_us=None)]

    def done(self) -> list[Work]:
        """Take the first ones, as far as their looks were taken and their dead letters are kept."""
        works: list[Work] = []
        while self._waiting and self._is_done(self._waiting[0]):
            works.append(self._pop())
        if self._taken_out:
            self._taken_out = False
            waiting, self._waiting, self.pending = self._waiting, deque(), 0
            for held in waiting:
                self._hold(held)
        return works

    def _is_done(self, held: Held) -> bool:
        return not held.late.hidden and not held.work.effects and self._kept(held.late.letter)

    def _pop(self) -> Work:
        work = self._waiting.popleft().work
        self.pending -= work.room
        return work

    def clear(self) -> None:
        """The source goes on elsewhere."""
        self._waiting.clear()
        self.pending = 0


def _joined(one: Work, other: Work) -> Work:
    watermark_us = one.watermark_us if other.watermark_us is None else other.watermark_us
    return replace(
        one,
        after=merged(one.after, other.after),
        watermark_us=watermark_us,
        highest=max(one.highest, other.highest),
    )


def visibility_of(settings: ApplySettings, store: Any, clock_s: Callable[[], float]) -> Visibility:
    """How a commit is known to be readable: by the store where it can tell, else by time."""
    delay = SettleDelay(settings.settle_delay_s, clock_s)
    ask = getattr(store, "snapshot", None)
    if settings.second_look == "delay" or not callable(ask):
        return delay
    return BySnapshot(ask, delay)
