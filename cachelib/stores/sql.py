"""`SqlStore`: SQLite or PostgreSQL as the authoritative store, by SQLAlchemy Core.

Longer than 300 lines because it is the face of the whole store; most of it hands on what its parts do.

It draws its rules from PROTOCOL.md, "Versions" and "Proof of freshness". What differs between
the two databases is in `postgresql*.py` and `sqlite*.py`; what differs between blocking and
awaiting is in `drivers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, exc
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from cachelib.errors import ConfigError, LayoutConflict
from cachelib.policy import Duration, duration_ms
from cachelib.stores.base import Loaded, LogBatch, Snapshot, SyncLoader
from cachelib.stores.changelog import SqlChangeLog
from cachelib.stores.databases import database
from cachelib.stores.drivers import BlockingDriver, Driver
from cachelib.stores.engines import Engines, parse_url, pools_of
from cachelib.stores.installer import Installed, Installer, TableStatus
from cachelib.stores.loaders import TableLoad
from cachelib.stores.names import columns_of, parse_table
from cachelib.stores.sql_errors import NOT_INSTALLED, hangs, translated
from cachelib.stores.statements import companions
from cachelib.stores.transactions import LoadTransaction, SqlTransaction, join


class SqlStore:
    """The store at a URL: `sqlite:///shop.db` or `postgresql://user@host/shop`.

    Safe across threads and after a fork. It implements `base.Store` and `base.ChangeLog`.

    Args:
        load_pool_size: connections for misses; they are apart from the writers' (I6), and bound
            how many loads run at once. `pool_size`: connections for transactions; as many
            again may be opened in a rush. `pool_wait`: how long to wait for one.
        tx_keys_max: a transaction that changes more rows is told as "everything" (`changes()`
            is None).
        retention, retention_max: how long the change log is kept: at least so long, longer for
            a consumer that has not read it, and never longer than `retention_max`.
        connect_timeout: of a connection; on SQLite, how long to wait for the write lock.
        answer_timeout: PostgreSQL: how long the server may be silent while it is asked anything; then the connection
            is closed (`StoreError`, of a commit `CommitUnknown`). Loads end a little earlier, on the server, unless
            that has a `statement_timeout` of its own. Not for connections that are given to `transaction`.
        lock_timeout: how long `install` asks for a table's lock at a time.
        schema: PostgreSQL: where the change log lives; default: where it is found on the
            search_path, and made in its first schema.

    Raises:
        ConfigError: a wrong URL or setting. MissingExtra: the driver is not installed.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        load_pool_size: int = 8,
        pool_size: int = 10,
        pool_wait: Duration = "5s",
        tx_keys_max: int = 10_000,
        retention: Duration = "1d",
        retention_max: Duration = "7d",
        connect_timeout: Duration = "5s",
        answer_timeout: Duration = "30s",
        lock_timeout: Duration = "1s",
        schema: str | None = None,
        driver: Driver | None = None,
    ) -> None:
        if load_pool_size < 1 or pool_size < 1 or tx_keys_max < 1:
            raise ConfigError("load_pool_size, pool_size and tx_keys_max must be 1 or more")
        retention_ms = duration_ms("retention", retention)
        retention_ms_max = duration_ms("retention_max", retention_max, least_ms=retention_ms)
        driver = driver or BlockingDriver()
        parsed = parse_url(url, driver)
        parts = database(
            parsed,
            driver,
            schema=schema,
            connect_timeout_s=duration_ms("connect_timeout", connect_timeout, least_ms=1) / 1000,
            lock_timeout_s=duration_ms("lock_timeout", lock_timeout, least_ms=1) / 1000,
            answer_s=duration_ms("answer_timeout", answer_timeout, least_ms=1) / 1000,
        )
        pools = pools_of(pool_size, load_pool_size, duration_ms("pool_wait", pool_wait) / 1000)
        self._tx_keys_max = tx_keys_max
        self._dialect = parts.dialect
        self._engines = Engines(parsed, driver, parts.dialect, pools)
        self._log = parts.log(self._home, self._highest_committed)
        self._changelog = SqlChangeLog(
            self._engines, self._log, self._home, retention_ms * 1000, retention_ms_max * 1000
        )
        self._installer = Installer(self._engines, parts.dialect, parts.maker)
        self._found_home: str | None = None

    # --- installing --------------------------------------------------------------------------

    def install(
        self,
        table: str,
        key: str | Sequence[str] = "id",
        watch: str | Sequence[str] = (),
        version: str = "row_version",
    ) -> Installed:
        """Give a table versions and a change log: a column, triggers, and the log's own tables.

        Safe to run again, also with another `watch` list, and on a table in use: no row is
        rewritten, and the lock is asked for with a time limit. `key`: columns of its primary
        key or of a unique index. `watch`: further columns whose old and new values the log tells,
        for keys of many rows. Rows that are there have version 1.
        """
        return self._installer.install(table, columns_of(key), columns_of(watch), version)

    def uninstall(self, table: str) -> Installed:
        """Take column and triggers off again. What the log has stays until it is purged."""
        return self._installer.uninstall(table)

    def status(self, table: str) -> TableStatus:
        """How the table and the log stand."""
        status = self._installer.status(table)
        if not status.installed:
            return status
        with self._engines.connect("side", "reading the change log") as conn:
            oldest = self._log.oldest(conn, 1)
        return replace(status, log_oldest_us=oldest[0][1] if oldest else None)

    # --- reading and writing -----------------------------------------------------------------

    def load(self, loader: SyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """Run `loader(tx, keys)` in a read-only transaction that begins now, on a pool of its own (I6).

        `timeout_s` bounds each of its statements, and so does `answer_timeout`. Raises `StoreError`; what the loader
        itself raises comes through.
        """
        with translated("loading"), self._engines.get("loads").connect() as conn:
            as_of_us = self._begin_load(conn, timeout_s)
            try:
                return Loaded(loader(LoadTransaction(conn), keys), as_of_us)
            finally:
                self._dialect.end_load(conn)

    def _begin_load(self, conn: Connection, timeout_s: float | None) -> int:
        """A pooled connection may have died in its sleep: that is no reason to fail, once."""
        try:
            return self._dialect.begin_load(conn, timeout_s)
        except exc.DBAPIError as error:
            if not error.connection_invalidated or hangs(error):
                raise
            conn.rollback()
            return self._dialect.begin_load(conn, timeout_s)

    def table_loader(self, table: str, key_columns: str | Sequence[str], version_column: str | None) -> TableLoad:
        """A loader of a table's rows: `(tx, keys) -> {key: Row}`, values as dicts of columns."""
        return TableLoad(
            parse_table(table), columns_of(key_columns), version_column, self._dialect.columns, self._dialect.select
        )

    @contextmanager
    def transaction(self, connection: Connection | Session | None = None) -> Iterator[SqlTransaction]:
        """Begin a transaction, or go on with the one of a SQLAlchemy connection or ORM session.

        Commits at the end of the block, unless it was ended in it; rolls back where the block
        raises. Transactions joined are committed and rolled back through what was given.
        """
        if connection is not None:
            join(connection, self._dialect.autocommits)
            with self._ended(SqlTransaction(connection, self._log, self._tx_keys_max)) as tx:
                yield tx
            return
        with translated("beginning a transaction"):
            own = self._engines.get("main").connect()
        with own:
            with translated("beginning a transaction"):
                own.begin()
            with self._ended(SqlTransaction(own, self._log, self._tx_keys_max)) as tx:
                yield tx

    @contextmanager
    def _ended(self, tx: SqlTransaction) -> Iterator[SqlTransaction]:
        try:
            yield tx
        except BaseException:
            tx.rollback()
            raise
        if not tx.finished:
            tx.commit()

    # --- who and when ------------------------------------------------------------------------

    def identity(self) -> str:
        """Who the store is: another one after a restore or a failover."""
        with self._engines.connect("side", "asking who the store is") as conn:
            system = self._dialect.system(conn)
        if system is not None:
            return system
        home = self._installer.create_log()
        with self._engines.connect("side", "asking who the store is") as conn:
            return f"id-{conn.execute(companions(home).read_meta, {'name': 'store'}).scalar_one()}"

    def highest_version(self) -> int:
        """The last version drawn. Lower than one that was seen: the store went back."""
        home = self._home()
        with self._engines.connect("side", "reading the last version") as conn:
            return self._dialect.highest_version(conn, home)

    def now_us(self) -> int:
        """The store's clock, microseconds since the epoch."""
        with self._engines.connect("side", "reading the clock") as conn:
            return self._dialect.now_us(conn)

    def snapshot(self) -> Snapshot | None:
        """Which transactions can be read by everybody now; None where the store does not tell (SQLite)."""
        with self._engines.connect("side", "asking what is visible") as conn:
            return self._dialect.snapshot(conn)

    def _highest_committed(self) -> int:
        with self._engines.connect("side", "reading the last version") as conn:
            return self._dialect.highest_version(conn, "")

    def _home(self) -> str:
        """The quoted prefix of the log's tables, found once."""
        if self._found_home is None:
            with self._engines.connect("side", "looking for the change log") as conn:
                self._found_home = self._dialect.find_home(conn)
            if self._found_home is None:
                raise ConfigError(NOT_INSTALLED)
        return self._found_home

    # --- the layout --------------------------------------------------------------------------

    def read_layout(self) -> bytes | None:
        """See `base.Store.read_layout`."""
        if self._found_home is None:
            with self._engines.connect("side", "reading the layout") as conn:
                self._found_home = self._dialect.find_home(conn)
        if self._found_home is None:
            return None
        with self._engines.connect("side", "reading the layout") as conn:
            found = conn.execute(companions(self._found_home).read_layout).scalar()
        return None if found is None else bytes(found)

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """See `base.Store.write_layout`."""
        sql = companions(self._installer.create_log())
        with self._engines.writing("writing the layout") as conn:
            if expected is None:
                written = conn.execute(sql.first_layout, {"document": document})
            else:
                written = conn.execute(sql.next_layout, {"document": document, "expected": expected})
            if written.rowcount != 1:
                raise LayoutConflict("the layout was changed by somebody else: read it and try again")

    # --- the change log ----------------------------------------------------------------------

    def poll_changes(self, after: str, limit: int) -> LogBatch:
        """See `base.ChangeLog.poll_changes`."""
        return self._changelog.poll(after, limit)

    def wait_for_changes(self, after: str, timeout_s: float) -> None:
        """See `base.ChangeLog.wait_for_changes`."""
        self._changelog.wait(after, timeout_s)

    def log_start(self) -> str:
        """See `base.ChangeLog.log_start`."""
        return self._changelog.start()

    def log_at(self, time_us: int) -> str:
        """See `base.ChangeLog.log_at`."""
        return self._changelog.at(time_us)

    def log_end(self) -> str:
        """See `base.ChangeLog.log_end`."""
        return self._changelog.end()

    def save_consumer(self, consumer: str, position: str) -> None:
        """See `base.ChangeLog.save_consumer`."""
        self._changelog.save_consumer(consumer, position)

    def load_consumer(self, consumer: str) -> str | None:
        """See `base.ChangeLog.load_consumer`."""
        return self._changelog.load_consumer(consumer)

    def drop_consumer(self, consumer: str) -> None:
        """See `base.ChangeLog.drop_consumer`."""
        self._changelog.drop_consumer(consumer)

    def purge(self) -> int:
        """See `base.ChangeLog.purge`; how many entries went."""
        return self._changelog.purge(self.now_us())

    # --- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Give back every connection that is not in use."""
        self._engines.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
