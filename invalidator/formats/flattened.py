"""Rows without an envelope: what Debezium's `ExtractNewRecordState` leaves of an event.

What it leaves out cannot be known: without `add.fields=op` an insert cannot be told from an update, there is never
an image before, so a key of many rows that depends on anything but the row's key takes a new epoch on every
update and delete. MySQL and MariaDB need `add.fields=connector` (and `add.headers`, where tombstones are deletes), see
`mysql.py`. With `delete.tombstone.handling.mode` `drop` deletes do not arrive, and no decoder can help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from cachelib.model import RowChange, RowOp
from invalidator.formats.base import (
    Changes,
    Decoded,
    DecodeFailed,
    Headers,
    Ignored,
    Tables,
    doubtful_row,
    doubtful_table,
    version_of,
)
from invalidator.formats.connect_json import UNREADABLE, Types, convert_columns, explain, read_row, unwrap
from invalidator.formats.mysql import CONNECTORS, all_possible, without_truth
from invalidator.formats.unavailable import UNAVAILABLE, Unavailable

_OPS: Mapping[str, RowOp] = {"c": "create", "u": "update", "d": "delete", "r": "update"}


class Flattened:
    """A `Decoder`.

    Args:
        version: the version column's name; "" for none.
        tables: how tables are called; where records have no `__table`, they are called as their topic is.
        types: what columns are, where there are no schemas.
        tombstones: what a record without a value is: a delete, unless the mode is `rewrite-with-tombstone`, where the
            record before it said so.
        metadata: the prefix of what `add.fields` and `add.headers` add.
        placeholder: the connector's `unavailable.value.placeholder`.
    """

    def __init__(
        self,
        version: str = "row_version",
        tables: Tables | None = None,
        types: Types | None = None,
        tombstones: Literal["ignore", "delete"] = "delete",
        metadata: str = "__",
        placeholder: str = UNAVAILABLE,
    ) -> None:
        self._version = version
        self._tables = tables or Tables()
        self._types = types or Types()
        self._tombstones = tombstones
        self._prefix = metadata
        self._unavailable = Unavailable(placeholder)

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Decoded:
        """See `Decoder`."""
        table = self._tables.of_topic(topic)
        try:
            more = _headers(headers, self._prefix)
            if value is None:
                return self._gone(self._named(table, more), key, more)
            row, plan = unwrap(value, table, self._types)
            if row is None:
                return self._gone(self._named(table, more), key, more)
            if not isinstance(row, dict):
                raise ValueError("it is not an object of columns")
            for name in [name for name in row if name.startswith(self._prefix)]:
                more[name] = row.pop(name)
            named = self._named(table, more)
            if named != table and not plan:
                plan = self._types.plan(named, b"")
            if self._unavailable.may_be_in(value):
                self._unavailable.drop(row)
            convert_columns(row, plan)
            return self._row(named, key, row, more)
        except UNREADABLE as error:
            why = f"{topic}: not a row: {explain(error, value or b'')}"
            raise DecodeFailed(why, self._instead(table, key)) from error

    def _row(self, table: str, key: bytes | None, row: dict[str, Any], more: Mapping[str, Any]) -> Decoded:
        said = self._of(more, "op")
        deleted = str(self._of(more, "deleted")).lower() == "true"
        if said == "t":
            return Changes((RowChange(table, "truncate", at_us=self._at_us(more)),), self._position(more))
        op: RowOp | None = "delete" if deleted else _OPS.get(str(said)) if said is not None else None
        if op is None and said is not None:
            raise ValueError(f"operation {said!r} is not known")
        # Without a key of its own only a new row has a name: of an old one the columns may just have changed.
        columns = read_row(key, table, self._types) if key is not None else row if said == "c" else {}
        if self._of(more, "connector") in CONNECTORS:
            without_truth(columns)
            without_truth(row)
        version = None if op == "delete" or not self._version else version_of(row.get(self._version))
        # Of an unknown operation: a create with a version voids all that an update would, and cached absence, too.
        op = op or ("create" if version else "update")
        change = RowChange(
            table,
            op,
            columns,
            version,
            before=None if said == "c" else columns,
            after=None if op == "delete" else row,
            tx=self._tx(more),
            at_us=self._at_us(more),
        )
        return Changes(self._all(change, more), self._position(more), snapshot=said == "r")

    def _all(self, change: RowChange, more: Mapping[str, Any]) -> tuple[RowChange, ...]:
        return all_possible(change) if self._of(more, "connector") in CONNECTORS else (change,)

    def _gone(self, table: str, key: bytes | None, more: Mapping[str, Any]) -> Decoded:
        if self._of(more, "op") == "t":
            return Changes((RowChange(table, "truncate", at_us=self._at_us(more)),), self._position(more))
        if self._tombstones == "ignore" and key is not None:
            return Ignored("a tombstone: the record before it said the same")
        if key is None:
            raise ValueError("a record without key and value")
        columns = read_row(key, table, self._types)
        if self._of(more, "connector") in CONNECTORS:
            without_truth(columns)
        change = RowChange(table, "delete", columns, before=columns, tx=self._tx(more), at_us=self._at_us(more))
        return Changes(self._all(change, more), self._position(more))

    def _named(self, table: str, more: Mapping[str, Any]) -> str:
        given = self._of(more, "table")
        if not isinstance(given, str) or not given:
            return table
        schema = self._of(more, "schema") or self._of(more, "db")
        if isinstance(schema, str):
            return self._tables.name(schema, given)
        # Its schema is still in the topic's name, if that names the same table.
        return table if table.rpartition(".")[2] == given else given

    def _of(self, more: Mapping[str, Any], name: str) -> Any:
        """A piece of metadata: of the event, or of its source."""
        found = more.get(self._prefix + name)
        return more.get(f"{self._prefix}source_{name}") if found is None else found

    def _at_us(self, more: Mapping[str, Any]) -> int:
        for name, unit_us in (("ts_us", 1), ("ts_ms", 1000)):
            at = _whole(more.get(f"{self._prefix}source_{name}"))
            if at is not None:
                return at * unit_us
        return 0

    def _tx(self, more: Mapping[str, Any]) -> int | None:
        return _whole(self._of(more, "txId"))

    def _position(self, more: Mapping[str, Any]) -> str:
        lsn = _whole(self._of(more, "lsn"))
        return "" if lsn is None else str(lsn)

    def _instead(self, table: str, key: bytes | None) -> tuple[RowChange, ...]:
        try:
            columns = read_row(key, table, self._types) if key else {}
        except UNREADABLE:
            columns = {}
        return doubtful_row(table, columns) if columns else doubtful_table(table)


def _headers(headers: Headers, prefix: str) -> dict[str, Any]:
    return {name: text.decode() for name, text in headers if text is not None and name.startswith(prefix)}


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
