"""The pools of a store, safe across threads and after a fork."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine, exc
from sqlalchemy.engine import URL, make_url

from cachelib.errors import ConfigError
from cachelib.stores.drivers import Driver
from cachelib.stores.names import nearest
from cachelib.stores.sql_errors import missing, translated

Role: TypeAlias = Literal["main", "loads", "side", "waits"]
"""main: what the application writes with. loads: misses, which must never wait for callers that
hold a main connection while they read (I6). side: the library's own short reads (layout, log),
which must not wait for slow loads either. waits: those that sleep until the log has something.
"""


def parse_url(url: str | URL, driver: Driver) -> URL:
    """The URL with the driver's full name; `postgresql://` and `sqlite://` are enough."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError(f"{url!r} is not a store's URL: write sqlite:///shop.db or postgresql://host/db") from error
    kind = parsed.get_backend_name()
    if kind not in driver.drivername:
        raise ConfigError(f"there is no store for {kind!r} databases: {nearest(kind, driver.drivername)}")
    return parsed.set(drivername=driver.drivername[kind])


def pools_of(main: int, loads: int, wait_s: float) -> dict[Role, dict[str, Any]]:
    """Sizes of the pools; every wait for a connection is bounded (I10)."""
    sizes: dict[Role, tuple[int, int]] = {"main": (main, main), "loads": (loads, 0), "side": (2, 8), "waits": (1, 8)}
    return {
        role: {"pool_size": size, "max_overflow": more, "pool_timeout": wait_s} for role, (size, more) in sizes.items()
    }


class Engines:
    """Engines by role, made when first used. `prepare` and `options` come from the database."""

    def __init__(self, url: URL, driver: Driver, dialect: Any, pools: dict[Role, dict[str, Any]]) -> None:
        self._url = url
        self._driver = driver
        self._dialect = dialect
        self._pools = pools
        self._pid = os.getpid()
        self._made: dict[Role, Engine] = {}
        self._inherited: list[Any] = []
        for role in pools:  # at once: a missing driver shows where the store is built
            self._made[role] = self._make(role)

    def _make(self, role: Role) -> Engine:
        options = self._dialect.engine_options(role) | self._pools[role]
        try:
            engine = self._driver.engine(self._url, **options)
        except ImportError as error:
            raise missing(error, self._url.drivername) from error
        self._dialect.prepare_engine(engine, role)
        return engine

    def get(self, role: Role) -> Engine:
        """The engine of a role, in this process."""
        if os.getpid() != self._pid:
            self._after_fork()
        return self._made[role]

    @contextmanager
    def connect(self, role: Role, doing: str) -> Iterator[Connection]:
        """A connection of this role; what goes wrong on it is raised as our error."""
        with translated(doing), self.get(role).connect() as conn:
            yield conn

    @contextmanager
    def writing(self, doing: str) -> Iterator[Connection]:
        """A short transaction of the library's own on the main pool."""
        with translated(doing), self.get("main").begin() as conn:
            yield conn

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        for engine in self._made.values():
            engine.dispose()

    def _after_fork(self) -> None:
        """The parent's sockets are still the parent's: not used here, and not closed either.

        The old pools are kept, so that nothing of them is collected: a closed SQLite file would
        drop locks, and a closed PostgreSQL connection would end the parent's session.
        """
        for engine in self._made.values():
            self._inherited.append(engine.pool)
            engine.dispose(close=False)
        self._pid = os.getpid()
