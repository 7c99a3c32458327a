"""What is put under load: the library, or a cache without invalidation that shows what the checker finds.

A target reads one key and writes one key; `Behind` is the writer that no cache hears of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol, TypeAlias

from cachelib import Cache, CommitUnknown, Session, StoreError, Unconfirmed
from cachelib.errors import ConfigError
from cachelib.metrics import EVENTS, LOADS
from cachelib.stores import SqlStore
from cachelib.stores.base import Loaded, SyncLoader
from loadgen.database import connect
from loadgen.record import ABSENT, SOURCES, WRONG, Result, Source, Status, stamp_of
from loadgen.tables import Dataset, Subject

Seen: TypeAlias = tuple[int, int, int]
"""What a read returned: version (0: an absence without one), stamp, source."""


class Target(Protocol):
    """Something with keys."""

    def read(self, subject: Subject, key: str) -> Seen:
        """One read. Raises what the target raises."""

    def write(self, subject: Subject, key: str, writer: int, seq: int, *, gone: bool) -> Result:
        """Write one row with this stamp, or delete it (`gone`). An error is in the result."""

    def evict(self, subject: Subject, key: str) -> None:
        """Lose what is cached of a key."""

    def counters(self) -> Mapping[str, int]:
        """`store_loads` and `loads_without_leases` so far; see the README."""

    def close(self) -> None:
        """Close every connection."""


def target_of(kind: str, cache_url: str, store_url: str, dataset: Dataset, namespace: str, origin_ms: float) -> Target:
    """The target that the command line names. Raises `ConfigError`."""
    if kind == "library":
        return Library(cache_url, store_url, dataset, namespace, origin_ms)
    if kind == "forgetful":
        return Forgetful(store_url)
    raise ConfigError(f"target is {kind!r}: it takes 'library' or 'forgetful'")


def stamp_in(value: Mapping[str, Any], subject: Subject, key: str) -> int:
    """The stamp of a row that a read returned for this key."""
    return stamp_of(value["writer"], value["seq"]) if value[subject.key] == key else WRONG


class DistantStore(SqlStore):
    """A file answers a miss in a fraction of a millisecond, in which no herd can gather: so a load may be
    made to take longer, as it does across a network, half of it before the snapshot and half after (time
    in which a write makes what was loaded old). Writers are not slowed down.
    """

    def __init__(self, url: str, origin_ms: float) -> None:
        super().__init__(url)
        self._half_s = origin_ms / 2000

    def load(self, loader: SyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `Store.load`."""
        if not self._half_s:
            return super().load(loader, keys, timeout_s=timeout_s)
        time.sleep(self._half_s)
        loaded = super().load(loader, keys, timeout_s=timeout_s)
        time.sleep(self._half_s)
        return loaded


class Library:
    """cachelib over a SQL store."""

    def __init__(
        self, cache_url: str, store_url: str, dataset: Dataset, namespace: str, origin_ms: float = 0.0
    ) -> None:
        self._store = DistantStore(store_url, origin_ms)
        entities = [subject.entity for subject in dataset.subjects]
        self._cache = Cache(cache_url, store=self._store, entities=entities, namespace=namespace)
        self._read = self._cache.read

    def read(self, subject: Subject, key: str) -> Seen:
        """See `Target.read`."""
        answer = self._read(subject.entity, key)
        stamp = stamp_in(answer.value, subject, key) if answer.found else ABSENT
        return answer.version, stamp, SOURCES.get(answer.source, Source.OTHER)

    def write(self, subject: Subject, key: str, writer: int, seq: int, *, gone: bool) -> Result:
        """See `Target.write`."""
        return write_through(self._cache, subject, {"key": key, "writer": writer, "seq": seq}, gone=gone)

    def evict(self, subject: Subject, key: str) -> None:
        """See `Target.evict`."""
        self._cache.invalidate(subject.entity, key)

    def counters(self) -> Mapping[str, int]:
        """See `Target.counters`."""
        loads = misses = 0
        for (metric, _, label), count in self._cache.metrics.values().items():
            loads += count if metric == LOADS else 0
            misses += count if metric == EVENTS and label == "miss" else 0
        return {"store_loads": loads, "loads_without_leases": misses}

    def close(self) -> None:
        """See `Target.close`."""
        self._cache.close()
        self._store.close()


