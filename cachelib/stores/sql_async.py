"""`AsyncSqlStore`: `SqlStore` for asyncio. Nothing is decided here.

SQLAlchemy's own async face runs its blocking code in a greenlet, in which the driver's calls
switch back to the event loop and await. We do the same one floor up: the store's code runs in
the greenlet (`greenlet_spawn`), over async engines, and only what blocks below SQLAlchemy, or
calls the application, is another (`AwaitingDriver`, loaders). So no rule is written twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import Executable
from sqlalchemy.util import await_only, greenlet_spawn

from cachelib.model import Row, RowChange
from cachelib.stores.base import AsyncLoader, Loaded, LogBatch, Snapshot
from cachelib.stores.installer import Installed, TableStatus
from cachelib.stores.loaders import TableLoad
from cachelib.stores.sql import SqlStore
from cachelib.stores.transactions import LoadTransaction, SqlTransaction

_T = TypeVar("_T")


class AwaitingDriver:
    """aiosqlite and psycopg's async connections; to be called in a greenlet only."""

    drivername: Mapping[str, str] = MappingProxyType(
        {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg_async"}
    )

    def __init__(self) -> None:
        self.engines: dict[Engine, AsyncEngine] = {}
        """The async face of each engine."""

    def engine(self, url: URL, **options: Any) -> Engine:
        """See `Driver.engine`."""
        made = create_async_engine(url, **options)
        self.engines[made.sync_engine] = made
        return made.sync_engine

    def sleep(self, seconds: float) -> None:
        """See `Driver.sleep`."""
        await_only(asyncio.sleep(seconds))

    def wait_notified(self, connection: Any, timeout_s: float) -> bool:
        """See `Driver.wait_notified`."""
        from cachelib.stores.postgresql_connection import listening

        async def wait() -> bool:
            with listening(connection):
                return bool([None async for _ in connection.notifies(timeout=timeout_s, stop_after=1)])
            return False

        return await_only(wait())

    def watch_progress(self, connection: Any, overdue: Callable[[], bool] | None) -> None:
        """See `Driver.watch_progress`."""
        await_only(connection.set_progress_handler(overdue, 1000))


class AsyncLoadTransaction:
    """What an async loader gets; see `LoadTransaction`."""

    def __init__(self, inner: LoadTransaction) -> None:
        self.inner = inner

    async def execute(self, sql: str | Executable, params: Mapping[str, Any] | None = None) -> Any:
        """See `LoadTransaction.execute`."""
        return await greenlet_spawn(self.inner.execute, sql, params)


class AsyncTableLoad:
    """`TableLoad` with `await`."""

    def __init__(self, inner: TableLoad) -> None:
        self._inner = inner

    async def __call__(self, tx: AsyncLoadTransaction, keys: Sequence[Any]) -> Mapping[Any, Row]:
        """See `TableLoad.__call__`."""
        return await greenlet_spawn(self._inner, tx.inner, keys)


class AsyncSqlTransaction:
    """`SqlTransaction` with `await`."""

    def __init__(self, inner: SqlTransaction, driver: AwaitingDriver, given: AsyncConnection | None) -> None:
        self.inner = inner
        self._driver = driver
        self._given = given

    @property
    def finished(self) -> bool:
        """Committed or rolled back."""
        return self.inner.finished

    @property
    def commit_sent(self) -> bool:
        """See `SqlTransaction.commit_sent`."""
        return self.inner.commit_sent

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection of this transaction."""
        if self._given is None:
            own = self.inner.connection
            self._given = AsyncConnection(self._driver.engines[own.engine], own)
        return self._given

    async def execute(self, sql: str | Executable, params: Mapping[str, Any] | None = None) -> Any:
        """See `SqlTransaction.execute`."""
        return await greenlet_spawn(self.inner.execute, sql, params)

    async def changes(self) -> Sequence[RowChange] | None:
        """See `SqlTransaction.changes`."""
        return await greenlet_spawn(self.inner.changes)

    async def touched(self) -> frozenset[str]:
        """See `SqlTransaction.touched`."""
        return await greenlet_spawn(self.inner.touched)

    async def commit(self) -> None:
        """See `SqlTransaction.commit`."""
        await greenlet_spawn(self.inner.commit)

    async def rollback(self) -> None:
        """See `SqlTransaction.rollback`."""
        await greenlet_spawn(self.inner.rollback)


class _Joined:
    """`SqlStore.transaction` as an async context manager."""

    def __init__(
        self,
        inner: Callable[[Connection | Session | None], AbstractContextManager[SqlTransaction]],
        driver: AwaitingDriver,
        given: AsyncConnection | AsyncSession | None,
    ) -> None:
        self._driver = driver
        self._given = given
        through: Connection | Session | None = None
        if isinstance(given, AsyncSession):
            through = given.sync_session
        elif given is not None:
            through = given.sync_connection
        self._inner = inner(through)

    async def __aenter__(self) -> AsyncSqlTransaction:
        tx = await greenlet_spawn(self._inner.__enter__)
        given = self._given
        if isinstance(given, AsyncSession):
            given = await given.connection()
        return AsyncSqlTransaction(tx, self._driver, given)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await greenlet_spawn(self._inner.__exit__, kind, error, trace)


class AsyncSqlStore:
    """`SqlStore` with `await`: the same settings, the same words. One event loop per store."""

    def __init__(self, url: str | URL, **settings: Any) -> None:
        self._driver = AwaitingDriver()
        self._store = SqlStore(url, driver=self._driver, **settings)

    async def _run(self, call: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        return await greenlet_spawn(call, *arguments, **named)

    async def install(
        self,
        table: str,
        key: str | Sequence[str] = "id",
        watch: str | Sequence[str] = (),
        version: str = "row_version",
    ) -> Installed:
        """See `SqlStore.install`."""
        return await self._run(self._store.install, table, key, watch, version)

    async def uninstall(self, table: str) -> Installed:
        """See `SqlStore.uninstall`."""
        return await self._run(self._store.uninstall, table)

    async def status(self, table: str) -> TableStatus:
        """See `SqlStore.status`."""
        return await self._run(self._store.status, table)

    async def load(self, loader: AsyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `SqlStore.load`; the loader is awaited."""

        def awaited(tx: LoadTransaction, keys: Sequence[Any]) -> Mapping[Any, Row | Any]:
            found: Awaitable[Mapping[Any, Row | Any]] = loader(AsyncLoadTransaction(tx), keys)
            return await_only(found)

        return await self._run(self._store.load, awaited, keys, timeout_s=timeout_s)

    def table_loader(self, table: str, key_columns: str | Sequence[str], version_column: str | None) -> AsyncTableLoad:
        """See `SqlStore.table_loader`."""
        return AsyncTableLoad(self._store.table_loader(table, key_columns, version_column))

    def transaction(self, connection: AsyncConnection | AsyncSession | None = None) -> _Joined:
        """See `SqlStore.transaction`."""
        return _Joined(self._store.transaction, self._driver, connection)

    async def identity(self) -> str:
        """See `SqlStore.identity`."""
        return await self._run(self._store.identity)

    async def highest_version(self) -> int:
        """See `SqlStore.highest_version`."""
        return await self._run(self._store.highest_version)

    async def now_us(self) -> int:
        """See `SqlStore.now_us`."""
        return await self._run(self._store.now_us)

    async def snapshot(self) -> Snapshot | None:
        """See `SqlStore.snapshot`."""
        return await self._run(self._store.snapshot)

    async def read_layout(self) -> bytes | None:
        """See `SqlStore.read_layout`."""
        return await self._run(self._store.read_layout)

    async def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """See `SqlStore.write_layout`."""
        await self._run(self._store.write_layout, document, expected)

    async def poll_changes(self, after: str, limit: int) -> LogBatch:
        """See `SqlStore.poll_changes`."""
        return await self._run(self._store.poll_changes, after, limit)

    async def wait_for_changes(self, after: str, timeout_s: float) -> None:
        """See `SqlStore.wait_for_changes`."""
        await self._run(self._store.wait_for_changes, after, timeout_s)

    async def log_start(self) -> str:
        """See `SqlStore.log_start`."""
        return await self._run(self._store.log_start)

    async def log_at(self, time_us: int) -> str:
        """See `SqlStore.log_at`."""
        return await self._run(self._store.log_at, time_us)

    async def log_end(self) -> str:
        """See `SqlStore.log_end`."""
        return await self._run(self._store.log_end)

    async def save_consumer(self, consumer: str, position: str) -> None:
        """See `SqlStore.save_consumer`."""
        await self._run(self._store.save_consumer, consumer, position)

    async def load_consumer(self, consumer: str) -> str | None:
        """See `SqlStore.load_consumer`."""
        return await self._run(self._store.load_consumer, consumer)

    async def drop_consumer(self, consumer: str) -> None:
        """See `SqlStore.drop_consumer`."""
        await self._run(self._store.drop_consumer, consumer)

    async def purge(self) -> int:
        """See `SqlStore.purge`."""
        return await self._run(self._store.purge)

    async def close(self) -> None:
        """See `SqlStore.close`."""
        await self._run(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
