"""Topics of Kafka as a source: Debezium's, or our own relay's.

`kafka_puller.py` has the thread that reads for the group, `kafka_side.py` answers questions about the log,
`kafka_watch.py` looks after both, `kafka_reader.py` reads for a node that is behind. Two client libraries
serve (`kafka_client.py`). The committed offset lives in the group; beside it stand the topic's identity and
the nodes that counted. No offset is ever reset: what is missing is a gap, and the daemon's to answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from invalidator.formats.base import Tables
from invalidator.formats.connect_json import Types
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.settings import Settings
from invalidator.sources.base import Capability, Committed, Polled, Positions, Record, covers, log_of
from invalidator.sources.kafka_client import Build
from invalidator.sources.kafka_login import formats
from invalidator.sources.kafka_member import Member
from invalidator.sources.kafka_places import Mark, Part, digest, label, mark, offset_of, place
from invalidator.sources.kafka_puller import Puller
from invalidator.sources.kafka_reader import KafkaReader
from invalidator.sources.kafka_records import Records
from invalidator.sources.kafka_side import Side
from invalidator.sources.kafka_watch import Watch

_CLOCKS_APART_S = 5.0
"""By so much the clocks that stamp records may be ahead of ours. Reading more again is harmless."""


class KafkaSource:
    """A `ChangeSource`. `versions`: those in the records are drawn from the store's own sequence."""

    def __init__(
        self,
        settings: Settings,
        build: Build,
        metrics: Metrics,
        log: Log,
        *,
        versions: bool = False,
        types: Types | None = None,
    ) -> None:
        source, group = settings.kafka_source, settings.kafka_source.group or settings.consumer
        relay_alone = set(formats(source).values()) == {"relay"}
        # The relay reads by SELECT, so whoever reads it sees nothing early, and it says how far it is.
        self.capability = Capability(
            "kafka", shows_early=not relay_alone, watermark=relay_alone, whole=False, versions=versions
        )
        self._settings = source
        self._hidden_s = settings.apply.settle_delay_s
        self._build = build
        self._metrics = metrics
        self._log = log
        self._types = types
        self._records = self._new_records()
        self._parts: frozenset[Part] = frozenset()
        self._place: tuple[Member | None, int] = (None, 0)
        self._at: dict[Part, str] = {}
        self._done: Callable[[], Committed | None] = lambda: None
        self._side = Side(build, source, group)
        self._puller = Puller(build, group, source, self, metrics, log)
        self._watch = Watch(self._side, self._puller, source, lambda: dict(self._at), metrics, log)

    def open(self, done: Callable[[], Committed | None]) -> None:
        """See `ChangeSource.open`."""
        self._done = done
        self._side.check_topics()
        self._puller.start()
        self._watch.start()

    # --- reading -----------------------------------------------------------------------------

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """See `ChangeSource.poll`."""
        batches = self._puller.take(limit, timeout_s)
        before, at = self._positions(), dict(self._at)
        records: list[Record] = []
        for part, several, upto in batches:
            if part in at:
                records += several
                at[part] = place(upto, log_of(at[part]))
        reading = self._records.read(records, {part.topic: log_of(position) for part, position in at.items()})
        self._at = at
        watermark_us = self._records.watermark_us(self._parts, self._side.sizes)
        member, _ = self._place
        placed = member is not None and member.joined
        if batches:
            self._watch.trouble = ""  # they answer again
        return Polled(
            tuple(reading.events),
            before,
            self._positions(),
            watermark_us,
            tuple(reading.poison),
            placed=placed,
            trouble=self._watch.trouble,
        )

    def _positions(self) -> dict[str, str]:
        return {label(part): position for part, position in self._at.items()}

    def rest(self) -> None:
        """See `ChangeSource.rest`: the puller's thread keeps the membership."""

    def seek(self, positions: Positions) -> None:
        """See `ChangeSource.seek`."""
        self._at = {part: positions[label(part)] for part in self._parts if label(part) in positions}
        self._records.sought()
        member, _ = self._place
        if member is not None:
            member.seek({part: offset_of(position) for part, position in self._at.items()})

    def reader(self, positions: Positions) -> KafkaReader:
        """See `ChangeSource.reader`."""
        found = KafkaReader(self, self._build, self._new_records(), lambda: self._parts, self._settings.stalled_s)
        found.seek(positions)
        return found

    def _new_records(self) -> Records:
        source, snapshots = self._settings, self._settings.snapshots == "apply"
        tables = Tables(frozenset(source.home))
        return Records(
            formats(source), self._types, source.full, tables=tables, snapshots=snapshots, metrics=self._metrics
        )

    # --- whose partitions --------------------------------------------------------------------

    def moved(self) -> bool:
        """See `ChangeSource.moved`."""
        member = self._puller.member
        place_now = (member, member.number)
        if place_now in ((member, 0), self._place):
            return False
        with member.changed:
            self._place, self._parts = place_now, member.parts
        self._at = {}
        self._metrics.partitions.set(len(self._parts))
        self._log.info("reads other partitions", partitions=sorted(map(label, self._parts)))
        return True

    def partitions(self) -> int:
        """See `ChangeSource.partitions`."""
        return sum(self._side.sizes.values())

    # --- where the log is --------------------------------------------------------------------

    def start(self) -> Positions:
        """See `ChangeSource.start`."""
        return self._side.start(self._parts)

    def at(self, time_us: int) -> Positions:
        """See `ChangeSource.at`."""
        return self._side.at(self._parts, time_us)

    def end(self) -> Positions:
        """See `ChangeSource.end`."""
        return self._side.end(self._parts)

    def elsewhere(self) -> Positions:
        """See `ChangeSource.elsewhere`."""
        return self._side.end(self._side.every() - self._parts)

    def horizon(self) -> Positions:
        """See `ChangeSource.horizon`: the records' timestamps say how far back that is."""
        if not self.capability.shows_early:
            return self.end()
        since_us = int((time.time() - self._hidden_s - _CLOCKS_APART_S) * 1e6)
        return self._side.at(self._parts, since_us)

    # --- the committed offset ----------------------------------------------------------------

    def committed(self, nodes: Collection[str]) -> Committed | None:
        """See `ChangeSource.committed`."""
        marks = self._side.marks(self._parts)
        if not marks:
            return None
        counted = frozenset.intersection(*(one.nodes for one in marks.values()))
        return Committed(
            {label(part): one.position for part, one in marks.items()},
            frozenset(node for node in nodes if digest(node) in counted),
        )

    def commit(self, committed: Committed) -> None:
        """See `ChangeSource.commit`."""
        marks = self._marks(committed, self._parts)
        if marks:
            self._puller.commit(marks)

    def forget(self, node: str) -> None:
        """See `ChangeSource.forget`: who counts stands beside each offset."""

    def purge(self) -> int:
        """See `ChangeSource.purge`: how long topics are kept is the brokers'."""
        return 0

    def _marks(self, committed: Committed, parts: Collection[Part]) -> dict[Part, Mark]:
        found = {}
        for part in parts:
            position, now = committed.positions.get(label(part), ""), self._at.get(part, "")
            if position and log_of(position) == log_of(now):
                found[part] = mark(position, committed.counted)
        return found

    # --- asked by the member, as partitions are taken ----------------------------------------

    def marks(self, parts: Collection[Part]) -> Mapping[Part, Mark]:
        """See `kafka_member.Done`."""
        done = self._done()
        return self._marks(done, parts) if done is not None else {}

    def settled(self, parts: Collection[Part]) -> bool:
        """See `kafka_member.Done`."""
        done, at = self._done(), self._at  # the main loop puts another in its place
        handed_out = {label(part): at[part] for part in parts if part in at}
        return not handed_out or (done is not None and covers(done.positions, handed_out))

    def close(self) -> None:
        """See `ChangeSource.close`."""
        self._watch.stop()
        self._puller.stop()
        self._side.close()
