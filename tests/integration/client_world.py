"""A shop with a real store behind a real cache, for scenarios that are written once.

`World` has both faces: a scenario calls `cache.get(…)` and, on the async face, that is awaited on
an event loop in a thread of its own. Loaders are made for the face, and count; `on_load` runs in
the middle of each load, where a test may hold it up or make it fail.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cachelib import AsyncCache, Cache, Entity, Row
from cachelib.stores import AsyncSqlStore, SqlStore

WAIT_S = 30.0
TABLES = (
    "create table customers (id integer primary key, name text, tier text)",
    "create table orders (id integer primary key, customer_id integer, total integer)",
    "create table stock (shop text, item integer, amount integer, primary key (shop, item))",
)
WATCHED = (("customers", "id", ()), ("orders", "id", ("customer_id",)), ("stock", ("shop", "item"), ()))


def install(url: str, **settings: Any) -> None:
    """The tables, with versions and change log."""
    engine = sa.create_engine(driver_url(url))
    with engine.begin() as conn:
        for table in TABLES:
            conn.exec_driver_sql(table)
    engine.dispose()
    with SqlStore(url, **settings) as store:
        for table, key, watch in WATCHED:
            store.install(table, key=key, watch=watch)


def driver_url(url: str) -> str:
    """SQLAlchemy's own default for postgresql:// is another driver."""
    return url.replace("postgresql://", "postgresql+psycopg://")


def sqlite_template(folder: Path) -> Path:
    """A file with the tables installed, to be copied."""
    path = folder / "template.db"
    install(f"sqlite:///{path}")
    with sqlite3.connect(path) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    db.close()
    return path


def until(holds: Callable[[], Any], what: str = "the condition", within_s: float = WAIT_S) -> None:
    """Look again and again until it holds."""
    last = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < last, f"{what} did not come true within {within_s:g} s"
        time.sleep(0.002)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(64))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        """Await it there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S * 2)

    def close(self) -> None:
        """Stop, with nothing left behind."""
        self.run(_settle())
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class Blocking:
    """An `AsyncCache` (or its transaction) whose methods are called as if they blocked."""

    def __init__(self, face: Any, loop: Loop) -> None:
        self.face = face
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.face, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute
        return lambda *arguments, **named: self._loop.run(attribute(*arguments, **named))

    @contextmanager
    def transaction(self, connection: Any = None) -> Iterator[Any]:
        entered = self.face.transaction(connection)
        tx = Blocking(self._loop.run(entered.__aenter__()), self._loop)
        try:
            yield tx
        except BaseException as error:
            self._loop.run(entered.__aexit__(type(error), error, error.__traceback__))
            raise
        self._loop.run(entered.__aexit__(None, None, None))

    def cached(self, template: str, **settings: Any) -> Callable[[Any], Any]:
        """As `Cache.cached`; the function is made `async def`, the decorated one blocks."""

        def decorate(function: Any) -> Any:
            async def awaited(*arguments: Any, **named: Any) -> Any:
                return await asyncio.to_thread(function, *arguments, **named)

            awaited.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
            made = self.face.cached(template, **settings)(awaited)

            def call(*arguments: Any, **named: Any) -> Any:
                return self._loop.run(made(*arguments, **named))

            call.entity = made.entity  # type: ignore[attr-defined]
            return call

        return decorate


@dataclass
class Loads:
    """What was asked of the store, and what happens in the middle of it."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    on_load: Callable[[Sequence[Any]], None] = lambda keys: None
    _lock: Any = field(default_factory=threading.Lock)

    def __call__(self, keys: Sequence[Any]) -> None:
        with self._lock:
            self.asked.append(tuple(keys))
        self.on_load(keys)

    @property
    def count(self) -> int:
        """How many loads there were."""
        return len(self.asked)

    def keys(self) -> list[Any]:
        """Every key that was loaded, in order."""
        return [key for keys in self.asked for key in keys]


