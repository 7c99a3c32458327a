"""Of two changes of one key, the one that commits later has the higher version (PROTOCOL.md, "Versions").

Each interleaving is shown to break the naive triggers first: a test that cannot fail proves nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from cachelib.stores import SqlStore
from tests.races.version_log import Waiting, changes, connect, faults, installed, naively, sessions, versions

Make = Callable[[str], SqlStore]

INSERTS = {
    "insert": "insert into items values (1, 'late')",
    "upsert": "insert into items values (1, 'late') on conflict (id) do update set value = excluded.value",
    "insert_select": "insert into items select i, 'late' from generate_series(0, 2) i",
    "copy_like_bulk": "insert into items select i, 'late' from generate_series(1, 500) i",
    "cte": "with a as (insert into items values (1, 'late') returning id) select * from a",
}


def insert_that_waits_for_its_key(url: str, sql: str) -> None:
    """B draws and waits for the index; A deletes the key with a version above B's; B goes in."""
    with sessions(url, 3) as (a, b, watch):
        a.execute("begin")
        a.execute("insert into items values (1, 'first')")
        waiting = Waiting(b, sql, watch)
        a.execute("update items set value = 'second' where id = 1")
        a.execute("delete from items where id = 1")
        a.execute("commit")
        waiting.done()


def key_change_that_waits_for_its_key(url: str) -> None:
    with sessions(url, 3) as (a, b, watch):
        a.execute("insert into items values (7, 'moving')")
        a.execute("begin")
        a.execute("insert into items values (1, 'first')")
        waiting = Waiting(b, "update items set id = 1 where id = 7", watch)
        a.execute("delete from items where id = 1")
        a.execute("commit")
        waiting.done()


@pytest.mark.parametrize("sql", [INSERTS["insert"], INSERTS["insert_select"]], ids=["insert", "insert_select"])
def test_naive_insert_that_drew_before_the_index_is_out_of_order(postgres_url: str, sql: str) -> None:
    with naively(postgres_url) as store:
        insert_that_waits_for_its_key(postgres_url, sql)
        assert faults(changes(store), versions(postgres_url))


def test_naive_key_change_that_drew_before_the_index_is_out_of_order(postgres_url: str) -> None:
    with naively(postgres_url) as store:
        key_change_that_waits_for_its_key(postgres_url)
        assert faults(changes(store), versions(postgres_url))


@pytest.mark.parametrize("sql", INSERTS.values(), ids=INSERTS)
@pytest.mark.parametrize("watch", [(), ("value",)], ids=["plain", "watched"])
def test_insert_draws_after_the_index(postgres_url: str, sql: str, watch: tuple[str, ...]) -> None:
    with installed(postgres_url, watch=watch) as store:
        insert_that_waits_for_its_key(postgres_url, sql)
        log = changes(store)
        assert faults(log, versions(postgres_url)) == []
        last = max((change for change in log if change.key == {"id": 1}), key=lambda change: change.version or 0)
        assert last.op == "create"
        assert last.before is None
        assert last.after == ({"id": 1, "value": "late"} if watch else {"id": 1})


def test_key_change_draws_after_the_index(postgres_url: str) -> None:
    with installed(postgres_url, watch="value") as store:
        key_change_that_waits_for_its_key(postgres_url)
        log = changes(store)
        assert faults(log, versions(postgres_url)) == []
        told = [(c.op, c.key["id"]) for c in sorted(log, key=lambda c: c.version or 0)]
        assert told == [("create", 7), ("create", 1), ("delete", 1), ("delete", 7), ("create", 1)]


def test_insert_after_a_rolled_back_owner_of_its_key_draws_again(postgres_url: str) -> None:
    with installed(postgres_url) as store, sessions(postgres_url, 3) as (a, b, watch):
        a.execute("begin")
        a.execute("insert into items values (1, 'first')")
        waiting = Waiting(b, "insert into items values (1, 'late')", watch)
        a.execute("rollback")
        waiting.done()
        assert faults(changes(store), versions(postgres_url)) == []


def test_insert_in_repeatable_read_draws_after_the_index(postgres_url: str) -> None:
    """Its snapshot sees nothing of what happened in between; the sequence is no part of a snapshot."""
    with installed(postgres_url) as store, sessions(postgres_url, 3) as (a, b, watch):
        a.execute("begin")
        a.execute("insert into items values (1, 'first')")
        b.execute("begin isolation level repeatable read")
        b.execute("select * from items")
        waiting = Waiting(b, "insert into items values (1, 'late')", watch)
        a.execute("delete from items where id = 1")
        a.execute("commit")
        waiting.done()
        b.execute("commit")
        assert faults(changes(store), versions(postgres_url)) == []


