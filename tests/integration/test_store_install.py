"""Installing versions and the change log: again, on a live table, on odd names, and off again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cachelib.errors import ConfigError, StoreError
from cachelib.model import RowChange
from cachelib.stores import SqlStore
from tests.races.version_log import Waiting, connect, sessions

BOTH = ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.server)]
ODD = ["Order Items", 'we"ird', "a:b", "100%", "select", "naïve"]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with SqlStore(url) as store:
        run(store, "create table items (id integer primary key, a text, b text)")
        run(store, "insert into items values (1, 'a', 'b')")
        yield store


def run(store: SqlStore, *statements: str) -> list[RowChange]:
    """Run statements as they are, in one transaction; what the log says of it, if there is one."""
    with store.transaction() as tx:
        for sql in statements:
            tx.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
    return changes(store) if store.read_layout() is None and has_log(store) else []


def has_log(store: SqlStore) -> bool:
    try:
        store.log_start()
    except ConfigError:
        return False
    return True


def changes(store: SqlStore) -> list[RowChange]:
    return [entry.change for entry in store.poll_changes(store.log_start(), 1000).entries]


def load(store: SqlStore, table: str, key: str | tuple[str, ...], keys: list[object]) -> dict[object, object]:
    rows = store.load(store.table_loader(table, key, "row_version"), keys).rows
    return {key: (row.value, row.version) for key, row in rows.items()}


def test_rows_that_are_there_have_version_1(store: SqlStore) -> None:
    assert store.install("items").column == "add"
    assert load(store, "items", "id", [1]) == {1: ({"id": 1, "a": "a", "b": "b"}, 1)}
    run(store, "update items set a = 'x'", "insert into items (id) values (2)")
    found = {change.key["id"]: change.version for change in changes(store)}
    assert all(version is not None and version > 1 for version in found.values())
    assert {key: version for key, (_, version) in load(store, "items", "id", [1, 2]).items()} == found  # type: ignore[misc]


def test_second_install_changes_nothing(store: SqlStore) -> None:
    assert store.install("items", watch=("a", "b")).changed
    assert not store.install("items", watch=("a", "b")).changed


def test_watch_list_can_be_changed(store: SqlStore) -> None:
    store.install("items", watch="a")
    run(store, "update items set a = 'a1', b = 'b1'")
    assert store.install("items", watch=("a", "b")).changed
    run(store, "update items set a = 'a2', b = 'b2'")
    store.install("items")
    run(store, "update items set a = 'a3', b = 'b3'")
    assert [change.after for change in changes(store)] == [
        {"id": 1, "a": "a1"},
        {"id": 1, "a": "a2", "b": "b2"},
        {"id": 1},
    ]
    assert load(store, "items", "id", [1])[1][1] == changes(store)[-1].version  # type: ignore[index]


def test_status_tells_how_a_table_stands(store: SqlStore) -> None:
    assert not store.status("items").installed
    store.install("items", watch="a")
    run(store, "update items set a = 'x'")
    store.save_consumer("bus", store.log_start())
    status = store.status("items")
    assert (status.installed, status.up_to_date, status.key, status.watch) == (True, True, ("id",), ("a",))
    assert (status.log_rows, status.slowest_consumer) == (1, "bus")
    assert status.log_oldest_us is not None
    assert abs(store.now_us() - status.log_oldest_us) < 60_000_000


def test_uninstalled_table_is_as_before(store: SqlStore) -> None:
    store.install("items")
    store.uninstall("items")
    assert not store.status("items").installed
    run(store, "insert into items values (2, 'x', 'y')")
    assert changes(store) == []
    assert not store.uninstall("items").changed


def test_version_after_a_time_without_triggers_is_above_all_known(store: SqlStore) -> None:
    """Nobody knows which rows have changed meanwhile: the log says everything."""
    store.install("items")
    run(store, "update items set a = 'seen'")
    known = store.highest_version()
    store.uninstall("items")
    run(store, "update items set a = 'unseen'")
    assert store.install("items").column == "renew"
    ((value, version),) = load(store, "items", "id", [1]).values()  # type: ignore[misc]
    assert value["a"] == "unseen"
    assert version > known
    assert changes(store)[-1].op == "truncate"
    assert run(store, "update items set a = 'again'")[-1].version > version  # type: ignore[operator]


def test_lost_trigger_is_noticed_and_repaired(store: SqlStore) -> None:
    store.install("items")
    trigger = next(name for name in store.status("items").triggers if "updated" in name)
    on = "" if store.identity().startswith("id-") else " on items"
    run(store, f"drop trigger {trigger}{on}", "update items set a = 'unseen'")
    status = store.status("items")
    assert (status.installed, status.up_to_date, status.triggers_missing) == (False, False, (trigger,))
    assert store.install("items").column == "renew"
    assert store.status("items").up_to_date


def test_foreign_version_column_is_not_touched(store: SqlStore) -> None:
    run(store, "alter table items add column row_version integer")
    with pytest.raises(ConfigError, match="another name with version="):
        store.install("items")
    assert store.install("items", version="cache_version").changed


@pytest.mark.parametrize(
    ("table", "settings", "said"),
    [
        ("itmes", {}, "did you mean 'items'"),
        ("items", {"key": "ident"}, "no column 'ident'"),
        ("items", {"key": "a"}, "no primary key or unique index on a"),
        ("items", {"key": ("id", "a")}, "no primary key or unique index on id, a"),
        ("items", {"watch": "aa"}, "did you mean 'a'"),
        ("a.b.c", {}, "not a table's name"),
        ("nowhere.items", {}, "no table"),
    ],
)
def test_wrong_name_is_told_with_the_nearest_right_one(
    store: SqlStore, table: str, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        store.install(table, **settings)


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_tables_and_columns(url: str, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    with SqlStore(url) as store:
        run(store, f'create table {quoted} ({quoted} integer primary key, "x {name.replace(chr(34), "")}" text)')
        watched = f"x {name.replace(chr(34), '')}"
        given = quoted if '"' in name else name
        store.install(given, key=name, watch=watched)
        run(store, f"insert into {quoted} ({quoted}) values (1), (2)")
        run(store, f"update {quoted} set \"{watched}\" = 'it''s \"odd\" \\ {{}}'")
        found = run(store, f"delete from {quoted} where {quoted} = 2")
        assert {change.table for change in found} == {given}
        assert found[2].after == {name: 1, watched: 'it\'s "odd" \\ {}'}
        assert load(store, given, name, [1, 2]).keys() == {1}


def test_composite_key_of_text_and_number(url: str) -> None:
    with SqlStore(url) as store:
        run(store, "create table lines (shop text, number integer, note text, primary key (shop, number))")
        store.install("lines", key=("shop", "number"), watch="note")
        key = ("o'\"\\:%{}[],ü\n", 7)
        with store.transaction() as tx:
            tx.execute("insert into lines (shop, number) values (:s, :n)", {"s": key[0], "n": key[1]})
            tx.execute("insert into lines (shop, number) values ('other', 7)")
            changes = tx.changes()
        assert changes is not None
        assert changes[0].key == {"shop": key[0], "number": 7}
        assert set(load(store, "lines", ("shop", "number"), [key, ("other", 7), ("none", 1)])) == {key, ("other", 7)}
        found = run(store, "update lines set number = 8 where shop = 'other'")
        assert [(c.op, c.key["number"]) for c in found[-2:]] == [("delete", 7), ("create", 8)]


def test_key_by_a_unique_index(url: str) -> None:
    with SqlStore(url) as store:
        run(store, "create table people (id integer primary key, email varchar(40) not null unique)")
        store.install("people", key="email")
        run(store, "insert into people (id, email) values (1, 'a@b')")
        assert load(store, "people", "email", ["a@b", "a@b" + "x" * 40]).keys() == {"a@b"}


def test_bulk_statement_tells_every_row_in_order(store: SqlStore) -> None:
    store.install("items", watch="a")
    numbers = "with recursive n(i) as (select 10 union all select i + 1 from n where i < 109)"
    run(store, f"{numbers} insert into items (id, a) select i, 'new' from n")
    run(store, "update items set a = 'x' || id where id >= 10")
    found = run(store, "delete from items where id >= 60")
    assert [change.op for change in found] == ["create"] * 100 + ["update"] * 100 + ["delete"] * 50
    versions = [change.version for change in found]
    assert versions == sorted(set(versions))  # type: ignore[type-var]
    assert [(c.before, c.after) for c in found[100:102]] == [
        ({"id": 10, "a": "new"}, {"id": 10, "a": "x10"}),
        ({"id": 11, "a": "new"}, {"id": 11, "a": "x11"}),
    ]


def test_upsert_of_many_rows(store: SqlStore) -> None:
    store.install("items", watch="a")
    found = run(
        store,
        "insert into items (id, a) values (1, 'u'), (2, 'i'), (3, 'i') on conflict (id) do update set a = excluded.a",
    )
    assert sorted((change.key["id"], change.op) for change in found) == [(1, "update"), (2, "create"), (3, "create")]
    rows = load(store, "items", "id", [1, 2, 3])
    assert {change.key["id"]: change.version for change in found} == {key: row[1] for key, row in rows.items()}  # type: ignore[index]


# --- SQLite only -----------------------------------------------------------------------------


@pytest.mark.parametrize("recursive", ["on", "off"])
def test_replace_tells_the_rows_that_it_deletes(sqlite_url: str, recursive: str) -> None:
    """Without recursive_triggers REPLACE fires no delete triggers; an application's connection may have it off."""
    with SqlStore(sqlite_url) as store:
        run(store, "create table people (id integer primary key, email text unique, city text)")
        run(store, "insert into people values (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')")
        store.install("people", watch="city")
        with store.transaction() as tx:
            tx.connection.rollback()
            tx.connection.exec_driver_sql(f"pragma recursive_triggers = {recursive}")
            tx.connection.commit()
            tx.execute("insert or replace into people (id, email, city) values (1, 'b', 'new')")
            found = tx.changes()
        assert found is not None
        assert sorted((c.op, c.key["id"]) for c in found) == [("create", 1), ("delete", 1), ("delete", 2)]
        assert {c.key["id"]: c.before["city"] for c in found if c.before} == {1: "x", 2: "y"}
        assert found[-1].op == "create"
        with store.transaction() as tx:
            tx.execute("update or replace people set id = 3 where id = 1")
            found = tx.changes()
        assert found is not None
        assert [(c.op, c.key["id"]) for c in found] == [("delete", 3), ("delete", 1), ("create", 3)]
        assert load(store, "people", "id", [1, 2, 3])[3][1] == found[-1].version  # type: ignore[index]


