"""From records to what a poll gives: changes, poison, and how far the store's clock is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from invalidator.formats.base import Changes, DecodeFailed, Decoder, Heartbeat, Tables
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium
from invalidator.formats.detect import Detect
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxRouter
from invalidator.formats.relay import Relay
from invalidator.metrics import Metrics
from invalidator.sources.base import Event, Poison, Record
from invalidator.sources.kafka_places import Part, label, place

_MAKERS: Mapping[str, Callable[[Types, Tables, Collection[str]], Decoder]] = {
    "detect": lambda types, tables, full: Detect(
        Debezium(tables=tables, types=types, full=full), Flattened(tables=tables, types=types)
    ),
    "relay": lambda *_: Relay(),
    "debezium": lambda types, tables, full: Debezium(tables=tables, types=types, full=full),
    "flattened": lambda types, tables, _: Flattened(tables=tables, types=types),
    "outbox-router": lambda *_: OutboxRouter(),
}


class Reading:
    """What some records come to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.poison: list[Poison] = []


class Records:
    """Reads records of these topics; `full`, `tables`: see `Debezium`. For one thread."""

    def __init__(
        self,
        formats: Mapping[str, str],
        types: Types | None = None,
        full: Collection[str] = (),
        *,
        tables: Tables | None = None,
        snapshots: bool,
        metrics: Metrics,
    ) -> None:
        types, tables = types or Types(), tables or Tables()
        self._decoders = {topic: _MAKERS[form](types, tables, full) for topic, form in formats.items()}
        self._snapshots = snapshots
        self._metrics = metrics
        self._told: dict[Part, Heartbeat] = {}
        self._labels: dict[tuple[str, int], str] = {}

    def read(self, records: Sequence[Record], topic_ids: Mapping[str, str]) -> Reading:
        """All of them, in order."""
        reading = Reading()
        decoders, labels = self._decoders, self._labels
        for record in records:
            topic, number = record.topic, record.partition
            at = labels.get((topic, number)) or self._label(topic, number)
            position = place(record.offset + 1, topic_ids.get(topic, ""))
            try:
                found = decoders[topic](topic, record.key, record.value, record.headers or ())
            except DecodeFailed as failed:
                self._metrics.decode_errors.labels(at).inc()
                reading.poison.append(Poison(at, position, failed.why, failed.instead, record))
                continue
            if isinstance(found, Changes):
                if not found.snapshot or self._snapshots:
                    reading.events += [Event(at, position, change, record) for change in found.changes]
            elif isinstance(found, Heartbeat):
                self._told[Part(topic, number)] = found
        return reading

    def _label(self, topic: str, number: int) -> str:
        """Made once for a partition, and not for each of its records."""
        return self._labels.setdefault((topic, number), label(Part(topic, number)))

    def sought(self) -> None:
        """Reading goes on elsewhere: what was told so far may lie ahead of it."""
        self._told.clear()

    def watermark_us(self, parts: Collection[Part], sizes: Mapping[str, int]) -> int | None:
        """Up to when every commit in these was read, if all say so, and know of as many partitions as there are."""
        marks: list[int] = []
        for part in parts:
            told = self._told.get(part)
            if told is None or told.watermark_us is None or told.partitions != sizes.get(part.topic):
                return None
            marks.append(told.watermark_us)
        return min(marks, default=None)
