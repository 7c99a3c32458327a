"""From the log to works: poll, find the keys, give new epochs where no key can be told, look twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence

from cachelib.effects import coalesce
from cachelib.errors import StoreError
from cachelib.model import RowChange
from invalidator.dead_letters import letters_of
from invalidator.epochs import Epochs
from invalidator.letterbox import Letterbox
from invalidator.looks import Held, Late, Looks
from invalidator.metrics import Metrics
from invalidator.rules import Reading, Rules
from invalidator.sources.base import ChangeSource, Event, Polled, Positions, covers
from invalidator.tally import Tally
from invalidator.work import Work

_LOOK_AGAIN_S = 0.05
"""While something waits for its second look, polls are no longer than this."""


class Feed:
    """One reader of the log. The main one serves all nodes; a node that is behind has one of its own.

    `rules` gives the rules of now, which a reload changes. `done_elsewhere`: up to where another
    feed has given the epochs and posted the dead letters that the log asks for, so that a replay does not do it again.
    """

    def __init__(
        self,
        source: ChangeSource,
        rules: Callable[[], Rules],
        epochs: Epochs,
        looks: Looks,
        letterbox: Letterbox,
        metrics: Metrics,
        tally: Tally,
        done_elsewhere: Callable[[], Positions] = dict,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.source = source
        self.at: Positions = {}
        self.placed = False
        """It is settled which partitions are read."""
        self._rules = rules
        self._epochs = epochs
        self._looks = looks
        self._letterbox = letterbox
        self._metrics = metrics
        self._tally = tally
        self._done_elsewhere = done_elsewhere
        self._wait = wait

    def seek(self, positions: Positions) -> None:
        """Go on behind these positions."""
        self.source.seek(positions)
        self._looks.clear()
        self.at = positions

    def next(self, limit: int, timeout_s: float) -> Iterator[Work]:
        """What is to be applied next; perhaps nothing. Raises `StoreError`, `LogGap`; both may be tried again.

        Each is to be applied as soon as it is given: what follows may have to be asked for.
        """
        if self._looks.full or self._letterbox.full:
            yield from self._rest()
            return
        polled = self.source.poll(limit, min(timeout_s, _LOOK_AGAIN_S) if len(self._looks) else timeout_s)
        self.placed = polled.placed
        try:
            yield from self._work(polled)
        except Exception:
            # What was polled is not done yet: it must come again.
            self.source.seek(polled.before)
            raise
        if polled.trouble:  # what waited has had its look; but this was no poll that succeeded
            raise StoreError(polled.trouble)

    def _rest(self) -> list[Work]:
        """Too much waits: nothing is read until some of it is done (I10)."""
        self.source.rest()
        self._look()
        works = self._second()
        if not works:
            self._wait(_LOOK_AGAIN_S)
        return works

    def _work(self, polled: Polled) -> Iterator[Work]:
        """Whatever may fail comes before anything is taken from what waits."""
        rules, visibility = self._rules(), self._looks.visibility
        reading = rules.read(polled.events, polled.poison)
        work = self._all_of(polled, reading)
        if visibility is not None and work.effects:
            yield work.early()  # before the store is asked what can be read in it: it may take its time
        if polled.events or polled.poison or len(self._looks):
            self._look()
        hidden = visibility.hidden(polled.events) if visibility is not None and polled.events else ()
        again = reading if len(hidden) == len(polled.events) else rules.read(hidden, polled.poison)
        self._renew(reading.renew)
        works = self._second()
        letter = self._post(polled, reading)
        late = self._late(hidden, polled, reading, again, letter)
        self._count(polled, reading)
        self.at = polled.after
        works += self._looks.rest(work, late)
        self._metrics.second_pending.set(self._looks.pending)
        yield from works

    def _all_of(self, polled: Polled, reading: Reading) -> Work:
        return Work(
            effects=tuple(reading.effects),
            changes=len(polled.events) + len(polled.poison),
            before=polled.before,
            after=polled.after,
            watermark_us=polled.watermark_us,
            highest=reading.highest,
            oldest_us=reading.oldest_us,
        )

    def _late(self, hidden: Sequence[Event], polled: Polled, reading: Reading, again: Reading, letter: int) -> Late:
        visibility = self._looks.visibility
        if visibility is None:
            return Late(letter=letter)
        # What cannot be read has no transaction by which to know that it is visible.
        unknown = [Event(one.partition, one.position, RowChange("", "truncate")) for one in polled.poison]
        # What is visible already has been told, but not written through: that may only come now.
        images = [one for one in reading.effects if one.content is not None]
        if not (hidden or unknown):
            return Late(letter=letter, effects=tuple(images))
        named = frozenset(entity for _, entity, _ in again.renew)
        both = [*hidden, *unknown]
        effects = tuple(coalesce([*again.effects, *images]))
        return Late(len(both), visibility.mark(both), effects, named, letter)

    def _look(self) -> None:
        if self._looks.visibility is not None:
            self._looks.visibility.look()
        self._metrics.second_oldest_s.set(self._looks.oldest_s)

    def _second(self) -> list[Work]:
        """The last looks that are due, and what is done with them."""
        works: list[Work] = []
        try:
            for held in self._looks.due():
                self._renew_again(held)
                if held.late.effects:
                    self._metrics.second_looks.inc()
                works += self._looks.take(held)
        except StoreError:
            if not works:
                raise
            # What was taken must be told; the others are due the next time, too.
        works += self._looks.done()
        self._metrics.second_pending.set(self._looks.pending)
        return works

    # --- where keys cannot be told -----------------------------------------------------------

    def _renew(self, asked: Collection[tuple[Event, str, str]]) -> None:
        """New epochs, published before anybody's position may pass the change that asks for them."""
        by_reason: dict[str, set[str]] = {}
        for event, entity, reason in asked:
            if not self._is_done(event.partition, event.position):
                by_reason.setdefault(reason, set()).add(entity)
        for reason, entities in by_reason.items():
            self._epochs.renew(entities, reason)

    def _renew_again(self, held: Held) -> None:
        """An epoch given for what was not visible then may have been filled with what was before."""
        if held.late.renew and not covers(self._done_elsewhere(), held.work.after):
            self._epochs.renew(held.late.renew, "second_look")

    def _is_done(self, partition: str, position: str) -> bool:
        done = self._done_elsewhere()
        return partition in done and covers(done, {partition: position})

    def _post(self, polled: Polled, reading: Reading) -> int:
        letters = letters_of(polled, reading, strangers=self._letterbox.strangers)
        return self._letterbox.post([one for one in letters if not self._is_done(one.partition, one.position)])

    # --- counting ----------------------------------------------------------------------------

    def _count(self, polled: Polled, reading: Reading) -> None:
        metrics = self._metrics
        self._tally.saw(polled)
        for table, number in reading.tables.items():
            metrics.changes.labels(table).inc(number)
        for table, number in reading.unknown.items():
            metrics.unknown.labels(table).inc(number)
        for _, entity, reason in reading.renew:
            if reason == "bad_key":
                metrics.bad_keys.labels(entity).inc()
        for (entity, why), number in reading.unmade.items():
            metrics.images_unmade.labels(entity, why).inc(number)
        metrics.keys.inc(reading.keys)
        metrics.coalesced.inc(reading.keys - len(reading.effects))
        if polled.events:
            metrics.poll_size.observe(len(polled.events))
        if reading.oldest_us:
            metrics.age_s.observe(max(0, time.time_ns() // 1000 - reading.oldest_us) / 1e6)