def test_ignored_rows_leave_nothing_behind(sqlite_url: str) -> None:
    """What was noted as in the way of a row that did not go in is not told with the next one."""
    with SqlStore(sqlite_url) as store:
        run(store, "create table items (id integer primary key, a text unique)", "insert into items values (1, 'a')")
        store.install("items")
        found = run(
            store,
            "insert or ignore into items (id, a) values (1, 'z')",
            "insert into items (id, a) values (1, 'q') on conflict do nothing",
            "update or ignore items set a = 'a' where id = 1",
            "insert into items (id, a) values (1, 'u') on conflict (id) do update set a = excluded.a",
            "insert into items (id, a) values (2, 'b')",
        )
        assert [(c.op, c.key["id"]) for c in found] == [("update", 1), ("update", 1), ("create", 2)]


def test_values_that_json_does_not_know_do_not_stop_the_write(sqlite_url: str) -> None:
    with SqlStore(sqlite_url) as store:
        run(store, "create table items (id integer primary key, a blob)")
        store.install("items", watch="a")
        found = run(store, "insert into items (id, a) values (1, x'00ff'), (2, 9e999), (3, 1.5), (4, null)")
        assert [c.after["a"] for c in found if c.after] == ["00FF", "Inf", 1.5, None]


def test_own_update_is_told_from_the_applications(sqlite_url: str) -> None:
    """A row whose version the application writes has changed all the same."""
    with SqlStore(sqlite_url) as store:
        run(store, "create table items (id integer primary key, a text)", "insert into items values (1, 'a'), (2, 'b')")
        store.install("items")
        run(store, "update items set a = 'x' where id = 1")
        for written in ("1", "null", "99", "(select max(row_version) from items)"):
            for key in (1, 2):
                found = run(store, f"update items set a = 'y', row_version = {written} where id = {key}")
                assert load(store, "items", "id", [key])[key][1] == found[-1].version  # type: ignore[index]
                assert found[-1].key == {"id": key}


