"""Rows of the change log as the two databases give them, into `RowChange`; and positions.

A position is a string that sorts as the log does: the zero-padded decimal numbers that order
it (transaction and version on PostgreSQL, the id on SQLite), joined by a dot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from cachelib.errors import ConfigError, StoreError
from cachelib.model import RowChange

_DIGITS = 20
_DECODE = json.JSONDecoder(parse_float=Decimal).decode
"""Decimal, not float: a key made from 12.50 must be the one made from the loaded row."""


def position(*numbers: int) -> str:
    """The position of these numbers."""
    return ".".join(str(number).zfill(_DIGITS) for number in numbers)


def numbers(position: str, count: int) -> tuple[int, ...]:
    """The numbers of a position; zeros for the empty one, which is before everything."""
    if position == "":
        return (0,) * count
    parts = position.split(".")
    if len(parts) != count or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{position!r} is not a position in this store's change log; use one that a poll gave")
    found = tuple(int(part) for part in parts)
    if max(found) >= 2**63:
        raise ConfigError(f"{position!r} is not a position in this store's change log: its numbers are too large")
    return found


def change(record: Sequence[Any]) -> RowChange:
    """One row of the log: tbl, op, key, version, before, after, tx, at_us.

    The log keeps the key once and the watched columns by themselves; a `RowChange` has the
    key's columns in `before` and `after` too.
    """
    table, op, key_text, version, before, after, tx, at_us = record
    key = _object(key_text, table)
    old = key | _object(before, table) if before is not None else key
    new = key | _object(after, table) if after is not None else key
    return RowChange(
        table=table,
        op=op,
        key=key,
        version=version,
        before=old if op in ("update", "delete") else None,
        after=new if op in ("create", "update") else None,
        tx=tx,
        at_us=at_us,
    )


def _object(text: str | None, table: str) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = _DECODE(text)
    except ValueError as error:
        raise StoreError(f"the change log has a row of table {table!r} that is not JSON: {text[:80]!r}") from error
    if not isinstance(found, dict):
        raise StoreError(f"the change log has a row of table {table!r} that is not a JSON object: {text[:80]!r}")
    return found
