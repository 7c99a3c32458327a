"""What differs between a store that blocks and one that awaits: few calls, below SQLAlchemy.

The store's code is written once, for SQLAlchemy's blocking `Connection`. The async store runs
it in a greenlet, where the same calls await (see `sql_async.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL


class Driver(Protocol):
    """The calls that block in one world and await in the other."""

    drivername: Mapping[str, str]
    """SQLAlchemy's name of the driver, by the kind of database."""

    def engine(self, url: URL, **options: Any) -> Engine:
        """An engine whose connections may be used where this driver's calls may."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""

    def wait_notified(self, connection: Any, timeout_s: float) -> bool:
        """Wait for a NOTIFY on a psycopg connection. False: none came in time."""

    def watch_progress(self, connection: Any, overdue: Callable[[], bool] | None) -> None:
        """Have SQLite stop what a connection is doing when `overdue()`; None: never."""


class BlockingDriver:
    """sqlite3 and psycopg."""

    drivername: Mapping[str, str] = MappingProxyType({"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"})

    def engine(self, url: URL, **options: Any) -> Engine:
        """See `Driver.engine`."""
        return create_engine(url, **options)

    def sleep(self, seconds: float) -> None:
        """See `Driver.sleep`."""
        time.sleep(seconds)

    def wait_notified(self, connection: Any, timeout_s: float) -> bool:
        """See `Driver.wait_notified`."""
        from cachelib.stores.postgresql_connection import listening

        with listening(connection):
            return any(True for _ in connection.notifies(timeout=timeout_s, stop_after=1))
        return False

    def watch_progress(self, connection: Any, overdue: Callable[[], bool] | None) -> None:
        """See `Driver.watch_progress`."""
        connection.set_progress_handler(overdue, 1000)
