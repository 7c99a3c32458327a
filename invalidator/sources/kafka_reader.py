"""A reader of its own for a node that is behind: no group, no thread, a client only while it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from itertools import groupby

from cachelib.errors import CacheError, ConfigError, LogGap, StoreError
from invalidator.sources.base import ChangeSource, Committed, Polled, Positions, covers, log_of
from invalidator.sources.kafka_client import Build, KafkaClient, OutOfRange
from invalidator.sources.kafka_places import Part, label, offset_of, place
from invalidator.sources.kafka_records import Records
from invalidator.sources.kafka_side import discard

_CLOSE_S = 2.0


class KafkaReader:
    """A `ChangeSource` for one thread. What is asked about the log, `source` answers."""

    def __init__(
        self,
        source: ChangeSource,
        build: Build,
        records: Records,
        parts: Callable[[], Collection[Part]],
        stalled_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capability = source.capability
        self._source = source
        self._build = build
        self._records = records
        self._parts = parts
        self._stalled_s = stalled_s
        self._clock_s = clock_s
        self._moved_at_s = clock_s()
        self._at: dict[str, str] = {}
        self._client: KafkaClient | None = None

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """See `ChangeSource.poll`."""
        client = self._connected()
        before = dict(self._at)
        try:
            records = client.poll(limit, timeout_s)
            ids = {part.topic: log_of(self._at[label(part)]) for part in self._known()}
            for part, several in groupby(records, lambda one: Part(one.topic, one.partition)):
                self._at[label(part)] = place(list(several)[-1].offset + 1, ids[part.topic])
            for part, offset in client.positions().items():
                if offset > offset_of(self._at[label(part)]):
                    self._at[label(part)] = place(offset, ids[part.topic])
        except OutOfRange as gap:
            raise LogGap(str(gap)) from gap
        except Exception as error:
            self._at = before
            self.rest_for_good()
            raise _failed(error) from error
        self._mind_progress(before)
        reading = self._records.read(records, ids)
        return Polled(tuple(reading.events), before, dict(self._at), None, tuple(reading.poison))

    def _mind_progress(self, before: Positions) -> None:
        """A client may stall without an error: where there is more to read, the next poll makes another one."""
        now_s = self._clock_s()
        if self._at != before:
            self._moved_at_s = now_s
        elif now_s - self._moved_at_s >= self._stalled_s:
            self._moved_at_s = now_s
            if not covers(self._at, self._source.end()):
                self.rest_for_good()

    def _connected(self) -> KafkaClient:
        if self._client is None:
            try:
                self._client = self._build()
                self._moved_at_s = self._clock_s()
                parts = self._known()
                self._client.assign(list(parts))
                self._client.seek({part: offset_of(position) for part, position in parts.items()})
            except Exception as error:
                self.rest_for_good()
                raise _failed(error) from error
        return self._client

    def _known(self) -> Mapping[Part, str]:
        return {part: self._at[label(part)] for part in self._parts() if label(part) in self._at}

    def seek(self, positions: Positions) -> None:
        """See `ChangeSource.seek`; connects at the next poll, to what is read then."""
        self.rest_for_good()
        self._at = dict(positions)

    def rest_for_good(self) -> None:
        """Nothing is read for a while: hold no connection and no memory."""
        client, self._client = self._client, None
        if client is not None:
            discard(client)

    def rest(self) -> None:
        """See `ChangeSource.rest`: without a group, nobody waits for us."""

    def close(self) -> None:
        """See `ChangeSource.close`."""
        client, self._client = self._client, None
        if client is not None:
            discard(client).join(_CLOSE_S)

    # --- the source's ------------------------------------------------------------------------

    def start(self) -> Positions:
        """See `ChangeSource.start`."""
        return self._source.start()

    def at(self, time_us: int) -> Positions:
        """See `ChangeSource.at`."""
        return self._source.at(time_us)

    def end(self) -> Positions:
        """See `ChangeSource.end`."""
        return self._source.end()

    def elsewhere(self) -> Positions:
        """See `ChangeSource.elsewhere`."""
        return self._source.elsewhere()

    def horizon(self) -> Positions:
        """See `ChangeSource.horizon`."""
        return self._source.horizon()

    def committed(self, nodes: Collection[str]) -> Committed | None:
        """See `ChangeSource.committed`."""
        return self._source.committed(nodes)

    def commit(self, committed: Committed) -> None:
        """See `ChangeSource.commit`."""
        self._source.commit(committed)

    def forget(self, node: str) -> None:
        """See `ChangeSource.forget`."""
        self._source.forget(node)

    def open(self, done: Callable[[], Committed | None]) -> None:
        """See `ChangeSource.open`: it connects when it reads."""

    def moved(self) -> bool:
        """See `ChangeSource.moved`: it follows its source."""
        return False

    def partitions(self) -> int:
        """See `ChangeSource.partitions`."""
        return self._source.partitions()

    def reader(self, positions: Positions) -> ChangeSource:
        """See `ChangeSource.reader`."""
        return self._source.reader(positions)

    def purge(self) -> int:
        """See `ChangeSource.purge`."""
        return 0


def _failed(error: Exception) -> Exception:
    if isinstance(error, ConfigError):  # the source has connected with the same settings
        return StoreError(str(error))
    return (
        error if isinstance(error, CacheError) else StoreError(f"reading Kafka failed: {type(error).__name__}: {error}")
    )