class Held:
    """A load that waits in the middle until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, keys: Sequence[Any]) -> None:
        self.begun.set()
        self.go_on.wait(WAIT_S)


class World:
    """One face, one cache server, one store."""

    def __init__(self, face: str, cache_url: str, store_url: str, **store_settings: Any) -> None:
        self.face, self.cache_url, self.store_url = face, cache_url, store_url
        self.loop = Loop() if face == "async" else None
        self.loads = Loads()
        kind: Any = SqlStore if self.loop is None else AsyncSqlStore
        self.store: Any = kind(store_url, **store_settings)
        self._caches: list[Any] = []
        self._outside = sa.create_engine(driver_url(store_url))

    def run(self, maybe: Any) -> Any:
        """The result of a call of either face."""
        return self.loop.run(maybe) if self.loop is not None and inspect.isawaitable(maybe) else maybe

    # --- caches and entities -----------------------------------------------------------------

    def cache(self, *entities: Entity, backend: Any = None, **settings: Any) -> Any:
        """A cache of its own, as another process would have."""
        kind: Any = Cache if self.loop is None else AsyncCache
        settings.setdefault("store", self.store)
        made = kind(self.cache_url if backend is None else backend, entities=entities, **settings)
        self._caches.append(made)
        return made if self.loop is None else Blocking(made, self.loop)

    def backend(self, **settings: Any) -> Any:
        """A backend of this server with settings of its own."""
        from cachelib import backends

        kind = ("" if self.loop is None else "Async") + ("Redis" if self.cache_url.startswith("redis") else "Memcached")
        return getattr(backends, kind)(self.cache_url, **settings)

    def customers(self, **settings: Any) -> Entity:
        """Rows of `customers`, with save and remove. Values are (name, tier)."""
        load = self.loader("select id, name, tier, row_version from customers where id in :keys", _customer)
        save = self.writer(
            "insert into customers (id, name, tier) values (:key, :name, :tier)"
            " on conflict (id) do update set name = excluded.name, tier = excluded.tier"
        )
        remove = self.writer("delete from customers where id = :key")
        settings = {"load": load, "save": save, "remove": remove} | settings
        return Entity("customer:{id:int}", table="customers", key="id", **settings)

    def orders_of(self, **settings: Any) -> Entity:
        """The numbers of a customer's orders: a key of many rows."""

        def rows(found: Sequence[Any]) -> dict[Any, Any]:
            lists: dict[Any, list[int]] = {}
            for customer, order in found:
                lists.setdefault(customer, []).append(order)
            return lists

        sql = "select customer_id, id from orders where customer_id in :keys order by id"
        return Entity(
            "orders-of:{customer_id:int}", depends_on={"orders": "customer_id"}, load=self.loader(sql, rows), **settings
        )

    def loader(self, sql: str, rows: Callable[[Sequence[Any]], dict[Any, Any]]) -> Any:
        """A loader of the face. `:keys` are the keys."""
        if self.loop is None:

            def load(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
                self.loads(keys)
                return rows(tx.execute(sql, {"keys": [int(key) for key in keys]}).all())

            return load

        async def load_async(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
            await asyncio.to_thread(self.loads, keys)
            return rows((await tx.execute(sql, {"keys": [int(key) for key in keys]})).all())

        return load_async

    def writer(self, sql: str) -> Any:
        """`save` or `remove` of the face: the value is a mapping of parameters."""

        def parameters(key: Any, value: Mapping[str, Any]) -> dict[str, Any]:
            return {"key": key, **value}

        if self.loop is None:

            def write(tx: Any, key: Any, value: Mapping[str, Any] = {}) -> None:
                tx.execute(sql, parameters(key, value))

            return write

        async def write_async(tx: Any, key: Any, value: Mapping[str, Any] = {}) -> None:
            await tx.execute(sql, parameters(key, value))

        return write_async

    # --- the store from outside --------------------------------------------------------------

    def sql(self, sql: str, **params: Any) -> list[Any]:
        """Run SQL past the library, as another program would."""
        with self._outside.begin() as conn:
            result = conn.execute(sa.text(sql), params)
            return list(result.all()) if result.returns_rows else []

    def customer(self, key: int, name: str, tier: str = "iron") -> None:
        """Write a customer past the library."""
        self.sql(
            "insert into customers (id, name, tier) values (:id, :name, :tier)"
            " on conflict (id) do update set name = excluded.name, tier = excluded.tier",
            id=key,
            name=name,
            tier=tier,
        )

    # --- many at once ------------------------------------------------------------------------

    @contextmanager
    def meanwhile(self, call: Callable[[], Any]) -> Iterator[list[Any]]:
        """Run `call` in another thread; its result or error is in the list when the block has ended."""
        got: list[Any] = []

        def run() -> None:
            try:
                got.append(call())
            except Exception as error:  # noqa: BLE001 - the test looks at it
                got.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield got
        thread.join(WAIT_S)
        assert not thread.is_alive()

    def close(self) -> None:
        """Everything, on the loop that used it."""
        for cache in self._caches:
            self.run(cache.close())
        self.run(self.store.close())
        self._outside.dispose()
        if self.loop is not None:
            self.loop.close()


def _customer(found: Sequence[Any]) -> dict[Any, Any]:
    return {key: Row({"name": name, "tier": tier}, version) for key, name, tier, version in found}
