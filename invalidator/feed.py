"""From the log to works: poll, find the keys, give new epochs where no key can be told, look twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from cachelib.effects import Effect, coalesce
from cachelib.errors import StoreError
from cachelib.model import RowChange
from invalidator.dead_letters import letters_of
from invalidator.epochs import Epochs
from invalidator.letterbox import Letterbox
from invalidator.looks import Held, Late, Looks, Visibility
from invalidator.metrics import Metrics
from invalidator.rules import Reading, Rules
from invalidator.sources.base import ChangeSource, Event, Polled, Positions, covers
from invalidator.tally import Tally
from invalidator.work import Work

_LOOK_AGAIN_S = 0.05
"""While something waits for its second look, polls are no longer than this."""
_MANY = 50
"""Of so many changes the store is asked before they are told: to tell them twice would take longer than to ask."""


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
        rules, looks = self._rules(), self._looks
        reading = rules.read(polled.events, polled.poison)
        work = self._all_of(polled, reading)
        hidden = yield from self._tell(polled, work)
        asked = self._is_to_ask(polled, reading, hidden)
        if asked:
            self._look()
        self._renew(reading.renew)
        works = self._second()
        letter = self._post(polled, reading)
        lates = self._lates(hidden, polled, reading, rules, letter)
        self._count(polled, reading)
        self.at = polled.after
        for late in lates[:-1]:
            works += looks.rest(work.part(), late)
        works += looks.rest(work, lates[-1])
        if asked or not lates[0].hidden:  # some of it may be due already; what cannot be given now is the next time
            with suppress(StoreError):
                works += self._second()
        self._metrics.second_pending.set(looks.pending)
        yield from works

    def _tell(self, polled: Polled, work: Work) -> Generator[Work, None, Sequence[Event]]:
        """Tell what others may not be able to read yet. Returns what nobody knew to be visible before it was told.

        What the store is asked afterwards does not help: a commit that became visible between the telling and the
        question may have been missed by a load in between, which filled what the telling had left empty.
        """
        visibility, failed = self._looks.visibility, None
        if visibility is None:
            return ()
        hidden = visibility.hidden(polled.events)
        if len(hidden) >= _MANY:
            try:
                self._look()
                hidden = visibility.hidden(polled.events)
            except StoreError as error:
                failed = error
        if work.effects:
            yield work.early()  # a few at once: the store may take its time
        if failed is not None:
            raise failed
        return hidden

    def _is_to_ask(self, polled: Polled, reading: Reading, hidden: Sequence[Event]) -> bool:
        """Whether the store is asked now what can be read in it.

        To say a second time what a version tells apart changes nothing that was loaded since. So it is done seldom,
        for several polls together. Anything else voids what was loaded since, or is of use only then: that is quick.
        """
        if hidden and (reading.renew or any(map(_voids_again, reading.effects))):
            return True
        return bool(hidden or polled.poison or len(self._looks)) and self._looks.asked_long_ago

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

    def _lates(
        self, hidden: Sequence[Event], polled: Polled, reading: Reading, rules: Rules, letter: int
    ) -> Sequence[Late]:
        """What cannot be done yet; when the last of them is, the poll is. `hidden`: as `_tell` returned it."""
        visibility = self._looks.visibility
        if visibility is None:
            return [Late(letter=letter)]
        still = visibility.hidden(hidden)  # fewer where the store was asked since
        effects = tuple(_of_the_visible(hidden, still, polled, reading, rules))
        *others, last = _by_transaction(still)
        # What cannot be read has no transaction by which to know that it is visible.
        unknown = [Event(one.partition, one.position, RowChange("", "truncate")) for one in polled.poison]
        if not (last or unknown):
            return [Late(effects=effects, letter=letter)]
        again = reading if len(last) == len(polled.events) else rules.read(last, polled.poison)
        end = replace(self._late([*last, *unknown], again, visibility), letter=letter)
        lates = [self._late(some, rules.read(some), visibility) for some in others]
        return [*([Late(effects=effects)] if effects else ()), *lates, end]

    def _late(self, events: Sequence[Event], reading: Reading, visibility: Visibility) -> Late:
        named = frozenset(entity for _, entity, _ in reading.renew)
        return Late(len(events), visibility.mark(events), tuple(reading.effects), named)

    def _look(self) -> None:
        self._looks.look()
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


def _voids_again(effect: Effect) -> bool:
    return effect.force or not effect.version or effect.content is not None


def _of_the_visible(
    hidden: Sequence[Event], still: Sequence[Event], polled: Polled, reading: Reading, rules: Rules
) -> Sequence[Effect]:
    """Of those that are not still hidden: what was when it was told, again; of the others the after-images.

    They have been told, but not written through: that may only come now.
    """
    found: list[Effect] = []
    if any(one.content is not None for one in reading.effects):
        read = rules.read(_without(hidden, polled.events)) if hidden else reading
        found += [one for one in read.effects if one.content is not None]
    if len(still) < len(hidden):
        found += rules.read(_without(still, hidden)).effects
    return coalesce(found)


def _without(some: Sequence[Event], events: Sequence[Event]) -> Sequence[Event]:
    left = set(map(id, some))
    return [event for event in events if id(event) not in left]


def _by_transaction(events: Sequence[Event]) -> Sequence[Sequence[Event]]:
    """At least one part. One may be hidden for long, and the others are not to wait for it."""
    if len(events) >= _MANY:
        return [events]
    parts: dict[int | None, list[Event]] = {}
    for event in events:
        parts.setdefault(event.change.tx, []).append(event)
    return list(parts.values()) or [()]
