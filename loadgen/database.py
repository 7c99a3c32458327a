"""Plain SQL on the store itself, past the library: SQLite's file, or PostgreSQL.

Statements name their values as `:name`; one connection belongs to one thread.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from cachelib.errors import ConfigError, MissingExtra

BUSY_TIMEOUT_S = 10.0
Values: TypeAlias = Mapping[str, Any]
NONE: Values = MappingProxyType({})


class Database(Protocol):
    """A connection. Each statement is a transaction, but for those within `transaction`."""

    failures: tuple[type[Exception], ...]
    """What it raises where a statement failed."""
    locked: str
    """Stands behind a select whose rows must not change before the transaction ends."""

    def execute(self, statement: str, values: Values = NONE) -> Any:
        """A cursor: `fetchone`, `fetchall`, `rowcount`."""

    def insert(self, statement: str, rows: Iterable[Values]) -> None:
        """Many rows by one statement."""

    def transaction(self) -> Any:
        """A block that is committed at its end, and rolled back where something is raised in it."""

    def close(self) -> None:
        """Close it."""


def connect(store_url: str) -> Database:
    """Raises `ConfigError` for any other store."""
    if store_url.startswith("postgresql"):
        return PostgreSQL(store_url)
    return SQLite(store_url)


class SQLite:
    """See `Database`. Writers are one after the other."""

    failures: tuple[type[Exception], ...] = (sqlite3.Error,)
    locked = ""

    def __init__(self, store_url: str) -> None:
        scheme, _, path = store_url.partition(":///")
        if not scheme.startswith("sqlite") or not path:
            raise ConfigError(f"the store is {store_url!r}: give sqlite:///file.db, or postgresql://user@host/db")
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)

    def execute(self, statement: str, values: Values = NONE) -> Any:
        """See `Database.execute`."""
        return self._connection.execute(statement, dict(values))

    def insert(self, statement: str, rows: Iterable[Values]) -> None:
        """See `Database.insert`."""
        self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Database.transaction`."""
        self._connection.execute("begin immediate")
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            self._connection.execute("rollback")
            raise

    def close(self) -> None:
        """See `Database.close`."""
        self._connection.close()


class PostgreSQL:
    """See `Database`."""

    locked = " for update"

    def __init__(self, store_url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("a store on PostgreSQL needs: pip install 'leasecache[postgresql]'") from error
        self.failures: tuple[type[Exception], ...] = (psycopg.Error,)
        url = re.sub(r"^postgresql\+\w+:", "postgresql:", store_url)
        self._connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)

    def execute(self, statement: str, values: Values = NONE) -> Any:
        """See `Database.execute`."""
        return self._connection.execute(_marked(statement), values)

    def insert(self, statement: str, rows: Iterable[Values]) -> None:
        """See `Database.insert`."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_marked(statement), rows)

    def transaction(self) -> Any:
        """See `Database.transaction`."""
        return self._connection.transaction()

    def close(self) -> None:
        """See `Database.close`."""
        self._connection.close()


def _marked(statement: str) -> str:
    return re.sub(r":(\w+)", r"%(\1)s", statement)
