"""What versions and the change log cost a writer: the same statements on a table without and with them.

    python -m tests.bench.store_overhead [rounds]

Rounds are interleaved over the tables, in random order; a figure is the median of the calmest quarter
of its slices. Single rows: one statement, one transaction, over the driver, prepared; `ratio` is the time
over that on the bare table. PostgreSQL runs without fsync: on a disk a commit costs all tables alike,
so the ratios of single rows here are the worst case.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cachelib.stores import SqlStore
from tests.bench._interleave import Row, report
from tests.servers.postgresql import PostgresServer

TABLES = ("bare", "plain", "watched")
BULK = 10_000
SINGLE = 60
TARGETS = {"single": 2.0, "bulk": 5.0, "concurrent": 2.0}
"""Double for a row by itself (it is told in a second table); bulk was 15.8 with an inner update each."""

Times = dict[str, list[float]]


def main(rounds: int) -> None:
    """Measure and report."""
    rows: list[Row] = []
    with PostgresServer(synchronous_commit="off", shared_buffers="128MB") as server:
        rows += postgresql(server.url, rounds)
    with tempfile.TemporaryDirectory() as folder:
        rows += sqlite(Path(folder) / "bench.db", rounds)
    report("store_overhead", "Versions and change log: cost to a writer, bare table = 1", rows)


def postgresql(url: str, rounds: int) -> list[Row]:
    """Single rows, bulk statements, several writers, and the library's own steps."""
    with prepared(url) as store, psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as conn:

        def execute(sql: str, params: tuple[Any, ...] = ()) -> None:
            conn.execute(sql, params)

        times: Times = defaultdict(list)
        for _ in range(rounds):
            singles(execute, "%s", times)
            bulks(execute, "select i, 'some text', 1 from generate_series({}, {}) i", times)
            concurrent(url, times)
            conn.execute("truncate leasecache_changes")
            for table in TABLES:  # or dead rows slow one down more than the other
                conn.execute(f"vacuum {table}")
        listened(store, execute, times)
        library(store, times, rounds)
        return rows_of("PostgreSQL", times)


def sqlite(path: Path, rounds: int) -> list[Row]:
    """Single rows (one transaction each, WAL) and bulk statements."""
    with prepared(f"sqlite:///{path}") as store, closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("pragma synchronous = off")

        def execute(sql: str, params: tuple[Any, ...] = ()) -> None:
            conn.execute(sql, params)

        times: Times = defaultdict(list)
        numbers = "with recursive n(i) as (values ({}) union all select i + 1 from n where i < {})"
        for _ in range(rounds):
            singles(execute, "?", times)
            bulks(execute, numbers + " select i, 'some text', 1 from n", times)
            conn.execute("delete from leasecache_changes")
        library(store, times, rounds)
        return rows_of("SQLite", times)


@contextmanager
def prepared(url: str) -> Iterator[SqlStore]:
    """A store with a bare table and two installed ones."""
    with SqlStore(url) as store:
        with store.transaction() as tx:
            for table in TABLES:
                tx.execute(f"create table {table} (id integer primary key, a text, b integer)")
        store.install("plain")
        store.install("watched", watch=("a", "b"))
        yield store


def singles(execute: Callable[..., None], mark: str, times: Times) -> None:
    """Insert, update and delete some rows one by one, each its own transaction."""
    first = random.randrange(10**9)
    for table in random.sample(TABLES, len(TABLES)):
        statements = {
            "insert": f"insert into {table} (id, a, b) values ({mark}, 'some text', 1)",
            "update": f"update {table} set b = b + 1 where id = {mark}",
            "delete": f"delete from {table} where id = {mark}",
        }
        for name, sql in statements.items():
            took = []
            for key in range(first, first + SINGLE):
                began = time.perf_counter()
                execute(sql, (key,))
                took.append(time.perf_counter() - began)
            times[f"single {name}|{table}"].append(statistics.median(took) * 1e6)