def write_through(cache: Cache | Session, subject: Subject, named: Mapping[str, Any], *, gone: bool) -> Result:
    """Update, insert or delete (`gone`) the row of `named["key"]` by a transaction of the library."""
    sql = Sql(subject)
    try:
        with cache.transaction() as tx:
            changed = tx.execute(sql.delete if gone else sql.update, named).rowcount
            if not changed and not gone:
                changed = tx.execute(sql.insert, named).rowcount
    except (Unconfirmed, CommitUnknown, StoreError) as error:
        return result_of(error)
    if not changed:
        return Result(Status.NOTHING)
    written = tx.written
    assert written is not None  # the block ended without an error
    return Result(Status.ACKNOWLEDGED, written.version)


def result_of(error: Unconfirmed | CommitUnknown | StoreError) -> Result:
    """What an error of a transaction says of its commit."""
    match error:
        case Unconfirmed():
            return Result(Status.UNCONFIRMED, error.version or 0, error)
        case CommitUnknown():
            return Result(Status.UNKNOWN, 0, error)
        case _:
            return Result(Status.REFUSED, 0, error)


class Behind:
    """Plain SQL on the store itself. One thread's."""

    def __init__(self, store_url: str) -> None:
        self._database = connect(store_url)

    def write(self, subject: Subject, key: str, writer: int, seq: int, *, gone: bool) -> Result:
        """Commit one change, in a transaction of its own."""
        return self.change(subject, {"key": key, "writer": writer, "seq": seq}, gone=gone)

    def change(self, subject: Subject, named: Mapping[str, Any], *, gone: bool) -> Result:
        """The same, told the values of all columns that may be set."""
        sql = Sql(subject)
        try:
            with self._database.transaction():
                version = self._change(sql, named, gone=gone)
        except self._database.failures as error:
            return Result(Status.REFUSED, 0, error)
        return Result(Status.ACKNOWLEDGED, version) if version else Result(Status.NOTHING)

    def _change(self, sql: Sql, named: Mapping[str, Any], *, gone: bool) -> int:
        key = {"key": named["key"]}
        before = self._version(sql.version + self._database.locked, key)
        if gone:
            # A delete draws a version of its own, which no row shows. The next number above the row's stands
            # for it: above all that was before, and below whatever is inserted later.
            return before + 1 if self._database.execute(sql.delete, key).rowcount else 0
        if not self._database.execute(sql.update, named).rowcount:
            self._database.execute(sql.insert, named)
        return self._version(sql.version, key)

    def _version(self, statement: str, key: Mapping[str, Any]) -> int:
        found = self._database.execute(statement, key).fetchone()
        return int(found[0]) if found else 0

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


class Forgetful:
    """Each process keeps what it has read, and hears of nobody else's writes. It must be found stale."""

    def __init__(self, store_url: str) -> None:
        self._store_url = store_url
        self._kept: dict[tuple[str, str], Seen] = {}
        self._own = threading.local()
        self._loads = 0

    def read(self, subject: Subject, key: str) -> Seen:
        """See `Target.read`."""
        kept = self._kept.get((subject.table, key))
        if kept is not None:
            return kept
        self._loads += 1
        columns = f"{subject.key}, row_version, writer, seq"
        with closing(connect(self._store_url)) as database:
            asked = f"select {columns} from {subject.table} where {subject.key} = :key"
            found = database.execute(asked, {"key": key}).fetchone()
        row = dict(zip(columns.split(", "), found, strict=True)) if found else None
        seen = (row["row_version"], stamp_in(row, subject, key)) if row else (0, ABSENT)
        self._kept[subject.table, key] = (*seen, Source.HIT)
        return *seen, Source.FILLED

    def write(self, subject: Subject, key: str, writer: int, seq: int, *, gone: bool) -> Result:
        """See `Target.write`."""
        if not hasattr(self._own, "writer"):
            self._own.writer = Behind(self._store_url)
        result: Result = self._own.writer.write(subject, key, writer, seq, gone=gone)
        self._kept.pop((subject.table, key), None)
        return result

    def evict(self, subject: Subject, key: str) -> None:
        """See `Target.evict`."""
        self._kept.pop((subject.table, key), None)

    def counters(self) -> Mapping[str, int]:
        """See `Target.counters`."""
        return {"store_loads": self._loads, "loads_without_leases": self._loads}

    def close(self) -> None:
        """Its threads' connections end with them."""


class Sql:
    """One subject's statements."""

    def __init__(self, subject: Subject) -> None:
        table, column = subject.table, subject.key
        self.update = f"update {table} set writer = :writer, seq = :seq, {subject.change} where {column} = :key"
        names = "".join(f", {name}" for name in subject.filled)
        marks = "".join(f", :{name}" for name in subject.filled)
        self.insert = f"insert into {table} ({column}, writer, seq{names}) values (:key, :writer, :seq{marks})"
        self.delete = f"delete from {table} where {column} = :key"
        self.version = f"select {subject.entity.version} from {table} where {column} = :key"
