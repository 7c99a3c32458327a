"""`invalidator relay`: the store's change log into a Kafka topic, so that a Kafka without connectors can be had.

At least once: a position is saved only behind records that all replicas have. A row's changes share a partition.
Into every partition goes a heartbeat that tells up to which time of the store everything stands before it, sent only
behind acknowledged changes; so who reads all partitions can prove how fresh it is (PROTOCOL.md, "Proof of freshness").

Where changes were lost, or the store is another one, everything gets new epochs first, and nothing is claimed until
these are current: until then items are served that the lost changes may have been about.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cachelib.errors import CacheError, LogGap, StoreError
from cachelib.model import RowChange
from cachelib.stores.base import Store
from invalidator.epochs import Epochs
from invalidator.formats.base import Heartbeat
from invalidator.formats.relay import RelayEncoder
from invalidator.lineage import Lineage
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.producer import NotSent, Outgoing, TooLarge
from invalidator.settings import Settings
from invalidator.sources.base import ChangeSource, Committed, Event, Polled, Positions

_KEEP_S = 0.25
_CHECK_STORE_S = 1.0
_CHECK_TOPIC_S = 10.0


class Topic(Protocol):
    """Where records go; `producer.Producer` is one."""

    topic: str

    def partitions(self) -> int:
        """How many. Raises `NotSent`."""

    def place(self, key: bytes, partitions: int) -> int:
        """The partition of a key."""

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send them and wait until all replicas have them. Raises `NotSent`; `TooLarge` where it is one's size."""


