"""Debezium's outbox event router over our change log (or a table like it).

The router makes a topic of each table and a record of each row: the payload column is the value, the key column is
the record's key, and further columns are headers or stand beside the payload. This is how it must be set:

    table.field.event.id=version                    route.by.field=tbl
    table.field.event.key=key                       table.field.event.payload=after
    route.tombstone.on.empty.payload=false          table.op.invalid.behavior=warn
    table.fields.additional.placement=tbl:header,op:header,version:header,before:header,at:header

`envelope` in place of `header` is understood as well, and so is `table.expand.json.payload`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachelib.model import RowChange
from invalidator.formats import change_log
from invalidator.formats.base import Changes, Decoded, DecodeFailed, Headers, doubtful_row, doubtful_table
from invalidator.formats.connect_json import UNREADABLE, Types, exact_json, explain, unwrap

_NO_TYPES = Types()


@dataclass(frozen=True, slots=True)
class OutboxColumns:
    """Under which names the log's columns arrive, in headers or beside the payload."""

    table: str = "tbl"
    op: str = "op"
    key: str = "key"
    version: str = "version"
    before: str = "before"
    at: str = "at"


class OutboxRouter:
    """A `Decoder`.

    Args:
        columns: the names of the log's columns.
        prefix: what the names of topics have before the table's name, where records do not tell it.
    """

    def __init__(self, columns: OutboxColumns | None = None, prefix: str = "outbox.event.") -> None:
        self._names = columns or OutboxColumns()
        self._prefix = prefix

    def tells(self, headers: Headers, value: Any) -> bool:
        """Whether a record is one of the router's: its operation is in a header or beside the payload."""
        names = self._names
        beside = isinstance(value, Mapping) and {"payload", names.op} <= set(value)
        return beside or any(name == names.op for name, _ in headers)

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Decoded:
        """See `Decoder`."""
        table = topic.removeprefix(self._prefix)
        try:
            payload, _ = unwrap(value, table, _NO_TYPES) if value is not None else (None, ())
            row = {name: text.decode() for name, text in headers if text is not None}
            if isinstance(payload, dict) and {"payload", self._names.op} <= set(payload):
                row |= payload
                payload = row.pop("payload")
            return Changes((change_log.change(self._log_row(row, payload, key, table)),))
        except UNREADABLE as error:
            why = f"{topic}: not a row of the change log: {explain(error, value or b'')}"
            raise DecodeFailed(why, _instead(table, key)) from error

    def _log_row(self, row: Mapping[str, Any], payload: Any, key: bytes | None, table: str) -> dict[str, Any]:
        names = self._names
        return {
            "tbl": row.get(names.table) or table,
            "op": row.get(names.op),
            "key": row.get(names.key) or (None if key is None else _columns(key)),
            "version": row.get(names.version),
            "before": row.get(names.before),
            "after": payload or None,
            "at": row.get(names.at),
        }


def _columns(key: bytes) -> Any:
    """The record's key: JSON, or text that holds JSON."""
    found, _ = unwrap(key, "", _NO_TYPES)
    return exact_json(found.encode()) if isinstance(found, str) else found


def _instead(table: str, key: bytes | None) -> tuple[RowChange, ...]:
    try:
        columns = _columns(key) if key else None
    except UNREADABLE:
        columns = None
    return doubtful_row(table, columns) if isinstance(columns, dict) and columns else doubtful_table(table)
