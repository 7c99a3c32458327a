"""The parts of a store for each kind of database, by URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.engine import URL

from cachelib.stores.base import Snapshot
from cachelib.stores.changelog import Log
from cachelib.stores.drivers import Driver
from cachelib.stores.engines import Role
from cachelib.stores.installer import Catalogue, TriggerMaker
from cachelib.stores.loaders import Binder
from cachelib.stores.names import Column, TableName
from cachelib.stores.postgresql import PostgreSQL
from cachelib.stores.postgresql_install import PostgreSQLTriggerMaker
from cachelib.stores.postgresql_log import PostgreSQLLog
from cachelib.stores.sqlite import SQLite
from cachelib.stores.sqlite_install import SQLiteTriggerMaker
from cachelib.stores.sqlite_log import SQLiteLog

_INSTALL_ATTEMPTS_MAX = 30


class Dialect(Catalogue, Protocol):
    """How one kind of database connects, loads, and says who it is. It opens no connection itself."""

    def engine_options(self, role: Role) -> dict[str, Any]:
        """Options of `create_engine`."""

    def prepare_engine(self, engine: Engine, role: Role) -> None:
        """Hook up what each new connection needs."""

    def begin_load(self, conn: Connection, timeout_s: float | None) -> int:
        """Begin a read-only transaction: the store's clock, read before its snapshot (I6)."""

    def end_load(self, conn: Connection) -> None:
        """End it, also after a failure."""

    def autocommits(self, conn: Connection) -> bool:
        """Each statement is committed by itself on this connection, which has begun."""

    def now_us(self, conn: Connection) -> int:
        """The store's clock."""

    def system(self, conn: Connection) -> str | None:
        """Who the database system is; None where it does not tell."""

    def highest_version(self, conn: Connection, home: str) -> int:
        """The last version drawn that this connection can see; 0 for none."""

    def snapshot(self, conn: Connection) -> Snapshot | None:
        """Which transactions can be read now; None where nobody can tell."""

    def select(self, table: TableName, key: Sequence[Column], outputs: Sequence[str]) -> tuple[TextClause, Binder]:
        """See `loaders.Select`."""


@dataclass(frozen=True, slots=True)
class Database:
    """What a store is put together from."""

    dialect: Dialect
    maker: TriggerMaker
    log: Callable[[Callable[[], str], Callable[[], int]], Log]


def database(
    url: URL, driver: Driver, *, schema: str | None, connect_timeout_s: float, lock_timeout_s: float, answer_s: float
) -> Database:
    """The parts for a URL's kind of database. Raises `ConfigError` for one that cannot be a store."""
    if url.get_backend_name() == "sqlite":
        sqlite = SQLite(driver, connect_timeout_s)
        sqlite.check_url(url)
        return Database(sqlite, SQLiteTriggerMaker(), lambda home, committed: SQLiteLog(home, driver, committed))
    return Database(
        PostgreSQL(schema, connect_timeout_s, answer_s),
        PostgreSQLTriggerMaker(driver, schema, lock_timeout_s, _INSTALL_ATTEMPTS_MAX),
        lambda home, _: PostgreSQLLog(home, driver),
    )
