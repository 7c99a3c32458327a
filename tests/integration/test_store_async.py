"""`AsyncSqlStore` says what `SqlStore` says: the same code, awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cachelib.errors import LayoutConflict, StoreError
from cachelib.model import Row
from cachelib.stores import AsyncSqlStore, SqlStore
from tests.races.version_log import connect

BOTH = ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.server)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def with_items(url: str, test: Callable[[AsyncSqlStore], Awaitable[None]], **settings: Any) -> None:
    """Run a test on an async store with an installed table of two rows."""

    async def run() -> None:
        async with AsyncSqlStore(url, **settings) as store:
            async with store.transaction() as tx:
                await tx.execute("create table items (id integer primary key, a text)")
                await tx.execute("insert into items values (1, 'a'), (2, 'b')")
            await store.install("items", watch="a")
            await test(store)

    asyncio.run(run())


def test_every_call_of_the_sync_store_is_there() -> None:
    for name, method in inspect.getmembers(SqlStore, inspect.isfunction):
        if not name.startswith("_"):
            theirs = inspect.signature(getattr(AsyncSqlStore, name)).parameters
            assert list(inspect.signature(method).parameters) == list(theirs), name


def test_transaction_tells_its_changes_and_commits(url: str) -> None:
    async def test(store: AsyncSqlStore) -> None:
        async with store.transaction() as tx:
            await tx.execute("update items set a = :a where id = 1", {"a": "x"})
            await tx.connection.execute(sa.text("delete from items where id = 2"))
            changes = await tx.changes()
            assert changes is not None
            assert [(c.op, c.key["id"]) for c in changes] == [("update", 1), ("delete", 2)]
            assert await tx.touched() == {"items"}
        loaded = await store.load(store.table_loader("items", "id", "row_version"), [1, 2], timeout_s=5)
        assert loaded.rows == {1: Row({"id": 1, "a": "x"}, changes[0].version)}

    with_items(url, test)


def test_exception_rolls_back(url: str) -> None:
    async def test(store: AsyncSqlStore) -> None:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the whole block is what fails
            async with store.transaction() as tx:
                await tx.execute("delete from items")
                raise ZeroDivisionError
        loaded = await store.load(store.table_loader("items", "id", "row_version"), [1, 2])
        assert loaded.rows.keys() == {1, 2}

    with_items(url, test)


def test_refusal_is_a_store_error(url: str) -> None:
    async def test(store: AsyncSqlStore) -> None:
        with pytest.raises(StoreError, match="refused"):
            async with store.transaction() as tx:
                await tx.execute("insert into items (id) values (1)")

    with_items(url, test)


def test_own_loader_is_awaited(url: str) -> None:
    async def load(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        await asyncio.sleep(0)
        rows = await tx.execute("select id, a, row_version from items")
        return {id: Row(a, version) for id, a, version in rows if id in keys}

    async def test(store: AsyncSqlStore) -> None:
        loaded = await store.load(load, [2, 3])
        assert loaded.rows == {2: Row("b", 1)}
        assert abs(loaded.as_of_us - await store.now_us()) < 60_000_000

    with_items(url, test)


def test_loads_at_once_are_bounded_by_their_pool(url: str) -> None:
    running = most = 0

    async def load(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await tx.execute("select 1")
        await asyncio.sleep(0.01)
        running -= 1
        return {}

    async def test(store: AsyncSqlStore) -> None:
        await asyncio.gather(*(store.load(load, [1]) for _ in range(12)))
        assert most == 3

    with_items(url, test, load_pool_size=3)


def test_load_cancelled_gives_its_connection_back(url: str) -> None:
    async def load(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        await tx.execute("select 1")
        await asyncio.sleep(60)
        return {}

    async def test(store: AsyncSqlStore) -> None:
        for _ in range(3):
            task = asyncio.create_task(store.load(load, [1]))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        loaded = await store.load(store.table_loader("items", "id", "row_version"), [1])
        assert loaded.rows.keys() == {1}

    with_items(url, test, load_pool_size=1, pool_wait="2s")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[str]


def test_joins_connections_and_orm_sessions(url: str) -> None:
    async def test(store: AsyncSqlStore) -> None:
        engine = create_async_engine(url.replace("+psycopg", "+psycopg_async").replace("sqlite:", "sqlite+aiosqlite:"))
        async with engine.connect() as conn:
            await conn.execute(sa.text("update items set a = 'conn' where id = 1"))
            async with store.transaction(conn) as tx:
                changes = await tx.changes()
                assert changes is not None
                assert [c.key["id"] for c in changes] == [1]
        async with AsyncSession(engine) as session:
            session.add(Item(id=3, a="orm"))
            async with store.transaction(session) as tx:
                changes = await tx.changes()
                assert changes is not None
                assert [(c.op, c.key["id"]) for c in changes] == [("create", 3)]
        await engine.dispose()
        loaded = await store.load(store.table_loader("items", "id", "row_version"), [1, 3])
        assert {key: row.value["a"] for key, row in loaded.rows.items()} == {1: "conn", 3: "orm"}

    with_items(url, test)


def test_log_and_layout(url: str) -> None:
    async def test(store: AsyncSqlStore) -> None:
        position = await store.log_end()
        waiting = asyncio.create_task(store.wait_for_changes(position, 60))
        await asyncio.sleep(0.05)
        async with store.transaction() as tx:
            await tx.execute("update items set a = 'x' where id = 1")
        await asyncio.wait_for(waiting, 20)
        batch = await store.poll_changes(position, 10)
        assert [entry.change.key["id"] for entry in batch.entries] == [1]
        await store.save_consumer("bus", batch.position)
        assert await store.load_consumer("bus") == batch.position
        await store.drop_consumer("bus")
        assert await store.log_start() < batch.position
        assert await store.purge() == 0
        await store.write_layout(b"one", None)
        with pytest.raises(LayoutConflict):
            await store.write_layout(b"two", b"none")
        assert await store.read_layout() == b"one"
        assert (await store.status("items")).up_to_date
        assert await store.highest_version() > 1
        await store.uninstall("items")

    with_items(url, test)


def test_sync_and_async_agree_on_identity_and_positions(url: str) -> None:
    async def test(store: AsyncSqlStore) -> None:
        with SqlStore(url) as other:
            assert other.identity() == await store.identity()
            assert other.log_start() == await store.log_start()

    with_items(url, test)


def test_slow_statement_of_a_load_is_stopped(postgres_url: str) -> None:
    async def load(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        await tx.execute("select pg_sleep(30)")
        return {}

    async def test(store: AsyncSqlStore) -> None:
        with pytest.raises(StoreError, match="timeout"):
            await store.load(load, [1], timeout_s=0.05)

    with_items(postgres_url, test)
    with connect(postgres_url) as conn:
        assert conn.execute("select count(*) from items").fetchone() == (2,)
