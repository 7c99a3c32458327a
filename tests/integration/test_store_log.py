"""The change log as a source: no late commit is skipped, watermarks are true, gaps are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cachelib.errors import ConfigError, LogGap
from cachelib.stores import SqlStore
from tests.races.version_log import connect, sessions

BOTH = ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.server)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def prepared(url: str, **settings: object) -> SqlStore:
    store = SqlStore(url, **settings)  # type: ignore[arg-type]
    with store.transaction() as tx:
        tx.execute("create table items (id integer primary key, value text)")
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


def insert(store: SqlStore, *keys: int) -> None:
    with store.transaction() as tx:
        for key in keys:
            tx.execute("insert into items (id) values (:id)", {"id": key})


def keys(store: SqlStore, after: str = "", limit: int = 100) -> list[int]:
    return [entry.change.key["id"] for entry in store.poll_changes(after, limit).entries]


def test_poll_goes_on_where_the_last_one_ended(store: SqlStore) -> None:
    insert(store, 1, 2, 3)
    first = store.poll_changes(store.log_start(), 2)
    assert [entry.change.key["id"] for entry in first.entries] == [1, 2]
    assert first.position == first.entries[-1].position
    second = store.poll_changes(first.position, 2)
    assert [entry.change.key["id"] for entry in second.entries] == [3]
    assert store.poll_changes(second.position, 2).entries == ()
    assert store.poll_changes(second.position, 2).position == second.position


def test_positions_sort_as_the_log_does(store: SqlStore) -> None:
    for key in range(12):
        insert(store, key)
    positions = [entry.position for entry in store.poll_changes("", 100).entries]
    assert positions == sorted(positions)
    assert len(set(positions)) == 12


def test_nothing_before_log_end_and_everything_after_it(store: SqlStore) -> None:
    insert(store, 1)
    end = store.log_end()
    assert keys(store, end) == []
    insert(store, 2)
    assert keys(store, end) == [2]


def test_watermark_is_the_clock_before_the_snapshot(store: SqlStore) -> None:
    before_us = store.now_us()
    insert(store, 1)
    batch = store.poll_changes("", 100)
    assert batch.watermark_us is not None
    assert before_us <= batch.watermark_us <= store.now_us()


def test_cut_off_batch_does_not_claim_what_it_has_not_given(store: SqlStore) -> None:
    insert(store, 1)
    store.poll_changes("", 100)
    time.sleep(0.002)  # SQLite's triggers tell milliseconds
    insert(store, 2)
    batch = store.poll_changes("", 1)
    late = store.poll_changes(batch.position, 100).entries[0].change
    assert batch.watermark_us is None or batch.watermark_us <= late.at_us


def test_wait_returns_at_once_where_there_is_something(store: SqlStore) -> None:
    insert(store, 1)
    begun = time.monotonic()
    store.wait_for_changes("", 30)
    assert time.monotonic() - begun < 10


def test_wait_returns_when_the_time_is_up(store: SqlStore) -> None:
    insert(store, 1)
    position = store.poll_changes("", 100).position
    begun = time.monotonic()
    store.wait_for_changes(position, 0.05)
    assert 0.04 <= time.monotonic() - begun < 10


def test_wait_is_ended_by_a_commit(store: SqlStore) -> None:
    insert(store, 1)
    position = store.poll_changes("", 100).position
    waiting = threading.Thread(target=store.wait_for_changes, args=(position, 60))
    waiting.start()
    insert(store, 2)
    waiting.join(20)
    assert not waiting.is_alive()
    assert keys(store, position) == [2]


def test_consumer_is_remembered(store: SqlStore) -> None:
    assert store.load_consumer("bus") is None
    store.save_consumer("bus", store.log_end())
    store.save_consumer("bus", position := store.log_end())
    assert store.load_consumer("bus") == position
    store.drop_consumer("bus")
    assert store.load_consumer("bus") is None


def test_purge_waits_for_the_slowest_consumer(url: str) -> None:
    with prepared(url, retention=0, retention_max="7d") as store:
        insert(store, 1, 2, 3)
        entries = store.poll_changes("", 100).entries
        store.save_consumer("fast", entries[2].position)
        store.save_consumer("slow", entries[0].position)
        time.sleep(0.002)
        assert store.purge() == 1
        assert keys(store, entries[0].position) == [2, 3]
        store.drop_consumer("slow")
        assert store.purge() == 2
        assert store.log_start() == entries[2].position
        assert store.purge() == 0


def test_purge_keeps_what_is_younger_than_the_retention(url: str) -> None:
    with prepared(url, retention="1h") as store:
        insert(store, 1)
        store.save_consumer("fast", store.log_end())
        assert store.purge() == 0
        assert keys(store) == [1]


def test_consumer_left_behind_by_the_purge_has_a_gap(url: str) -> None:
    with prepared(url, retention=0, retention_max=0) as store:
        insert(store, 1, 2)
        behind = store.poll_changes("", 1).position
        store.save_consumer("slow", behind)
        time.sleep(0.002)
        assert store.purge() == 2
        with pytest.raises(LogGap, match="purged"):
            store.poll_changes(behind, 100)
        with pytest.raises(LogGap, match="purged"):
            store.poll_changes("", 100)
        insert(store, 3)
        assert keys(store, store.log_start()) == [3]


def test_purge_of_many_goes_in_portions(url: str) -> None:
    with prepared(url, retention=0) as store:
        with store.transaction() as tx:
            tx.execute(
                "with recursive n(i) as (select 1 union all select i + 1 from n where i < 12000)"
                " insert into items (id) select i from n"
            )
        time.sleep(0.002)
        assert store.purge() == 12000


def test_position_from_the_lost_future_is_a_gap(store: SqlStore) -> None:
    """A store restored from a backup does not know what came after it."""
    insert(store, 1)
    ahead = store.log_end().replace("000", "009", 1)
    with pytest.raises(LogGap, match="went back"):
        store.poll_changes(ahead, 100)


@pytest.mark.parametrize("wrong", ["yesterday", "12.", "1.2.3", "-1", "9" * 20])
def test_wrong_position_is_refused(store: SqlStore, wrong: str) -> None:
    with pytest.raises(ConfigError, match="not a position"):
        store.poll_changes(wrong, 100)


def test_highest_version_rises_with_changes(store: SqlStore) -> None:
    before = store.highest_version()
    insert(store, 1, 2)
    assert store.highest_version() == before + 2


# --- PostgreSQL only: identity order is not commit order ---------------------------------------


def test_reading_by_the_last_number_loses_a_late_commit(postgres: SqlStore, postgres_url: str) -> None:
    """Why the log is not read as `where version > :last`: a draws first and commits last."""
    with sessions(postgres_url, 3) as (a, b, reader):
        a.execute("begin")
        a.execute("insert into items values (1)")
        b.execute("insert into items values (2)")
        naive = reader.execute("select max(version) from leasecache_changes").fetchone()
        ours = postgres.poll_changes("", 100)
        a.execute("commit")
        lost = reader.execute("select * from leasecache_changes where version > %s", naive).fetchall()
        assert lost == []
        assert ours.entries == ()
        assert keys(postgres, ours.position) == [1, 2]


def test_transaction_that_begins_first_and_writes_last_is_not_lost(postgres: SqlStore, postgres_url: str) -> None:
    with sessions(postgres_url, 2) as (a, b):
        a.execute("begin")
        a.execute("select pg_current_xact_id()")
        b.execute("insert into items values (2)")
        first = postgres.poll_changes("", 100)
        a.execute("insert into items values (1)")
        a.execute("commit")
        assert first.entries == ()
        assert keys(postgres, first.position) == [1, 2]


def test_watermark_waits_for_a_long_transaction(postgres: SqlStore, postgres_url: str) -> None:
    with sessions(postgres_url, 2) as (a, b):
        insert(postgres, 0)
        position = postgres.poll_changes("", 100).position
        a.execute("begin")
        a.execute("insert into items values (1)")
        begun_us = postgres.now_us()
        for key in range(2, 6):
            b.execute(f"insert into items values ({key})")
            batch = postgres.poll_changes(position, 100)
            assert batch.entries == ()
            assert batch.watermark_us is not None
            assert batch.watermark_us < begun_us
        a.execute("commit")
        batch = postgres.poll_changes(position, 100)
        assert [entry.change.key["id"] for entry in batch.entries] == [1, 2, 3, 4, 5]
        assert batch.watermark_us is not None
        assert batch.watermark_us > begun_us


def test_watermark_is_claimed_while_writers_never_pause(postgres: SqlStore, postgres_url: str) -> None:
    """With overlapping transactions xmin never reaches the newest xmax; it passes older ones."""
    with sessions(postgres_url, 2) as (a, b):
        claims = []
        position = ""
        running, other = a, b
        running.execute("begin")
        running.execute("insert into items values (0)")
        for key in range(1, 6):
            other.execute("begin")
            other.execute(f"insert into items values ({key})")
            running.execute("commit")
            running, other = other, running
            batch = postgres.poll_changes(position, 100)
            position = batch.position
            claims.append(batch.watermark_us)
        running.execute("commit")
        assert claims == sorted(claims, key=lambda us: us or 0)
        assert len({us for us in claims if us}) >= 3


@pytest.mark.slow
def test_no_watermark_is_claimed_before_an_older_commit_was_given(postgres: SqlStore, postgres_url: str) -> None:
    """Writers note the clock once their commit is acknowledged; a later watermark must have given that row."""
    acknowledged: dict[int, int] = {}
    stop = threading.Event()

    def write(first: int) -> None:
        with connect(postgres_url, autocommit=True) as conn:
            key = first
            while not stop.is_set():
                conn.execute("begin")
                conn.execute(f"insert into items values ({key})")
                if key % 7 == 0:
                    conn.execute("select pg_sleep(0.02)")
                conn.execute("commit")
                row = conn.execute("select (extract(epoch from clock_timestamp()) * 1000000)::bigint").fetchone()
                assert row is not None
                acknowledged[key] = row[0]
                key += 10

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    given: set[int] = set()
    position, wrong, polls = "", [], 0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        batch = postgres.poll_changes(position, 40)
        given |= {entry.change.key["id"] for entry in batch.entries}
        position = batch.position
        polls += 1
        if batch.watermark_us is not None:
            wrong += [key for key, us in dict(acknowledged).items() if us <= batch.watermark_us and key not in given]
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(given) > 100 < polls


def test_commit_behind_a_long_transaction_does_not_wake_in_vain_for_ever(postgres: SqlStore, postgres_url: str) -> None:
    """What has committed but is not safe to read yet ends no wait; the end of the long one does."""
    with sessions(postgres_url, 1) as (a,):
        position = postgres.log_end()
        a.execute("begin")
        a.execute("insert into items values (1)")
        insert(postgres, 2)
        begun = time.monotonic()
        postgres.wait_for_changes(position, 0.1)
        assert time.monotonic() - begun >= 0.1
        waiting = threading.Thread(target=postgres.wait_for_changes, args=(position, 60))
        waiting.start()
        a.execute("commit")
        waiting.join(20)
        assert not waiting.is_alive()


def test_the_place_of_a_time_is_before_every_change_made_since(store: SqlStore) -> None:
    insert(store, 1, 2)
    time.sleep(0.01)
    then_us = store.now_us()
    time.sleep(0.01)
    insert(store, 3, 4)
    assert keys(store, store.log_at(then_us)) == [3, 4]
    assert keys(store, store.log_at(0)) == [1, 2, 3, 4]
    assert keys(store, store.log_at(store.now_us() + 60_000_000)) == []


def test_sqlite_has_no_snapshots_by_number(sqlite_url: str) -> None:
    with prepared(sqlite_url) as store:
        assert store.snapshot() is None
