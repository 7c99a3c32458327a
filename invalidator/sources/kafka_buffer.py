"""Records that were fetched and not yet asked for, within bounds (I10)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from invalidator.sources.base import Record
from invalidator.sources.kafka_places import Part

_RECORD_BYTES = 500
"""About what Python takes for a record beside its key and value."""


class Batch(NamedTuple):
    """Records of a partition, perhaps none, and the next offset behind them: not every one has a record."""

    part: Part
    records: Sequence[Record]
    upto: int


class Buffer:
    """For one thread at a time."""

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._batches: deque[Batch] = deque()
        self.records = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def full(self) -> bool:
        """Nothing more may be fetched."""
        return self.records >= self._records_max or self.bytes >= self._bytes_max

    @property
    def roomy(self) -> bool:
        """It is time to fetch again: half is free, so that fetching is not begun for a single record."""
        return self.records <= self._records_max // 2 and self.bytes <= self._bytes_max // 2

    def put(self, batch: Batch) -> None:
        """One more."""
        self._batches.append(batch)
        self._count(batch.records, 1)

    def take(self, limit: int) -> list[Batch]:
        """The oldest, up to so many records."""
        taken: list[Batch] = []
        while self._batches and limit > 0:
            batch = self._batches.popleft()
            if len(batch.records) > limit:
                self._batches.appendleft(batch._replace(records=batch.records[limit:]))
                batch = Batch(batch.part, batch.records[:limit], batch.records[limit].offset)
            taken.append(batch)
            limit -= len(batch.records)
            self._count(batch.records, -1)
        return taken

    def drop(self, parts: Collection[Part]) -> None:
        """Without those of these partitions."""
        kept = [batch for batch in self._batches if batch.part not in parts]
        self.clear()
        for batch in kept:
            self.put(batch)

    def clear(self) -> None:
        """Nothing is left."""
        self._batches.clear()
        self.records = self.bytes = 0

    def _count(self, records: Sequence[Record], sign: int) -> None:
        self.records += sign * len(records)
        self.bytes += sign * sum(_RECORD_BYTES + len(one.key or b"") + len(one.value or b"") for one in records)
