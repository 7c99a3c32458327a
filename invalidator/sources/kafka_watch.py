"""Looks after a source while it reads: is there progress, are the topics still the same, how much is left?

A client may stall without an error, and a topic that was deleted and created again while we slept goes on at
our old offset without one. Both are seen only by asking.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from cachelib.errors import CacheError
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.settings import KafkaSourceSettings
from invalidator.sources.base import Positions, log_of
from invalidator.sources.kafka_places import Part, label, offset_of
from invalidator.sources.kafka_puller import Puller
from invalidator.sources.kafka_side import Side

_STOP_S = 1.0


class Watch:
    """`at`: how far has been read, of the partitions that are read. It changes nothing itself but by the puller."""

    def __init__(
        self,
        side: Side,
        puller: Puller,
        source: KafkaSourceSettings,
        at: Callable[[], Mapping[Part, str]],
        metrics: Metrics,
        log: Log,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._side = side
        self._puller = puller
        self._source = source
        self._at = at
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._seen: dict[Part, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka watch", daemon=True)
        self.trouble = ""
        """Why the brokers could not be asked; "" while they answer."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stop.wait(min(self._source.check_s, self._source.stalled_s / 3)):
            try:
                self.look()
            except CacheError as error:
                # Nothing is known now, and that is no reason to connect anew: it would hang just as well.
                self._failed("Kafka does not answer", str(error))
            except Exception as error:  # noqa: BLE001 - without this thread a topic's replacement goes unnoticed
                self._failed("looking after the topics failed", f"{type(error).__name__}: {error}")
            else:
                self.trouble = ""

    def _failed(self, what: str, why: str) -> None:
        if not self.trouble:
            self._log.warning(what, error=why)
        self.trouble = why

    def look(self) -> None:
        """Once. Raises `StoreError`."""
        before = self._at()
        positions: Positions = {label(part): position for part, position in before.items()}
        topic = self._side.replaced(positions, list(before))
        if topic:
            now = self._at()
            if not any(at.topic == topic and log_of(now.get(at, "")) == log_of(before[at]) for at in before):
                return  # while we asked, it was noticed and answered: no second gap
            self._puller.member.missed(f"the topic {topic} was deleted and created again: what it held is lost")
            return
        ends = self._side.ends(list(before))
        stuck = [part for part in before if self._is_stuck(part, before[part], ends[part])]
        for part in before:
            self._metrics.lag_messages.labels(label(part)).set(max(0, ends[part] - offset_of(before[part])))
        if stuck and not self._puller.member.buffer:
            self._puller.connect_anew(f"no progress in {', '.join(map(label, stuck))} though there is more to read")
            self._seen.clear()

    def _is_stuck(self, part: Part, position: str, end: int) -> bool:
        seen, since_s = self._seen.get(part, ("", 0.0))
        now_s = self._clock_s()
        if seen != position or end <= offset_of(position):
            self._seen[part] = position, now_s
            return False
        return now_s - since_s >= self._source.stalled_s