def test_table_without_rowid(sqlite_url: str) -> None:
    with SqlStore(sqlite_url) as store:
        run(store, "create table items (a text, b text, c text, primary key (a, b)) without rowid")
        store.install("items", key=("a", "b"))
        found = run(
            store, "insert into items (a, b) values ('x', 'y')", "update items set b = 'z'", "delete from items"
        )
        assert [c.op for c in found] == ["create", "delete", "create", "delete"]


# --- PostgreSQL only -------------------------------------------------------------------------


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[SqlStore]:
    with SqlStore(postgres_url, lock_timeout="50ms") as store:
        yield store


@pytest.mark.slow
def test_large_live_table_is_not_rewritten(postgres: SqlStore) -> None:
    run(postgres, "create table big (id bigint primary key, a text)")
    run(postgres, "insert into big select i, 'some text' from generate_series(1, 200000) i")
    file = "select relfilenode from pg_class where relname = 'big'"
    with postgres.transaction() as tx:
        before = tx.execute(file).scalar_one()
    done = postgres.install("big")
    with postgres.transaction() as tx:
        assert tx.execute(file).scalar_one() == before
        assert tx.execute("select count(*) from big where row_version = 1").scalar_one() == 200_000
    assert 0 < done.locked_ms < 2000


def test_install_waits_its_turn_without_holding_others_up(postgres: SqlStore, postgres_url: str) -> None:
    """It gives its place in the lock's queue up again, so that readers behind it get theirs."""
    run(postgres, "create table items (id bigint primary key)")
    with sessions(postgres_url, 2) as (long, reader):
        long.execute("begin")
        long.execute("insert into items values (1)")
        done = []
        thread = threading.Thread(target=lambda: done.append(postgres.install("items")))
        thread.start()
        asks = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'lock table%'"
        for waits in (1, 0):  # it asks, and gives up
            deadline = time.monotonic() + 20
            while reader.execute(asks).fetchone() != (waits,):
                assert time.monotonic() < deadline
        reader.execute("select * from items")
        long.execute("commit")
        thread.join(30)
    assert done[0].changed
    assert done[0].attempts > 1


