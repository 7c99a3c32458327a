"""One transaction of a store: what it says that it has changed, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cachelib.errors import CommitUnknown, ConfigError, StoreError
from cachelib.model import RowChange
from cachelib.stores import SqlStore

BOTH = ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.server)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with SqlStore(url, tx_keys_max=50) as store:
        with store.transaction() as tx:
            tx.execute("create table orders (id integer primary key, customer_id integer, note text)")
            tx.execute("insert into orders values (1, 10, 'a'), (2, 20, 'b')")
        store.install("orders", watch="customer_id")
        yield store


def told(changes: list[RowChange] | None) -> list[tuple[str, object]]:
    assert changes is not None
    return [(change.op, change.key["id"]) for change in changes]


def value_of(store: SqlStore, key: int) -> object:
    loaded = store.load(store.table_loader("orders", "id", "row_version"), [key])
    return loaded.rows[key].value if key in loaded.rows else None


def test_changes_tell_every_row_with_old_and_new_values(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("update orders set customer_id = customer_id + :n", {"n": 5})
        changes = tx.changes()
    assert changes is not None
    assert [(c.key, c.before, c.after) for c in changes] == [
        ({"id": 1}, {"id": 1, "customer_id": 10}, {"id": 1, "customer_id": 15}),
        ({"id": 2}, {"id": 2, "customer_id": 20}, {"id": 2, "customer_id": 25}),
    ]


def test_versions_in_changes_are_those_of_the_rows(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("insert into orders (id, customer_id, note) values (3, 30, 'c')")
        tx.execute("update orders set note = 'x' where id = 1")
        changes = tx.changes()
    assert changes is not None
    loaded = store.load(store.table_loader("orders", "id", "row_version"), [1, 3])
    assert {c.key["id"]: c.version for c in changes} == {key: row.version for key, row in loaded.rows.items()}


def test_changes_are_those_of_this_transaction_only(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("update orders set note = 'x' where id = 1")
    with store.transaction() as tx:
        assert tx.changes() == []
        tx.execute("update orders set note = 'y' where id = 2")
        assert told(tx.changes()) == [("update", 2)]
        assert tx.touched() == {"orders"}


def test_key_change_is_a_delete_and_a_create(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("update orders set id = 7 where id = 1")
        assert told(tx.changes()) == [("delete", 1), ("create", 7)]


def test_bulk_key_change_tells_every_row_of_both_keys(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("update orders set id = id + 100")
        changes = told(tx.changes())
    assert sorted(changes) == [("create", 101), ("create", 102), ("delete", 1), ("delete", 2)]


def test_more_changes_than_tx_keys_max_are_everything(store: SqlStore) -> None:
    with store.transaction() as tx:
        for at in range(51):
            tx.execute("insert into orders (id, customer_id) values (:id, 1)", {"id": 1000 + at})
        assert tx.changes() is None
        assert tx.touched() == {"orders"}


def test_rolled_back_savepoint_is_not_told(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("update orders set note = 'kept' where id = 1")
        savepoint = tx.connection.begin_nested()
        tx.execute("update orders set note = 'gone' where id = 2")
        savepoint.rollback()
        assert told(tx.changes()) == [("update", 1)]
    assert value_of(store, 2) == {"id": 2, "customer_id": 20, "note": "b"}


def test_exception_rolls_back(store: SqlStore) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:  # noqa: PT012 - the whole block is what fails
        tx.execute("update orders set note = 'x' where id = 1")
        raise ZeroDivisionError
    assert value_of(store, 1) == {"id": 1, "customer_id": 10, "note": "a"}


def test_ended_in_the_block_is_not_ended_again(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute("update orders set note = 'x' where id = 1")
        tx.rollback()
    with store.transaction() as tx:
        tx.execute("update orders set customer_id = 11 where id = 1")
        tx.commit()
        with pytest.raises(ConfigError, match="ended already"):
            tx.commit()
    assert value_of(store, 1) == {"id": 1, "customer_id": 11, "note": "a"}


def test_refused_statement_is_a_store_error_with_its_cause(store: SqlStore) -> None:
    with pytest.raises(StoreError, match="refused") as caught, store.transaction() as tx:
        tx.execute("insert into orders (id) values (1)")
    assert isinstance(caught.value.__cause__, sa.exc.IntegrityError)
    with store.transaction() as tx:  # the connection is as good as new
        tx.execute("update orders set note = 'fine' where id = 1")


def test_joins_a_connections_transaction_with_what_it_did_before(store: SqlStore, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.connect() as conn:
        conn.execute(sa.text("update orders set note = 'before' where id = 1"))
        with store.transaction(conn) as tx:
            tx.execute("update orders set note = 'after' where id = 2")
            assert told(tx.changes()) == [("update", 1), ("update", 2)]
        assert not conn.in_transaction()
    engine.dispose()
    assert value_of(store, 2) == {"id": 2, "customer_id": 20, "note": "after"}


def test_joined_transaction_is_rolled_back_where_the_block_raises(store: SqlStore, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.connect() as conn, pytest.raises(ZeroDivisionError), store.transaction(conn) as tx:  # noqa: PT012 - the whole block is what fails
        tx.execute("update orders set note = 'x'")
        raise ZeroDivisionError
    engine.dispose()
    assert value_of(store, 1) == {"id": 1, "customer_id": 10, "note": "a"}


def test_autocommit_connection_has_no_transaction_to_join(store: SqlStore, url: str) -> None:
    """Each statement would be committed by itself, and `changes()` would say that there were none."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn, pytest.raises(ConfigError, match="autocommit"), store.transaction(conn):
        pass
    engine.dispose()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int]
    note: Mapped[str]


