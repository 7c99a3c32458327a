"""Loads: a snapshot of their own on a pool of their own, and the clock from before it (I6); forks; the layout."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from cachelib.errors import ConfigError, LayoutConflict, MissingExtra, StoreError
from cachelib.model import Row
from cachelib.stores import SqlStore
from tests.races.version_log import connect, sessions

BOTH = ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.server)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def prepared(url: str, **settings: Any) -> SqlStore:
    store = SqlStore(url, **settings)
    with store.transaction() as tx:
        tx.execute("create table items (id integer primary key, a text)")
        tx.execute("insert into items values (1, 'a'), (2, 'b')")
    store.install("items")
    return store


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with prepared(url) as store:
        yield store


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[SqlStore]:
    with prepared(postgres_url) as store:
        yield store


def values(store: SqlStore, keys: Sequence[Any], **settings: Any) -> dict[Any, Any]:
    loaded = store.load(store.table_loader("items", "id", "row_version"), keys, **settings)
    return {key: row.value["a"] for key, row in loaded.rows.items()}


def nothing(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
    tx.execute("select 1")
    return {}


def test_loader_gives_rows_by_the_keys_asked(store: SqlStore) -> None:
    assert values(store, [2, 1, 3, 2]) == {2: "b", 1: "a"}
    assert values(store, []) == {}


def test_loader_takes_many_keys_in_portions(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.execute(
            "with recursive n(i) as (select 10 union all select i + 1 from n where i < 1709)"
            " insert into items (id, a) select i, 'n' from n"
        )
    assert len(values(store, list(range(0, 3000)))) == 1702


def test_loader_without_versions(store: SqlStore) -> None:
    rows = store.load(store.table_loader("items", "id", None), [1]).rows
    assert rows[1].version is None
    assert rows[1].value == {"id": 1, "a": "a", "row_version": 1}


def test_row_whose_version_is_null_leaves_without_one(store: SqlStore) -> None:
    """As a row that its own transaction has created may look to that transaction."""
    with store.transaction() as tx:
        tx.execute("create table bare (id integer primary key, row_version bigint)")
        tx.execute("insert into bare values (1, null)")
    rows = store.load(store.table_loader("bare", "id", "row_version"), [1]).rows
    assert rows == {1: Row({"id": 1}, None)}


def test_column_added_or_dropped_later_is_no_lasting_trouble(store: SqlStore) -> None:
    loader = store.table_loader("items", "id", "row_version")
    for _ in range(8):  # psycopg prepares a statement that it has seen often
        store.load(loader, [1])
    with store.transaction() as tx:
        tx.execute("alter table items add column extra text")
    assert store.load(loader, [1]).rows[1].value == {"id": 1, "a": "a"}
    with store.transaction() as tx:
        tx.execute("alter table items drop column a")
    with pytest.raises(StoreError):
        store.load(loader, [1])
    assert store.load(loader, [1]).rows[1].value == {"id": 1, "extra": None}


@pytest.mark.parametrize(
    ("table", "key", "version", "said"),
    [
        ("itmes", "id", "row_version", "did you mean 'items'"),
        ("items", "idd", "row_version", "did you mean 'id'"),
        ("items", "id", "version", "install the table first"),
    ],
)
def test_wrong_loader_is_told_with_the_nearest_right_name(
    store: SqlStore, table: str, key: str, version: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        store.load(store.table_loader(table, key, version), [1])


def test_key_of_the_wrong_shape_is_refused(store: SqlStore) -> None:
    with pytest.raises(ConfigError, match="columns id"):
        store.load(store.table_loader("items", "id", "row_version"), [(1, 2)])


def test_load_cannot_write(store: SqlStore) -> None:
    def write(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        tx.execute("delete from items")
        return {}

    with pytest.raises(StoreError, match=r"read.?only"):
        store.load(write, [1])
    assert values(store, [1]) == {1: "a"}


def test_what_a_loader_raises_comes_through(store: SqlStore) -> None:
    with pytest.raises(ZeroDivisionError):
        store.load(lambda tx, keys: {1: 1 // 0}, [1])
    assert values(store, [1]) == {1: "a"}


def test_load_sees_one_snapshot(store: SqlStore) -> None:
    def twice(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        before = tx.execute("select a from items where id = 1").scalar_one()
        with store.transaction() as writer:
            writer.execute("update items set a = 'later' where id = 1")
        return {"before": before, "after": tx.execute("select a from items where id = 1").scalar_one()}

    assert store.load(twice, [1]).rows == {"before": "a", "after": "a"}


def test_as_of_is_before_the_snapshot(store: SqlStore) -> None:
    """A commit that the load does not see is after its as_of."""
    seen = {}

    def read(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        tx.execute("select a from items").all()
        with store.transaction() as writer:
            writer.execute("update items set a = 'unseen' where id = 1")
            seen["written_us"] = writer.changes()[0].at_us
        time.sleep(0.01)
        return {"a": tx.execute("select a from items where id = 1").scalar_one()}

    loaded = store.load(read, [1])
    assert loaded.rows == {"a": "a"}
    assert loaded.as_of_us <= seen["written_us"] + 1000  # SQLite's triggers tell milliseconds


def test_clock_timestamp_would_claim_a_commit_that_the_load_did_not_see(postgres: SqlStore) -> None:
    """Why as_of is the transaction's now()."""
    asked = "select (extract(epoch from clock_timestamp()) * 1000000)"

    def read(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        tx.execute("select a from items").all()  # the snapshot is taken
        with postgres.transaction() as writer:
            writer.execute("update items set a = 'unseen' where id = 1")
            written_us = writer.changes()[0].at_us
        trap_us, a = tx.execute(f"select ({asked}), a from items where id = 1").one()
        return {"a": a, "trap_us": int(trap_us), "written_us": written_us}

    loaded = postgres.load(read, [1])
    assert loaded.rows["a"] == "a"
    assert loaded.rows["trap_us"] > loaded.rows["written_us"]
    assert loaded.as_of_us < loaded.rows["written_us"]


def test_loads_do_not_wait_for_callers_that_hold_a_connection(url: str) -> None:
    """N callers, each in a transaction, each reading a key that misses: with one pool they wait for each other."""
    with prepared(url, pool_size=1, load_pool_size=1, pool_wait="2s") as store, store.transaction() as tx:
        tx.execute("select 1")
        assert values(store, [1]) == {1: "a"}


def test_wait_for_a_load_connection_is_bounded(url: str) -> None:
    with prepared(url, load_pool_size=1, pool_wait="50ms") as store:

        def nested(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
            return store.load(nothing, [1]).rows

        with pytest.raises(StoreError, match="no connection to the store became free"):
            store.load(nested, [1])


def test_slow_load_is_stopped_and_the_next_one_is_not(store: SqlStore) -> None:
    slow = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000000) select count(*) from n"

    def run(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        return {"n": tx.execute(slow).scalar_one()}

    begun = time.monotonic()
    with pytest.raises(StoreError):
        store.load(run, [1], timeout_s=0.1)
    assert time.monotonic() - begun < 20
    assert values(store, [1], timeout_s=30) == {1: "a"}
    assert values(store, [1]) == {1: "a"}


def test_pooled_connections_that_died_are_replaced(postgres: SqlStore, postgres_url: str) -> None:
    assert values(postgres, [1]) == {1: "a"}
    with connect(postgres_url, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    assert values(postgres, [1]) == {1: "a"}


def test_threads_share_a_store(store: SqlStore) -> None:
    failed: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for at in range(10):
                with store.transaction() as tx:
                    tx.execute("insert into items (id, a) values (:id, 'x')", {"id": 100 + n * 100 + at})
                    changes = tx.changes()
                    assert changes is not None
                    assert [c.key["id"] for c in changes] == [100 + n * 100 + at]
                assert values(store, [100 + n * 100 + at]) == {100 + n * 100 + at: "x"}
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_child_of_a_fork_does_not_use_or_close_the_parents_connections(store: SqlStore) -> None:
    with store.transaction() as tx:
        assert values(store, [1]) == {1: "a"}
        tx.execute("update items set a = 'parent' where id = 1")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if values(store, [1, 2]) == {1: "a", 2: "b"} else 2
                store.close()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        changes = tx.changes()
        assert changes is not None
        assert len(changes) == 1
    assert values(store, [1]) == {1: "parent"}


# --- who the store is, and the layout ----------------------------------------------------------


def test_identity_is_the_same_for_all_and_differs_between_stores(url: str, tmp_path: object) -> None:
    with SqlStore(url) as one, SqlStore(url) as two, SqlStore(f"sqlite:///{tmp_path}/other.db") as other:
        assert one.identity() == two.identity() == one.identity()
        assert other.identity() != one.identity()


def test_identity_of_a_role_that_may_not_ask_the_system(postgres: SqlStore, postgres_url: str) -> None:
    assert postgres.identity().startswith("pg-")
    with sessions(postgres_url, 1) as (admin,):
        admin.execute("create role plain_of_identity login")
        admin.execute("revoke execute on function pg_control_system() from public")
        admin.execute("grant select on all tables in schema public to plain_of_identity")
        try:
            with SqlStore(postgres_url.replace("postgres@", "plain_of_identity@")) as plain:
                assert plain.identity().startswith("id-")
        finally:
            admin.execute("grant execute on function pg_control_system() to public")
            admin.execute("drop owned by plain_of_identity")
            admin.execute("drop role plain_of_identity")


def test_layout_is_written_by_compare_and_set(url: str) -> None:
    with SqlStore(url) as store:
        assert store.read_layout() is None
        store.write_layout(b"\x00one", None)
        assert store.read_layout() == b"\x00one"
        with pytest.raises(LayoutConflict):
            store.write_layout(b"two", None)
        with pytest.raises(LayoutConflict):
            store.write_layout(b"two", b"zero")
        store.write_layout(b"two", b"\x00one")
        assert store.read_layout() == b"two"


def test_of_many_writers_of_the_layout_one_wins_each_round(url: str) -> None:
    with SqlStore(url) as store:
        store.write_layout(b"0", None)

        def add_one() -> None:
            for _ in range(5):
                while True:
                    seen = store.read_layout()
                    assert seen is not None
                    try:
                        store.write_layout(b"%d" % (int(seen) + 1), seen)
                        break
                    except LayoutConflict:
                        continue

        threads = [threading.Thread(target=add_one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.read_layout() == b"20"


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("nonsense", {}, "not a store's URL"),
        ("mysql://host/db", {}, "no store for 'mysql'"),
        ("sqlite://", {}, "in memory"),
        ("sqlite:///:memory:", {}, "in memory"),
        ("sqlite:///x.db", {"load_pool_size": 0}, "1 or more"),
        ("sqlite:///x.db", {"retention": "soon"}, "retention is 'soon'"),
        ("sqlite:///x.db", {"retention": "2d", "retention_max": "1d"}, "retention_max"),
    ],
)
def test_wrong_setting_is_refused_when_it_is_set(url: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SqlStore(url, **settings)


def test_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"leasecache\[postgresql\]"):
        SqlStore("postgresql://nobody@localhost/nothing")


def test_store_that_is_not_there_is_a_store_error() -> None:
    with SqlStore("postgresql://nobody@127.0.0.1:1/nothing") as store, pytest.raises(StoreError):
        store.read_layout()
