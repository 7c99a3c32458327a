"""The store's own change log as a source: SQLite and PostgreSQL, without a bus.

It reads by SELECT, so it shows nothing that others cannot read yet. The order that never skips a
late commit, and waiting for news, are the store's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from cachelib.stores.base import ChangeLog, LogBatch
from invalidator.sources.base import Capability, Committed, Event, Polled, Positions

PARTITION = "log"


class Outbox:
    """A `ChangeSource` over a `ChangeLog`."""

    capability = Capability("outbox", shows_early=False, watermark=True)

    def __init__(self, log: ChangeLog, consumer: str, position: str = "") -> None:
        self._log = log
        self._consumer = consumer
        self._at = position

    def open(self, done: Callable[[], Committed | None]) -> None:
        """See `ChangeSource.open`: the store is asked when it is needed."""

    def moved(self) -> bool:
        """See `ChangeSource.moved`: there is one partition, and it is ours."""
        return False

    def partitions(self) -> int:
        """See `ChangeSource.partitions`."""
        return 1

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """See `ChangeSource.poll`."""
        batch = self._log.poll_changes(self._at, limit)
        if not batch.entries and timeout_s > 0:
            self._log.wait_for_changes(self._at, timeout_s)
            batch = self._log.poll_changes(self._at, limit)
        return self._polled(batch)

    def _polled(self, batch: LogBatch) -> Polled:
        before, self._at = self._at, batch.position
        events = tuple(Event(PARTITION, entry.position, entry.change) for entry in batch.entries)
        return Polled(events, {PARTITION: before}, {PARTITION: batch.position}, batch.watermark_us)

    def rest(self) -> None:
        """See `ChangeSource.rest`: nothing is held open."""

    def seek(self, positions: Positions) -> None:
        """See `ChangeSource.seek`."""
        self._at = positions[PARTITION]

    def start(self) -> Positions:
        """See `ChangeSource.start`."""
        return {PARTITION: self._log.log_start()}

    def at(self, time_us: int) -> Positions:
        """See `ChangeSource.at`; the time is that of the change, not of its commit."""
        return {PARTITION: self._log.log_at(time_us)}

    def end(self) -> Positions:
        """See `ChangeSource.end`."""
        return {PARTITION: self._log.log_end()}

    def elsewhere(self) -> Positions:
        """See `ChangeSource.elsewhere`: there is one partition."""
        return {}

    def horizon(self) -> Positions:
        """See `ChangeSource.horizon`: a SELECT shows nothing early."""
        return self.end()

    def committed(self, nodes: Collection[str]) -> Committed | None:
        """See `ChangeSource.committed`."""
        position = self._log.load_consumer(self._consumer)
        if position is None:
            return None
        counted = (node for node in nodes if self._log.load_consumer(self._name(node)) is not None)
        return Committed({PARTITION: position}, frozenset(counted))

    def commit(self, committed: Committed) -> None:
        """See `ChangeSource.commit`."""
        position = committed.positions[PARTITION]
        # A record for each node: a node that lost its own position may go on from the committed
        # one only if it was among those that the committed one waited for.
        for name in (self._consumer, *map(self._name, sorted(committed.counted))):
            self._log.save_consumer(name, position)

    def forget(self, node: str) -> None:
        """See `ChangeSource.forget`."""
        self._log.drop_consumer(self._name(node))

    def reader(self, positions: Positions) -> Outbox:
        """See `ChangeSource.reader`."""
        return Outbox(self._log, self._consumer, positions[PARTITION])

    def purge(self) -> int:
        """See `ChangeSource.purge`."""
        return self._log.purge()

    def close(self) -> None:
        """The log belongs to the store, which its owner closes."""

    def _name(self, node: str) -> str:
        return f"{self._consumer}@{node}"
