"""The batch loader of a table's rows: value and version by one statement (I6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, TextClause, exc, text

from cachelib.errors import ConfigError
from cachelib.model import Row
from cachelib.stores.names import Column, TableName, for_text, nearest, pick, quote
from cachelib.stores.sql_errors import translated
from cachelib.stores.transactions import LoadTransaction

CHUNK_MAX = 500

Keys: TypeAlias = Sequence[tuple[Any, ...]]
Binder: TypeAlias = Callable[[Keys], Mapping[str, Any]]
"""From keys (a tuple of values each) to the statement's parameters."""
Select: TypeAlias = Callable[[TableName, Sequence[Column], Sequence[str]], tuple[TextClause, Binder]]
"""From a table, its key columns and expressions (of `t`) to a statement that gives, for every
row of the keys asked, the number of its key from 0 on and these expressions."""


class TableLoad:
    """`(tx, keys) -> {key: Row}` for one table. Values are dicts of all columns but the version.

    Rows are matched to keys by the place of the key in the question, so the answer has the very
    keys that were asked, whatever type the driver gives them back in. Columns are named one by
    one: a statement that the server has prepared must not change its result when the table
    gains a column. They are looked up when first needed, and again when they turn out wrong.
    """

    def __init__(
        self,
        table: TableName,
        key: Sequence[str],
        version: str | None,
        columns: Callable[[Connection, TableName], dict[str, Column]],
        select: Select,
    ) -> None:
        self._table = table
        self._key = tuple(key)
        self._version = version
        self._columns = columns
        self._select = select
        self._ready: tuple[TextClause, Binder, tuple[str, ...]] | None = None

    def __call__(self, tx: LoadTransaction, keys: Sequence[Any]) -> Mapping[Any, Row]:
        """Load these keys, at most 500 with one statement. Raises `StoreError`, in any transaction."""
        found: dict[Any, Row] = {}
        with translated(f"loading rows of {self._table.given}"):
            for at in range(0, len(keys), CHUNK_MAX):
                found |= self._chunk(tx.connection, keys[at : at + CHUNK_MAX])
        return found

    def _chunk(self, conn: Connection, keys: Sequence[Any]) -> dict[Any, Row]:
        sql, bind, names = self._ready or self._look_up(conn)
        rows: dict[Any, Row] = {}
        try:
            found = conn.execute(sql, bind([self._parts(key) for key in keys])).all()
        except exc.DBAPIError:
            self._ready = None  # perhaps a column is gone: look again the next time
            raise
        for ordinal, version, *values in found:
            # A row that its own transaction has just inserted may have no version yet.
            rows[keys[ordinal]] = Row(dict(zip(names, values, strict=True)), None if version is None else int(version))
        return rows

    def _look_up(self, conn: Connection) -> tuple[TextClause, Binder, tuple[str, ...]]:
        columns = self._columns(conn, self._table)
        key = pick(columns, self._key, self._table.given)
        if self._version is not None and self._version not in columns:
            raise ConfigError(
                f"table {self._table.given!r} has no version column {self._version!r}: install the table first"
                f" ({nearest(self._version, columns)})"
            )
        names = tuple(name for name in columns if name != self._version)
        version = "null" if self._version is None else "t." + quote(self._version)
        sql, bind = self._select(self._table, key, (version, *(f"t.{quote(name)}" for name in names)))
        self._ready = (sql, bind, names)
        return self._ready

    def _parts(self, key: Any) -> tuple[Any, ...]:
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) != len(self._key):
            raise ConfigError(f"key {key!r} of table {self._table.given!r} has not the columns {', '.join(self._key)}")
        return parts


def postgresql_select(table: TableName, key: Sequence[Column], outputs: Sequence[str]) -> tuple[TextClause, Binder]:
    """Keys travel as one array a column, so the statement is the same for any number of them.

    Each key is looked up by itself (lateral, limit 1: it is unique): the planner, which thinks a
    page read from memory dear, would rather read a table of some ten thousand rows as a whole.
    """
    arrays = ", ".join(f"cast(:k{at} as {for_text(column.type)}[])" for at, column in enumerate(key))
    names = ", ".join(f"k{at}" for at in range(len(key)))
    same = " and ".join(f"t.{quote(column.name)} = k.k{at}" for at, column in enumerate(key))
    sql = text(
        f"select k.place - 1, found.* from unnest({arrays}) with ordinality k({names}, place) cross join lateral"
        f" (select {for_text(', '.join(outputs))} from {for_text(table.sql)} t where {for_text(same)} limit 1) found"
    )

    def bind(keys: Keys) -> Mapping[str, Any]:
        return {f"k{at}": list(column) for at, column in enumerate(zip(*keys, strict=True))}

    return sql, bind


def sqlite_select(table: TableName, key: Sequence[Column], outputs: Sequence[str]) -> tuple[TextClause, Binder]:
    """Keys travel as one JSON array, so the statement is the same for any number of them."""
    same = " and ".join(f"t.{quote(column.name)} = json_extract(k.value, '$[{at}]')" for at, column in enumerate(key))
    sql = text(
        f"select k.key, {for_text(', '.join(outputs))} from json_each(:keys) k"
        f" cross join {for_text(quote(table.name))} t on {for_text(same)}"
    )

    def bind(keys: Keys) -> Mapping[str, Any]:
        try:
            return {"keys": json.dumps(keys)}
        except TypeError as error:
            raise ConfigError(f"keys of table {table.given!r} must be numbers or text: {error}") from error

    return sql, bind
