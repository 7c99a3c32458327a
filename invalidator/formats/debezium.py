"""Debezium's change events in JSON: PostgreSQL, MySQL and MariaDB, with and without schemas.

What a `before` image is worth, as was seen on real topics: under PostgreSQL's REPLICA IDENTITY DEFAULT an update
has none, and a delete has the key and, in all other columns, *the columns' defaults*, which look like values. So
a before image is believed only of MySQL and MariaDB (the connector insists on full images), of tables that are said
to be `full`, and where its version column is above 1 (a default is not). Otherwise all but the key is unknown.

A change of the key comes as a delete and a create; the create may have a NULL version, and an update follows.
Rows of our own change log (`leasecache_changes`), captured like any table, are read as the changes they tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from cachelib.model import RowChange, RowOp, Version
from invalidator.formats import change_log
from invalidator.formats.base import (
    Changes,
    Decoded,
    DecodeFailed,
    Headers,
    Heartbeat,
    Ignored,
    Tables,
    doubtful_row,
    doubtful_table,
    version_of,
)
from invalidator.formats.connect_json import UNREADABLE, Types, convert_columns, explain, number_hook, read_row
from invalidator.formats.mysql import CONNECTORS, all_possible, without_truth
from invalidator.formats.unavailable import UNAVAILABLE, Unavailable

Row: TypeAlias = Mapping[str, Any] | None
_OPS: Mapping[str, RowOp] = {"c": "create", "u": "update", "d": "delete", "r": "update"}


class _Source(msgspec.Struct):
    connector: str = ""
    schema: str | None = None
    db: str | None = None
    table: str | None = None
    tx: int | str | None = msgspec.field(default=None, name="txId")
    lsn: int | str | None = None
    file: str | None = None
    pos: int | None = None
    ts_us: int | None = None
    ts_ms: int | None = None

    @property
    def at_us(self) -> int:
        return self.ts_us or (self.ts_ms or 0) * 1000

    @property
    def position(self) -> str:
        return f"{self.file}:{self.pos}" if self.file else str(self.lsn or "")


class _Event(msgspec.Struct):
    """All messages of the connector, also those that are no change of a row."""

    op: str | None = None
    source: _Source | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    ts_ms: int | None = None
    status: str | None = None
    ddl: str | None = None
    changed: list[dict[str, Any]] | None = msgspec.field(default=None, name="tableChanges")


class _Message(_Event):
    """With a schema beside it or not, in one pass."""

    schema: msgspec.Raw = msgspec.Raw()
    payload: _Event | msgspec.UnsetType | None = msgspec.UNSET


_MESSAGE = msgspec.json.Decoder(_Message, float_hook=number_hook)


class Debezium:
    """A `Decoder`.

    Args:
        version: the version column's name; "" for none.
        tables: how tables are called.
        types: what columns are, where there are no schemas.
        full: tables whose before images are complete: REPLICA IDENTITY FULL, and not to be changed while this runs.
        tombstones: what a record without a value is. It follows the delete that says the same, so it is ignored; on a
            compacted topic that delete may be gone, and it is one.
        placeholder: the connector's `unavailable.value.placeholder`.
    """

    def __init__(
        self,
        version: str = "row_version",
        tables: Tables | None = None,
        types: Types | None = None,
        full: Collection[str] = (),
        tombstones: Literal["ignore", "delete"] = "ignore",
        placeholder: str = UNAVAILABLE,
    ) -> None:
        self._version = version
        self._tables = tables or Tables()
        self._types = types or Types()
        self._full = frozenset(full)
        self._tombstones = tombstones
        self._unavailable = Unavailable(placeholder)

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Decoded:
        """See `Decoder`."""
        if value is None:
            return self._gone(topic, key)
        try:
            message = _MESSAGE.decode(value)
            event = message if message.payload is msgspec.UNSET else message.payload
            if event is None:
                return self._gone(topic, key)
            schema = b"" if event is message else bytes(message.schema)
            if event.op is None or event.source is None:
                return self._no_row(event, key, value)
            return self._row_event(event, event.source, topic, key, schema, value)
        except UNREADABLE as error:
            raise self._failed(f"not a Debezium event: {explain(error, value)}", topic, key) from error

    def _row_event(
        self, event: _Event, source: _Source, topic: str, key: bytes | None, schema: bytes, value: bytes
    ) -> Decoded:
        if event.op == "m":
            return Ignored("a message that an application wrote into the log")
        if not source.table:
            raise ValueError(f"its source names no table (connector {source.connector!r})")
        table = self._tables.name(source.schema or source.db, source.table)
        tx = source.tx if isinstance(source.tx, int) else None
        if event.op == "t":
            return Changes((RowChange(table, "truncate", tx=tx, at_us=source.at_us),), source.position)
        op = _OPS.get(event.op or "")
        if op is None:
            raise self._failed(f"operation {event.op!r} of table {table!r} is not known", topic, key, table)
        self._clean(event, table, schema, value)
        if change_log.is_log(source.table):
            return change_log.captured(op, event.after, tx, source.position)
        if (event.before if op == "delete" else event.after) is None:
            raise self._failed(f"operation {event.op!r} of table {table!r} without its row", topic, key, table)
        columns = self._key(key, table, topic)
        mysql = source.connector in CONNECTORS
        for row in (columns, event.before, event.after) if mysql else ():
            without_truth(row or {})
        before: Row = event.before if op != "create" else None
        if before is not None and not self._believed(before, table, source):
            before = None
        version = self._version_after(event, before)
        if not columns:
            told = _keyless(table, op, version, before, event.after, tx, source.at_us)
            told = tuple(other for one in told for other in all_possible(one)) if mysql else told
            return Changes(told, source.position)
        after = None if op == "delete" else event.after
        if before is None and op != "create":
            before = columns  # unknown, but for the key
        change = RowChange(table, op, columns, version, before, after, tx, source.at_us)
        return Changes(all_possible(change) if mysql else (change,), source.position, event.op == "r")

    def _version_after(self, event: _Event, before: Row) -> Version | None:
        """None where it did not rise: whoever changed the row did not draw it, so it orders nothing."""
        version = version_of(event.after.get(self._version)) if event.after and self._version else None
        was = version_of(before.get(self._version)) if before is not None and event.op == "u" else None
        return version if version is None or was is None or was < version else None

    def _clean(self, event: _Event, table: str, schema: bytes, value: bytes) -> None:
        """Values as the database's driver has them, and none where the value is unknown."""
        missing = self._unavailable.may_be_in(value)
        for row, part in ((event.before, "before"), (event.after, "after")):
            if row is None:
                continue
            if missing:
                self._unavailable.drop(row)
            plan = self._types.plan(table, schema, part)
            if plan:
                convert_columns(row, plan)

    def _believed(self, before: Mapping[str, Any], table: str, source: _Source) -> bool:
        if table in self._full or source.connector in CONNECTORS:
            return True
        return (version_of(before.get(self._version)) or 0) > 1

    def _key(self, key: bytes | None, table: str, topic: str) -> dict[str, Any]:
        """The record's key; empty for a table without one."""
        if key is None:
            return {}
        try:
            return read_row(key, table, self._types)
        except UNREADABLE as error:
            raise self._failed(f"the key of a record of table {table!r}: {error}", topic, None, table) from error

    def _gone(self, topic: str, key: bytes | None) -> Decoded:
        if self._tombstones == "ignore":
            return Ignored("a tombstone: the delete before it said the same")
        if key is None:
            raise self._failed("a record without key and value", topic, key)
        table = self._tables.of_topic(topic)
        columns = self._key(key, table, topic)
        return Changes((RowChange(table, "delete", columns, before=columns),))

    def _no_row(self, event: _Event, key: bytes | None, value: bytes) -> Decoded:
        if event.status in ("BEGIN", "END") and b'"data_collections"' in value:
            return Ignored("where a transaction begins or ends")
        if event.source is not None and (event.ddl is not None or event.changed is not None):
            return self._schema_changed(event)
        # A row that has lost its envelope may have such columns, too; its key is another.
        if event.ts_ms is not None and event.source is None and b'"serverName"' in (key or b""):
            return Heartbeat(event.ts_ms * 1000)
        raise ValueError("it has no operation and source, nor is it a heartbeat")

    def _schema_changed(self, event: _Event) -> Decoded:
        """A new column may come with a default, a table may be gone: all rows may read otherwise now."""
        # A create may replace a table, or come after a rename; and a connector that reads everything anew, as it does
        # where it has lost its place, begins with a drop and a create of each.
        names = [change.get("id") for change in event.changed or ()]
        tables = dict.fromkeys(_unquoted(name, self._tables) for name in names if isinstance(name, str))
        if not tables:
            return Ignored("a change of the schema that changes no table")
        at_us = event.source.at_us if event.source else 0
        return Changes(tuple(RowChange(table, "truncate", at_us=at_us) for table in tables))

    def _failed(self, why: str, topic: str, key: bytes | None, table: str = "") -> DecodeFailed:
        """With what is left to invalidate: the row, if the record's key tells it."""
        table = table or self._tables.of_topic(topic)
        try:
            columns = read_row(key, table, self._types) if key else {}
        except UNREADABLE:
            columns = {}
        return DecodeFailed(f"{topic}: {why}", doubtful_row(table, columns) if columns else doubtful_table(table))


def _keyless(
    table: str, op: RowOp, version: int | None, before: Row, after: Row, tx: int | None, at_us: int
) -> tuple[RowChange, ...]:
    """A table without a key: a row is named by all its columns, and not at all where they are unknown."""
    if op == "update" and before is not None and after is not None:
        # Any column may be the one that names it: the row that was is gone, and another is there.
        gone = RowChange(table, "delete", before, None, before, None, tx, at_us)
        return gone, RowChange(table, "create", after, None, None, after, tx, at_us)
    key = (before if op == "delete" else after if op == "create" else None) or {}
    was = None if op == "create" else before or {}
    return (RowChange(table, op, key, version, was, None if op == "delete" else after, tx, at_us),)


def _unquoted(name: str, tables: Tables) -> str:
    """`"shop"."orders"`, as a schema change has it."""
    *front, table = (part.strip('"`') for part in name.split("."))
    return tables.name(front[-1] if front else None, table)