def test_row_that_a_users_trigger_changes_while_it_is_born_is_in_order(postgres_url: str) -> None:
    """The application's own AFTER trigger updates each new row, before ours look at it."""
    with installed(postgres_url, watch="value") as store, sessions(postgres_url, 1) as (a,):
        a.execute(
            "create function touch() returns trigger language plpgsql as"
            " $$ begin update items set value = upper(value) where id = new.id; return null; end $$"
        )
        a.execute("create trigger aaa after insert on items for each row execute function touch()")
        a.execute("insert into items values (1, 'a'), (2, 'b')")
        a.execute("delete from items where id = 2")
        log = changes(store)
        rows = versions(postgres_url)
        last = {c.key["id"]: c for c in sorted(log, key=lambda c: c.version or 0)}
        assert last[1].version == rows[1]
        assert last[1].after == {"id": 1, "value": "A"}
        assert last[2].op == "delete"


def test_version_that_the_application_writes_is_not_believed(postgres_url: str) -> None:
    """An ORM that writes whole rows back writes an old version, or none."""
    with installed(postgres_url) as store, sessions(postgres_url, 1) as (a,):
        a.execute("insert into items (id, value, row_version) values (1, 'a', 99999)")
        for written in ("null", "1", "-5", "99999"):
            a.execute(f"update items set value = 'b', row_version = {written} where id = 1")
            log = changes(store)
            assert log[-1].op == "update"
            assert versions(postgres_url) == {1: log[-1].version}
        assert faults(changes(store), versions(postgres_url)) == []


def torment(url: str, seconds: float, seed: int) -> None:
    """One connection's part of the stress: any change of three keys, in any kind of transaction."""
    chance = random.Random(seed)
    with connect(url, autocommit=True) as conn:
        conn.execute("set deadlock_timeout = '5ms'")  # or most of the time is spent waiting for the default second
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                _torment_once(conn, chance)
            except (psycopg.errors.IntegrityError, psycopg.errors.OperationalError):
                conn.rollback()


def _torment_once(conn: psycopg.Connection[Any], chance: random.Random) -> None:
    key, other = chance.sample((1, 2, 3), 2)
    statements = [
        f"insert into items values ({key}, 'a')",
        f"insert into items values ({key}, 'a') on conflict (id) do update set value = 'u'",
        f"insert into items values ({key}, 'a') on conflict do nothing",
        f"update items set value = value || 'x' where id = {key}",
        f"update items set id = {other} where id = {key}",
        f"update items set id = id + 1 where id = {key}",
        f"delete from items where id = {key}",
        "insert into items select i, 'bulk' from generate_series(1, 3) i on conflict do nothing",
        "update items set value = 'all'",
    ]
    if chance.random() < 0.6:
        conn.execute(chance.choice(statements))
        return
    level = chance.choice(("read committed", "repeatable read", "serializable"))
    conn.execute(f"begin isolation level {level}")
    for sql in chance.sample(statements, chance.choice((2, 3))):
        conn.execute("savepoint s")
        try:
            conn.execute(sql)
        except psycopg.errors.UniqueViolation:
            conn.execute("rollback to savepoint s")
    conn.execute(chance.choice(("commit", "commit", "commit", "rollback")))


@pytest.mark.slow
def test_random_changes_of_few_keys_stay_in_order(postgres_url: str) -> None:
    seed = random.randrange(2**32)
    with installed(postgres_url, watch="value") as store:
        threads = [threading.Thread(target=torment, args=(postgres_url, 6.0, seed + n)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log = changes(store)
        assert len(log) > 1000, f"seed {seed}: the stress did nothing"
        assert faults(log, versions(postgres_url)) == [], f"seed {seed}"


@pytest.mark.slow
def test_random_changes_break_the_naive_triggers(postgres_url: str) -> None:
    """The stress above is able to find what it looks for."""
    with naively(postgres_url) as store:
        for attempt in range(5):
            threads = [threading.Thread(target=torment, args=(postgres_url, 2.0, attempt * 10 + n)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if faults(changes(store), versions(postgres_url)):
                return
        pytest.fail("the stress found nothing wrong with the naive triggers")
