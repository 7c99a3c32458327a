"""Rows of our own change log (`cachelib.stores`), captured by Debezium or sent through its outbox event router.

The log tells more than the tables themselves: versions also of deletes, and the watched columns before and after
whatever the replica identity. The connector drops its `xid8` column, so a router's record does not tell the
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cachelib.model import ChangeOp, RowChange
from invalidator.formats.base import Changes, Decoded, Ignored, version_of
from invalidator.formats.connect_json import exact_json

_NAME = "leasecache_changes"
_OPS: Mapping[str, ChangeOp] = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "truncate": "truncate",
}


def is_log(table: str) -> bool:
    """Whether a table is the change log."""
    return table == _NAME


def captured(op: str, row: Mapping[str, Any] | None, tx: int | None, position: str) -> Decoded:
    """A change of the log itself. Raises `ValueError`."""
    if op == "delete":
        return Ignored("the change log was purged")
    if row is None:
        raise ValueError("the change log's row is missing")
    # An update amends what the same transaction wrote: both tell of the same row, the second is right.
    return Changes((change(row, tx),), position)


def change(row: Mapping[str, Any], tx: int | None = None) -> RowChange:
    """What a row of the log tells: tbl, op, key, version, before, after, at. Raises `ValueError`."""
    table, op = row.get("tbl"), _OPS.get(str(row.get("op")))
    if not isinstance(table, str) or not table or op is None:
        raise ValueError(f"the change log's row tells of table {table!r} and operation {row.get('op')!r}")
    if op == "truncate":
        return RowChange(table, op, version=version_of(row.get("version")), tx=tx, at_us=_microseconds(row.get("at")))
    key = _columns(row.get("key"), "key")
    if not key:
        raise ValueError("the change log's row has no key")
    return RowChange(
        table=table,
        op=op,
        key=key,
        version=version_of(row.get("version")),
        before=key | _columns(row.get("before"), "before") if op != "create" else None,
        after=key | _columns(row.get("after"), "after") if op != "delete" else None,
        tx=tx,
        at_us=_microseconds(row.get("at")),
    )


def _columns(given: Any, name: str) -> dict[str, Any]:
    if given is None:
        return {}
    found = exact_json(given.encode()) if isinstance(given, str) else given
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} of the change log's row is not an object of columns")
    return dict(found)


def _microseconds(at: Any) -> int:
    if isinstance(at, str) and at:
        at = datetime.fromisoformat(at)
    return round(at.timestamp() * 1_000_000) if isinstance(at, datetime) and at.tzinfo else 0