def test_install_gives_up_with_a_word(postgres_url: str) -> None:
    with SqlStore(postgres_url, lock_timeout="1ms") as store, sessions(postgres_url, 1) as (long,):
        run(store, "create table items (id bigint primary key)")
        store._installer._maker._attempts_max = 2  # type: ignore[attr-defined]
        long.execute("begin")
        long.execute("lock table items")
        with pytest.raises(StoreError, match="in use all the time"):
            store.install("items")


def test_writers_go_on_while_the_watch_list_changes(postgres: SqlStore, postgres_url: str) -> None:
    run(postgres, "create table items (id bigint primary key, a text, b text)")
    postgres.install("items")
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        with connect(postgres_url, autocommit=True) as conn:
            key = 0
            while not stop.is_set():
                key += 1
                try:
                    conn.execute("insert into items (id, a) values (%s, 'x')", (key,))
                    conn.execute("update items set b = 'y' where id = %s", (key,))
                except BaseException as error:  # noqa: BLE001 - shown by the test
                    failed.append(error)
                    return

    thread = threading.Thread(target=write)
    thread.start()
    for watch in ("a", ("a", "b"), (), "b"):
        postgres.install("items", watch=watch)
    stop.set()
    thread.join()
    assert failed == []
    with postgres.transaction() as tx:
        rows = tx.execute("select count(*), count(row_version) from items").one()
        told = tx.execute("select count(distinct key) from leasecache_changes").scalar_one()
    assert rows[0] == rows[1] == told