class RelayService:
    """See the module. `source` is the store's log; nobody else commits under its consumer's name."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        source: ChangeSource,
        topic: Topic,
        log: Log,
        metrics: Metrics | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = metrics or Metrics()
        self.log = log
        self.last_error = ""
        self._settings = settings
        self._source = source
        self._topic = topic
        self._clock_s = clock_s
        self._encoder = RelayEncoder(settings.relay.format)  # type: ignore[arg-type]
        self._epochs = Epochs(store, self.metrics, log, clock_s)
        self._lineage = Lineage(store, self._epochs, log)
        self._partitions = 0
        self._sent: Positions = {}
        self._saved: Positions = {}
        self._watermark_us: int | None = None
        self._due: dict[str, float] = {}
        self._stop = threading.Event()
        self._beat_at_s = clock_s()
        self._sent_at_s: float | None = None
        self._failures = 0

    # --- asked from outside ------------------------------------------------------------------

    def stop(self) -> None:
        """Finish what is in hand, save the position, and return from `run`. Safe in a signal handler."""
        self._stop.set()

    def healthy(self) -> bool:
        """The loop turns."""
        return self._clock_s() - self._beat_at_s < self._settings.http.stalled_after_s

    def ready(self) -> bool:
        """Something was sent and acknowledged a moment ago: heartbeats are, even where nothing changes."""
        return self._sent_at_s is not None and self._clock_s() - self._sent_at_s < self._settings.http.stalled_after_s

    def status(self) -> dict[str, Any]:
        """Everything that one looks at first."""
        age_us = None if self._watermark_us is None else max(0, time.time_ns() // 1000 - self._watermark_us)
        return {
            "what": "relay",
            "ready": self.ready(),
            "healthy": self.healthy(),
            "problems": [self.last_error] if self.last_error else [],
            "store": self._lineage.current()[0],
            "topic": self._topic.topic,
            "partitions": self._partitions,
            "sent": dict(self._sent),
            "saved": dict(self._saved),
            "watermark_us": self._watermark_us,
            "age_s": None if age_us is None else round(age_us / 1e6, 3),
        }

    # --- the loop ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Find out where to go on. Raises `StoreError`, `NotSent`."""
        self._count_partitions()
        self._lineage.begin(self._source.reader(self._source.start()))
        committed = self._source.committed(())
        # "" is before everything: what was purged in front of a new consumer is a gap.
        start = committed.positions if committed is not None else dict.fromkeys(self._source.start(), "")
        self._source.seek(start)
        self._sent = self._saved = start
        self.log.info("relaying", topic=self._topic.topic, partitions=self._partitions, positions=dict(start))

    def run(self) -> None:
        """Work until `stop`."""
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            self._beat_at_s = self._clock_s()
            self.metrics.heartbeat.set_to_current_time()
            pause_s = self.turn()
        self._tried(self._save)
        self.log.info("stopped", saved=dict(self._saved))

    def turn(self) -> float:
        """Read and send once, and do what is due. Returns how long to pause before the next."""
        return self._tried(self._turn)

    def _tried(self, deed: Callable[[], None]) -> float:
        try:
            deed()
        except (StoreError, NotSent) as error:
            return self._failed(error)
        if self._failures:
            self.log.info("relaying again", after_tries=self._failures)
        self._failures, self.last_error = 0, ""
        return 0.0

    def _failed(self, error: CacheError) -> float:
        self.metrics.relay_errors.labels("store" if isinstance(error, StoreError) else "topic").inc()
        if not self._failures:
            self.log.error("the relay cannot go on, and tries again", error=str(error))
        self._failures += 1
        self.last_error = str(error)
        apply = self._settings.apply
        return min(apply.retry_max_s, apply.retry_first_s * 2.0 ** min(self._failures, 20))

    def _turn(self) -> None:
        for name, every_s, deed in (
            ("keep", _KEEP_S, self._epochs.keep),
            ("store", _CHECK_STORE_S, lambda: self._lineage.check(self._go_on)),
            ("topic", _CHECK_TOPIC_S, self._count_partitions),
        ):
            if self._is_due(name, every_s):
                deed()
        try:
            polled = self._source.poll(self._settings.relay.batch, self._patience_s())
        except LogGap as gap:
            self.metrics.gaps.inc()
            self._lineage.broken("log_gap", str(gap), self._go_on)
            return
        self._send_changes(polled)
        if self._is_due("heartbeat", self._settings.relay.heartbeat_s):
            self._send_heartbeats()
        if self._is_due("save", self._settings.apply.commit_s):
            self._save()
        if self._is_due("purge", self._settings.source.purge_s):
            self.metrics.purged.inc(self._source.purge())

    def _patience_s(self) -> float:
        next_s = self._due.get("heartbeat", 0.0) - self._clock_s()
        return max(0.0, min(self._settings.source.poll_s, next_s))

    def _is_due(self, name: str, every_s: float) -> bool:
        now_s = self._clock_s()
        if now_s < self._due.setdefault(name, now_s):
            return False
        self._due[name] = now_s + every_s
        return True

    def _go_on(self, positions: Positions) -> None:
        self._source.seek(positions)
        self._sent, self._watermark_us = positions, None

    # --- sending -----------------------------------------------------------------------------

    def _send_changes(self, polled: Polled) -> None:
        try:
            self._send_events(polled.events)
        except NotSent:
            self._source.seek(polled.before)  # perhaps some are there: they come again, which is harmless
            raise
        if polled.events:
            self._sent_at_s = self._clock_s()
            self.metrics.relayed.labels("change").inc(len(polled.events))
        self._sent = polled.after
        if polled.watermark_us is not None:
            self._watermark_us = polled.watermark_us

    def _send_events(self, events: Sequence[Event]) -> None:
        """What the topic does not take goes without its columns: else all that come later would wait for it.

        Who reads it knows the row, and gives new epochs to what those columns would have named (I12).
        """
        changes = [event.change for event in events]
        cut: set[int] = set()
        while events:
            try:
                self._topic.send([self._record(*one) for one in zip(changes, events, strict=True)])
                break
            except TooLarge as error:
                number = error.number
                if number in cut:
                    raise
                cut.add(number)
                changes[number] = _without_columns(changes[number])
                table, position = changes[number].table, events[number].position
                self.log.warning("a change goes without its columns", table=table, position=position, error=str(error))

    def _record(self, change: RowChange, event: Event) -> Outgoing:
        key, value = self._encoder.change(change, event.position)
        return Outgoing(value, key, self._topic.place(key, self._partitions), timestamp_ms=_ms(change.at_us))

    def _send_heartbeats(self) -> None:
        """Where all changes before are acknowledged: one that failed must not be claimed to be there."""
        settled = self._epochs.layout().next is None
        watermark_us = self._watermark_us if settled else None
        (position,) = self._sent.values()
        beat = Heartbeat(time.time_ns() // 1000, watermark_us, self._partitions, position)
        value = self._encoder.heartbeat(beat)
        self._topic.send([Outgoing(value, partition=partition) for partition in range(self._partitions)])
        self._sent_at_s = self._clock_s()
        self.metrics.relayed.labels("heartbeat").inc(self._partitions)
        if watermark_us is not None:
            self.metrics.relay_lag_s.set(max(0, beat.at_us - watermark_us) / 1e6)

    def _count_partitions(self) -> None:
        """With more partitions a row's changes go elsewhere than before: harmless, since an old change changes nothing.

        But whoever proves freshness by heartbeats must hear of the new ones at once: they tell the number.
        """
        found = self._topic.partitions()
        if self._partitions and found != self._partitions:
            self.log.warning("the topic has another number of partitions", was=self._partitions, now=found)
        self._partitions = found

    def _save(self) -> None:
        if self._sent != self._saved:
            self._source.commit(Committed(self._sent, frozenset()))
            self._saved = self._sent
            self.metrics.commits.inc()


def _without_columns(change: RowChange) -> RowChange:
    """With those of the key alone."""
    return replace(change, before=_key_of(change, change.before), after=_key_of(change, change.after))


def _key_of(change: RowChange, image: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if image is None else {name: image[name] for name in change.key if name in image}


def _ms(at_us: int) -> int | None:
    return at_us // 1000 if at_us else None