def bulks(execute: Callable[..., None], rows: str, times: Times) -> None:
    """The same with one statement for all."""
    source = rows.format(1, BULK)
    for table in random.sample(TABLES, len(TABLES)):
        insert = source.replace("select i", f"insert into {table} (id, a, b) select i", 1)
        if source.startswith("with"):
            head, tail = source.split(" select i, ")
            insert = f"insert into {table} (id, a, b) {head} select i, {tail}"
        for name, sql in (
            ("insert", insert),
            ("update", f"update {table} set b = b + 1 where id <= {BULK}"),
            ("delete", f"delete from {table} where id <= {BULK}"),
        ):
            began = time.perf_counter()
            execute(sql)
            times[f"bulk {name}|{table}"].append((time.perf_counter() - began) * 1e6 / BULK)


def concurrent(url: str, times: Times, writers: int = 4, seconds: float = 0.25) -> None:
    """Several connections insert keys of their own: each draws between the others' draws."""
    for table in random.sample(TABLES, len(TABLES)):
        counts = [0] * writers
        ends = time.monotonic() + seconds

        def write(at: int, table: str = table, counts: list[int] = counts, ends: float = ends) -> None:
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as conn:
                key = random.randrange(10**9)
                while time.monotonic() < ends:
                    key += 1
                    conn.execute(f"insert into {table} (id, a, b) values (%s, 'x', 1) on conflict do nothing", (key,))
                    counts[at] += 1

        threads = [threading.Thread(target=write, args=(at,)) for at in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times[f"concurrent insert, {writers} writers|{table}"].append(seconds * 1e6 / sum(counts))


def listened(store: SqlStore, execute: Callable[..., None], times: Times) -> None:
    """An update while a reader of the log sleeps, so that each commit notifies."""
    stop = threading.Event()

    def sleep() -> None:
        while not stop.is_set():
            store.wait_for_changes(store.log_end(), 0.5)

    execute("insert into plain (id, a, b) values (-1, 'x', 1)")
    reader = threading.Thread(target=sleep)
    reader.start()
    for _ in range(20):
        took = []
        for _ in range(SINGLE):
            began = time.perf_counter()
            execute("update plain set b = b + 1 where id = %s", (-1,))
            took.append(time.perf_counter() - began)
        times["single update, a reader asleep|plain"].append(statistics.median(took) * 1e6)
    stop.set()
    reader.join()


def library(store: SqlStore, times: Times, rounds: int) -> None:
    """What the library's own steps take, connections from the pool included."""
    with store.transaction() as tx:
        tx.execute("delete from plain where id between 1 and 100")
        for key in range(1, 101):
            tx.execute("insert into plain (id, a, b) values (:id, 'x', 1)", {"id": key})
    loader = store.table_loader("plain", "id", "row_version")
    keys = list(range(1, 101))
    position = store.log_end()
    for _ in range(rounds * 10):
        timed(times, "library: transaction, one update", lambda: one_update(store, ask=False))
        timed(times, "library: the same, and changes()", lambda: one_update(store, ask=True))
        timed(times, "library: load of 1 key", lambda: store.load(loader, [7]))
        timed(times, "library: load of 100 keys", lambda: store.load(loader, keys))
        position = store.poll_changes(position, 1000).position
        timed(times, "library: poll, nothing new", lambda position=position: store.poll_changes(position, 1000))


def one_update(store: SqlStore, *, ask: bool) -> None:
    """One write transaction of one row."""
    with store.transaction() as tx:
        tx.execute("update plain set b = b + 1 where id = :id", {"id": 7})
        if ask:
            tx.changes()


def timed(times: Times, case: str, call: Callable[[], object]) -> None:
    """Note how long one call takes."""
    began = time.perf_counter()
    call()
    times[f"{case}|"].append((time.perf_counter() - began) * 1e6)


def rows_of(database: str, times: Times) -> list[Row]:
    """One row for each case and table, with the ratio to the bare table."""
    calm = {name: statistics.median(sorted(took)[: max(1, len(took) // 4)]) for name, took in times.items()}
    rows = []
    for name, value in calm.items():
        case, table = name.split("|")
        bare = calm.get(f"{case.split(',')[0] if 'asleep' in case else case}|bare")
        ratio = value / bare if bare and table != "bare" else None
        target = TARGETS.get(case.split()[0]) if ratio else None
        rows.append(
            Row(
                f"{database}: {case}" + (f", {table}" if table else ""),
                round(value, 2),
                "us/row" if table else "us",
                None if ratio is None else round(ratio, 2),
                None if target is None else f"<= {target}",
                None if ratio is None or target is None else ratio <= target,
            )
        )
    return rows


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