def test_two_installs_at_once(postgres_url: str) -> None:
    with SqlStore(postgres_url) as one, SqlStore(postgres_url) as two:
        run(one, "create table items (id bigint primary key)")
        threads = [threading.Thread(target=store.install, args=("items",)) for store in (one, two, one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.status("items").up_to_date
        assert [c.op for c in run(one, "insert into items values (1)")] == ["create"]


def test_table_in_another_schema(postgres: SqlStore) -> None:
    run(postgres, 'create schema "Sales"', 'create table "Sales".orders (id bigint primary key, a text)')
    run(postgres, "create table orders (id bigint primary key, a text)")
    postgres.install("Sales.orders", watch="a")
    postgres.install("orders")
    found = run(postgres, "insert into \"Sales\".orders values (1, 'x')", "insert into orders values (2, 'y')")
    assert [(c.table, c.key) for c in found] == [("Sales.orders", {"id": 1}), ("orders", {"id": 2})]
    assert load(postgres, "Sales.orders", "id", [1, 2]).keys() == {1}


def test_writer_with_another_search_path_and_few_rights(postgres: SqlStore, postgres_url: str) -> None:
    """The triggers run as their owner and depend on no search_path, not even a hostile one."""
    run(postgres, "create table items (id bigint primary key, a text)")
    postgres.install("items", watch="a")
    run(
        postgres,
        "create role clerk_of_items",
        "create schema evil",
        "create function evil.no(bigint, bigint) returns boolean language sql as 'select false'",
        "create operator evil.= (leftarg = bigint, rightarg = bigint, function = evil.no)",
        "grant usage on schema evil, public to clerk_of_items",
        "grant insert, select, update (a), delete on items to clerk_of_items",
    )
    try:
        with sessions(postgres_url, 3) as (clerk, other, watch):
            clerk.execute("set role clerk_of_items")
            clerk.execute("set search_path = evil, pg_catalog")
            other.execute("begin")
            other.execute("insert into items values (1, 'other')")
            waiting = Waiting(clerk, "insert into public.items values (1, 'late')", watch)
            other.execute("delete from items where id = 1")
            other.execute("commit")
            waiting.done()
            clerk.execute("update public.items set a = 'b'")
        assert [c.op for c in changes(postgres)] == ["create", "delete", "create", "update"]
    finally:
        run(postgres, "drop owned by clerk_of_items", "drop role clerk_of_items")


def test_deferrable_key_is_refused(postgres: SqlStore) -> None:
    """A deferrable index lets an insert in and asks later whether it was right."""
    run(postgres, "create table items (id bigint primary key deferrable)")
    with pytest.raises(ConfigError, match="deferrable"):
        postgres.install("items")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("create table items (id bigint primary key) partition by range (id)", "partitioned table"),
        ("create view items as select 1 as id", "view"),
        ("create table items (id bigint unique)", "may be null"),
    ],
)
def test_what_cannot_be_installed_is_refused(postgres: SqlStore, sql: str, said: str) -> None:
    run(postgres, sql)
    with pytest.raises(ConfigError, match=said):
        postgres.install("items")


def test_disabled_trigger_is_noticed(postgres: SqlStore) -> None:
    run(postgres, "create table items (id bigint primary key)")
    postgres.install("items")
    run(postgres, "alter table items disable trigger zz_leasecache_created")
    assert postgres.status("items").triggers_missing == ("zz_leasecache_created",)


def test_types_of_keys(postgres: SqlStore) -> None:
    run(
        postgres,
        "create table typed (u uuid primary key, n numeric(20, 2), c char(5), b bytea, f float8, j json)",
    )
    postgres.install("typed", key="u", watch=("n", "c", "b", "f", "j"))
    (found,) = run(
        postgres,
        "insert into typed values ('00000000-0000-0000-0000-00000000000a', 12.50, 'ab', '\\x00ff', 'NaN', '{}')",
    )
    assert found.key == {"u": "00000000-0000-0000-0000-00000000000a"}
    assert found.after is not None
    assert str(found.after["n"]) == "12.50"
    assert found.after["f"] == "NaN"
    assert load(postgres, "typed", "u", [found.key["u"]]).keys() == {found.key["u"]}


def test_merge_tells_what_each_branch_did(postgres: SqlStore) -> None:
    run(postgres, "create table items (id bigint primary key, a text)")
    postgres.install("items", watch="a")
    run(postgres, "insert into items values (1, 'u'), (2, 'd')")
    found = run(
        postgres,
        "merge into items t using (values (1), (2), (3)) s(id) on t.id = s.id"
        " when matched and t.a = 'd' then delete when matched then update set a = 'merged'"
        " when not matched then insert values (s.id, 'new')",
    )[2:]
    assert sorted((c.key["id"], c.op) for c in found) == [(1, "update"), (2, "delete"), (3, "create")]
