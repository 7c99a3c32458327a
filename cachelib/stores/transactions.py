"""One transaction of the store, its own or one that the application is in.

Before it commits, the transaction reads what it has changed from the change log: RETURNING
would show neither what an AFTER trigger wrote nor what other triggers, cascades and deferred
constraints have changed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from sqlalchemy import Connection, TextClause, bindparam, exc, text
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import Executable

from cachelib.errors import ConfigError
from cachelib.model import RowChange
from cachelib.stores.sql_errors import commit_may_have_happened, raise_commit_failure, translated


class OwnLog(Protocol):
    """The part of the change log that an open transaction has written itself."""

    def own_changes(self, conn: Connection, at_most: int) -> Sequence[RowChange] | None:
        """Its changes in order; None for more than `at_most`, or a truncate."""

    def own_tables(self, conn: Connection) -> frozenset[str]:
        """The tables among them."""


class SqlTransaction:
    """See `base.StoreTransaction`.

    With an ORM session, statements and the commit go through the session, so that it flushes
    first and its own hooks run.
    """

    def __init__(self, through: Connection | Session, log: OwnLog, tx_keys_max: int) -> None:
        self._through = through
        self._log = log
        self._tx_keys_max = tx_keys_max
        self.finished = False
        """Committed or rolled back."""
        self.commit_sent = False
        """COMMIT was sent, and the answer was neither yes nor no (yet). Stays True where the caller
        was cancelled or interrupted meanwhile: as after `CommitUnknown`, look before repeating.
        """

    @property
    def connection(self) -> Connection:
        """The SQLAlchemy connection of this transaction."""
        return self._through.connection() if isinstance(self._through, Session) else self._through

    def execute(self, sql: str | Executable, params: Mapping[str, Any] | None = None) -> Any:
        """Run SQL text with `:named` parameters, or a SQLAlchemy statement."""
        with translated("running a statement"):
            named = dict(params or {})
            return self._through.execute(as_statement(sql, named), named)

    def changes(self) -> Sequence[RowChange] | None:
        """See `base.StoreTransaction.changes`."""
        with translated("reading what the transaction has changed"):
            self._flush()
            return self._log.own_changes(self.connection, self._tx_keys_max)

    def touched(self) -> frozenset[str]:
        """See `base.StoreTransaction.touched`."""
        with translated("reading what the transaction has changed"):
            self._flush()
            return self._log.own_tables(self.connection)

    def commit(self) -> None:
        """Commit. Raises `CommitUnknown` where the connection broke, else `StoreError` after a rollback."""
        if self.finished:
            raise ConfigError("this transaction has ended already")
        self.commit_sent = True
        try:
            self._through.commit()
        except exc.SQLAlchemyError as error:
            self.rollback()
            self.commit_sent = commit_may_have_happened(error)
            raise_commit_failure(error)
        self.finished, self.commit_sent = True, False

    def rollback(self) -> None:
        """Roll back; without effect after the end."""
        if not self.finished:
            self.finished = True
            try:
                self._through.rollback()
            except exc.DBAPIError:
                # The connection is gone, and the transaction with it. What broke it was raised
                # where it was noticed, or is about to be.
                self._through.invalidate()

    def _flush(self) -> None:
        if isinstance(self._through, Session):
            self._through.flush()


def join(through: Connection | Session, autocommits: Callable[[Connection], bool]) -> None:
    """Begin on it, if it has not. Where each statement is a transaction by itself, there is none to
    join: what they change would be told by nobody.
    """
    with translated("joining a transaction"):
        conn = through.connection() if isinstance(through, Session) else through
        if not conn.in_transaction():
            conn.begin()
        if autocommits(conn):
            raise ConfigError(
                "this connection is in autocommit mode, so there is no transaction to join:"
                " give one with another isolation level"
            )


class LoadTransaction:
    """What a loader gets: a read-only transaction that began with the load (I6)."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def execute(self, sql: str | Executable, params: Mapping[str, Any] | None = None) -> Any:
        """Run SQL text with `:named` parameters, or a SQLAlchemy statement."""
        named = dict(params or {})
        return self.connection.execute(as_statement(sql, named), named)


def as_statement(sql: str | Executable, params: Mapping[str, Any]) -> Executable:
    """Text becomes a statement; a statement is one. A list among the parameters is for `in :name`."""
    if not isinstance(sql, str):
        return sql
    return _parsed(sql, tuple(name for name, value in params.items() if isinstance(value, list | tuple)))


@lru_cache(maxsize=512)
def _parsed(sql: str, lists: tuple[str, ...]) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))
