"""SQLite as a store: connections, transactions, who it is, and what its schema says.

The driver's own handling of transactions is switched off (isolation_level None): it would
begin one before the first write only, so that a read before it would see another state, and
it begins none before a savepoint. A transaction begins where SQLAlchemy says so: one that may
write takes the write lock at once (IMMEDIATE), because one that began by reading could not
wait for it any more, it would fail.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, event, text
from sqlalchemy.engine import URL

from cachelib.errors import ConfigError
from cachelib.stores.drivers import Driver
from cachelib.stores.engines import Role
from cachelib.stores.loaders import Binder, sqlite_select
from cachelib.stores.names import Column, TableName, TableShape, literal, nearest, pick
from cachelib.stores.statements import run

_TABLES = text("select name from sqlite_master where type = 'table' and name not like 'sqlite~_%' escape '~'")
_ROWIDS = ("rowid", "_rowid_", "oid")


class SQLite:
    """See `databases.Dialect`."""

    def __init__(self, driver: Driver, busy_timeout_s: float = 5.0) -> None:
        self._driver = driver
        self._busy_timeout_s = busy_timeout_s

    def check_url(self, url: URL) -> None:
        """A database in memory has one connection; loads need others than writers (I6)."""
        if url.database in (None, "", ":memory:") or "mode=memory" in str(url):
            raise ConfigError("SQLite in memory has no second connection for loads: give a file, sqlite:///shop.db")

    def engine_options(self, role: Role) -> dict[str, Any]:
        """See `Dialect.engine_options`."""
        return {"connect_args": {"timeout": self._busy_timeout_s}}

    def prepare_engine(self, engine: Engine, role: Role) -> None:
        """Readers and the one writer do not stop each other (WAL); deletes by REPLACE fire triggers."""

        @event.listens_for(engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("pragma journal_mode = wal")
            cursor.execute("pragma recursive_triggers = on")
            cursor.execute(f"pragma query_only = {'off' if role == 'main' else 'on'}")
            cursor.close()

        @event.listens_for(engine, "begin")
        def begin(conn: Connection) -> None:
            run(conn, "begin immediate" if role == "main" else "begin")

    def begin_load(self, conn: Connection, timeout_s: float | None) -> int:
        """The clock first: SQLite takes its snapshot with the first read."""
        as_of_us = time.time_ns() // 1000
        conn.begin()
        if timeout_s is not None:
            deadline = time.monotonic() + timeout_s
            self._driver.watch_progress(_driver_connection(conn), lambda: time.monotonic() > deadline)
        return as_of_us

    def end_load(self, conn: Connection) -> None:
        """See `Dialect.end_load`."""
        self._driver.watch_progress(_driver_connection(conn), None)
        conn.rollback()

    def autocommits(self, conn: Connection) -> bool:
        """Neither the driver begins a transaction (isolation_level None), nor did the application."""
        driver_connection = _driver_connection(conn)
        return driver_connection.isolation_level is None and not driver_connection.in_transaction

    def now_us(self, conn: Connection) -> int:
        """The file is on this machine, and so is its clock."""
        return time.time_ns() // 1000

    def system(self, conn: Connection) -> str | None:
        """SQLite has no identity of its own."""
        return None

    def snapshot(self, conn: Connection) -> None:
        """See `Dialect.snapshot`: there are no transaction ids."""

    def select(self, table: TableName, key: Sequence[Column], outputs: Sequence[str]) -> tuple[TextClause, Binder]:
        """See `Dialect.select`."""
        return sqlite_select(table, key, outputs)

    def find_home(self, conn: Connection) -> str | None:
        """See `Dialect.find_home`."""
        found = conn.execute(text("select 1 from sqlite_master where name = 'leasecache_changes'")).first()
        return None if found is None else ""

    def highest_version(self, conn: Connection, home: str) -> int:
        """See `Dialect.highest_version`."""
        return int(
            conn.execute(
                text("select coalesce(max(seq), 0) from sqlite_sequence where name = 'leasecache_changes'")
            ).scalar_one()
        )

    def columns(self, conn: Connection, table: TableName) -> dict[str, Column]:
        """See `Dialect.columns`."""
        about = f'select name, type, "notnull", pk from pragma_table_info({literal(table.name)})'
        rows: list[Any] = list(run(conn, about))
        if (table.schema is not None and table.schema != "main") or not rows:
            there = [name for (name,) in conn.execute(_TABLES) if not name.startswith("leasecache_")]
            raise ConfigError(f"there is no table {table.given!r}: {nearest(table.name, there)}")
        return {name: Column(name, type_, not (notnull or pk)) for name, type_, notnull, pk in rows}

    def shape(
        self, conn: Connection, table: TableName, key: Sequence[str], watch: Sequence[str], version: str
    ) -> TableShape:
        """See `Dialect.shape`."""
        columns = self.columns(conn, table)
        chosen = pick(columns, key, table.given)
        unique = self._unique(conn, table)
        if set(key) not in [set(names) for names in unique]:
            known = "; ".join(", ".join(names) for names in unique) or "none"
            raise ConfigError(
                f"table {table.given!r} has no primary key or unique index on {', '.join(key)} (it has: {known})"
            )
        return TableShape(
            table, chosen, pick(columns, watch, table.given), version, tuple(unique), self._rowid(conn, table, columns)
        )

    def _unique(self, conn: Connection, table: TableName) -> list[tuple[str, ...]]:
        """Sets of columns that REPLACE keeps unique. An index on expressions, or on some rows only
        (partial), is not among them: the README says so.
        """
        name = literal(table.name)
        found = [tuple(c for (c,) in run(conn, f"select name from pragma_table_info({name}) where pk > 0 order by pk"))]
        indexes = run(conn, f'select name from pragma_index_list({name}) where "unique" and not partial').all()
        for (index,) in indexes:
            columns = [c for (c,) in run(conn, f"select name from pragma_index_info({literal(index)})")]
            if all(column is not None for column in columns):
                found.append(tuple(columns))
        return list(dict.fromkeys(columns for columns in found if columns))

    def _rowid(self, conn: Connection, table: TableName, columns: dict[str, Column]) -> str | None:
        without = run(conn, f"select wr from pragma_table_list({literal(table.name)}) where schema = 'main'").scalar()
        if without:
            return None
        taken = {name.lower() for name in columns}
        return next((name for name in _ROWIDS if name not in taken), None)


def _driver_connection(conn: Connection) -> Any:
    return conn.connection.driver_connection
