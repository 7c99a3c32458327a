"""From a source to works: poll, find the keys, give new epochs where no key can be told, look twice."""

from __future__ import annotations

from collections.abc import Callable

from invalidator.epochs import Epochs
from invalidator.logs import Log
from invalidator.looks import Looks
from invalidator.metrics import Metrics
from invalidator.rules import Reading, Rules
from invalidator.sources.base import ChangeSource, Polled, Positions, covers
from invalidator.work import Work

_LOOK_AGAIN_S = 0.05
"""While something waits for its second look, polls are no longer than this."""


class Feed:
    """One reader of the log. The main one serves all nodes; a node that is behind has one of its own.

    `rules` gives the rules of now, which a reload changes. `done_elsewhere`: up to where another
    feed has given the epochs that the log asks for, so that a replay does not give them again.
    """

    def __init__(
        self,
        source: ChangeSource,
        rules: Callable[[], Rules],
        epochs: Epochs,
        looks: Looks,
        metrics: Metrics,
        log: Log,
        done_elsewhere: Callable[[], Positions] = dict,
    ) -> None:
        self.source = source
        self.at: Positions = {}
        self._rules = rules
        self._epochs = epochs
        self._looks = looks
        self._metrics = metrics
        self._log = log
        self._done_elsewhere = done_elsewhere

    def seek(self, positions: Positions) -> None:
        """Go on behind these positions."""
        self.source.seek(positions)
        self._looks.clear()
        self.at = positions

    def next(self, limit: int, timeout_s: float) -> list[Work]:
        """What is to be applied next; perhaps nothing. Raises `StoreError`, `LogGap`; both may be tried again."""
        if self._looks.full:
            return self._second()
        polled = self.source.poll(limit, min(timeout_s, _LOOK_AGAIN_S) if self._looks.pending else timeout_s)
        try:
            works = self._looks.first(self._work(polled))
        except Exception:
            # What was polled is not applied yet: it must come again.
            self.source.seek(polled.before)
            raise
        return [*self._second(), *works]

    def _second(self) -> list[Work]:
        works = self._looks.due()
        self._metrics.second_looks.inc(len(works))
        self._metrics.second_pending.set(self._looks.pending)
        return works

    def _work(self, polled: Polled) -> Work:
        reading = self._rules().read(polled.events)
        self._renew(reading)
        self._count(polled, reading)
        self.at = polled.after
        return Work(
            effects=tuple(reading.effects),
            changes=len(polled.events),
            before=polled.before,
            after=polled.after,
            watermark_us=polled.watermark_us,
            highest=reading.highest,
            oldest_us=reading.oldest_us,
        )

    def _renew(self, reading: Reading) -> None:
        """New epochs, published before anybody's position may pass the change that asks for them."""
        done = self._done_elsewhere()
        by_reason: dict[str, set[str]] = {}
        for event, entity, reason in reading.renew:
            if not (event.partition in done and covers(done, {event.partition: event.position})):
                by_reason.setdefault(reason, set()).add(entity)
        for problem in reading.problems[:1]:  # one line a poll: a whole log of them would say no more
            self._log.error("a change whose key cannot be told", problem=problem, more=len(reading.problems) - 1)
        for reason, entities in by_reason.items():
            self._epochs.renew(entities, reason)

    def _count(self, polled: Polled, reading: Reading) -> None:
        metrics = self._metrics
        for table, number in reading.tables.items():
            metrics.changes.labels(table).inc(number)
        for table, number in reading.unknown.items():
            metrics.unknown.labels(table).inc(number)
        for _, entity, reason in reading.renew:
            if reason == "bad_key":
                metrics.bad_keys.labels(entity).inc()
        metrics.keys.inc(reading.keys)
        metrics.coalesced.inc(reading.keys - len(reading.effects))
        if polled.events:
            metrics.poll_size.observe(len(polled.events))