def test_joins_an_orm_session_and_flushes_it(store: SqlStore, url: str) -> None:
    engine = sa.create_engine(url)
    with Session(engine) as session:
        session.add(Order(id=5, customer_id=50, note="new"))
        with store.transaction(session) as tx:
            order = session.get(Order, 1)
            assert order is not None
            order.note = "changed"
            assert sorted(told(tx.changes())) == [("create", 5), ("update", 1)]
    engine.dispose()
    assert value_of(store, 5) == {"id": 5, "customer_id": 50, "note": "new"}


def test_writers_on_the_same_rows_wait_for_each_other(store: SqlStore) -> None:
    """Reading before writing must not make a SQLite transaction fail: it takes the write lock at once."""

    def add_one() -> None:
        for _ in range(20):
            with store.transaction() as tx:
                seen = tx.execute("select customer_id from orders where id = 1" + lock).scalar_one()
                tx.execute("update orders set customer_id = :n where id = 1", {"n": seen + 1})

    lock = "" if store.identity().startswith("id-") else " for update"
    threads = [threading.Thread(target=add_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(store, 1) == {"id": 1, "customer_id": 10 + 80, "note": "a"}


def test_use_without_a_log_says_what_to_do(url: str) -> None:
    with SqlStore(url) as store, pytest.raises(ConfigError, match="install"), store.transaction() as tx:
        tx.changes()


# --- PostgreSQL only -------------------------------------------------------------------------


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[SqlStore]:
    with SqlStore(postgres_url) as store:
        with store.transaction() as tx:
            tx.execute("create table orders (id integer primary key, customer_id integer, note text)")
            tx.execute("insert into orders values (1, 10, 'a'), (2, 20, 'b')")
        store.install("orders")
        yield store


def test_truncate_is_everything(postgres: SqlStore) -> None:
    with postgres.transaction() as tx:
        tx.execute("update orders set note = 'x'")
        tx.execute("truncate orders")
        assert tx.changes() is None
        assert tx.touched() == {"orders"}
    log = postgres.poll_changes("", 10).entries
    assert [entry.change.op for entry in log] == ["update", "update", "truncate"]
    assert log[-1].change.key == {}


def test_deferred_trigger_runs_before_the_changes_are_read(postgres: SqlStore) -> None:
    """Read without SET CONSTRAINTS, the log would lack what the trigger does at the commit."""
    with postgres.transaction() as tx:
        tx.execute(
            "create function follow() returns trigger language plpgsql as"
            " $$ begin update orders set note = 'followed' where id = 2; return null; end $$"
        )
        tx.execute(
            "create constraint trigger follow after update on orders deferrable initially deferred"
            " for each row when (new.id = 1) execute function follow()"
        )
    with postgres.transaction() as tx:
        tx.execute("update orders set note = 'lead' where id = 1")
        raw = tx.execute("select count(*) from leasecache_changes where tx = pg_current_xact_id()").scalar_one()
        assert raw == 1
        assert told(tx.changes()) == [("update", 1), ("update", 2)]


def test_deferred_constraint_that_fails_is_refused_and_rolled_back(postgres: SqlStore) -> None:
    with postgres.transaction() as tx:
        tx.execute("create table lines (order_id integer references orders deferrable initially deferred)")
    with pytest.raises(StoreError, match="refused") as caught, postgres.transaction() as tx:  # noqa: PT012 - the whole block is what fails
        tx.execute("insert into lines values (99)")
        tx.commit()
    assert not isinstance(caught.value, CommitUnknown)
    assert not tx.commit_sent
    with postgres.transaction() as tx:
        assert tx.execute("select count(*) from lines").scalar_one() == 0


def test_serialization_failure_is_a_refusal(postgres: SqlStore) -> None:
    with pytest.raises(StoreError, match="refused") as caught, postgres.transaction() as tx:  # noqa: PT012 - the whole block is what fails
        tx.execute("set transaction isolation level repeatable read")
        tx.execute("select * from orders")
        with postgres.transaction() as other:
            other.execute("update orders set note = 'other' where id = 1")
        tx.execute("update orders set note = 'mine' where id = 1")
    assert not isinstance(caught.value, CommitUnknown)
    assert value_of(postgres, 1) == {"id": 1, "customer_id": 10, "note": "other"}


def test_connection_lost_during_commit_leaves_the_outcome_unknown(postgres: SqlStore) -> None:
    """The server ends the session before COMMIT arrives; the client cannot tell that from after."""
    with pytest.raises(CommitUnknown, match="look whether"), postgres.transaction() as tx:  # noqa: PT012 - the whole block is what fails
        tx.execute("update orders set note = 'lost'")
        pid = tx.execute("select pg_backend_pid()").scalar_one()
        with postgres.transaction() as killer:
            killer.execute("select pg_terminate_backend(:pid, 5000)", {"pid": pid})
        tx.commit()
    assert tx.commit_sent
    assert value_of(postgres, 1) == {"id": 1, "customer_id": 10, "note": "a"}


def test_connection_lost_before_the_commit_is_a_store_error(postgres: SqlStore) -> None:
    with pytest.raises(StoreError, match="broke") as caught, postgres.transaction() as tx:  # noqa: PT012 - the whole block is what fails
        pid = tx.execute("select pg_backend_pid()").scalar_one()
        with postgres.transaction() as killer:
            killer.execute("select pg_terminate_backend(:pid, 5000)", {"pid": pid})
        tx.execute("update orders set note = 'lost'")
    assert not isinstance(caught.value, CommitUnknown)
    assert value_of(postgres, 1) is not None


def test_cascade_to_an_installed_table_is_told(postgres: SqlStore) -> None:
    with postgres.transaction() as tx:
        tx.execute("create table lines (id int primary key, order_id int references orders on delete cascade)")
        tx.execute("insert into lines values (1, 1), (2, 1), (3, 2)")
    postgres.install("lines")
    with postgres.transaction() as tx:
        tx.execute("delete from orders where id = 1")
        changes = tx.changes()
        assert changes is not None
        assert sorted((c.table, c.op, c.key["id"]) for c in changes) == [
            ("lines", "delete", 1),
            ("lines", "delete", 2),
            ("orders", "delete", 1),
        ]
