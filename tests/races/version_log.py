"""What the tests of versions share: two sessions interleaved by hand, and the rule that a log must keep."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cachelib.model import RowChange
from cachelib.stores import SqlStore

NAIVE = (Path(__file__).parent / "naive_triggers.sql").read_text()


def connect(url: str, **settings: Any) -> psycopg.Connection[Any]:
    """A session without the library, at a store's URL."""
    return psycopg.connect(url.replace("+psycopg", ""), **settings)


def store_of(url: str, **settings: Any) -> SqlStore:
    return SqlStore(url, **settings)


def make_items(url: str) -> None:
    with connect(url) as conn:
        conn.execute("create table items (id bigint primary key, value text)")


def installed(url: str, **settings: Any) -> SqlStore:
    """A store whose table `items` has the triggers under test."""
    make_items(url)
    store = store_of(url)
    store.install("items", **settings)
    return store


def naively(url: str) -> SqlStore:
    """A store whose table `items` has the naive triggers instead."""
    make_items(url)
    store = store_of(url)
    with connect(url) as conn:
        conn.execute("create table other (id int primary key)")
    store.install("other")
    with connect(url) as conn:
        conn.execute(NAIVE)
    return store


class Waiting:
    """A statement in a thread of its own, run to the point where it waits for a lock."""

    def __init__(self, conn: psycopg.Connection[Any], sql: str, watch: psycopg.Connection[Any]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(conn, sql), daemon=True)
        self._thread.start()
        wait_for_lock(watch, conn.info.backend_pid)

    def _run(self, conn: psycopg.Connection[Any], sql: str) -> None:
        try:
            conn.execute(sql)
        except psycopg.Error as error:
            self._error = error

    def done(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "the statement still waits"
        if self._error is not None:
            raise self._error


def wait_for_lock(watch: psycopg.Connection[Any], pid: int) -> None:
    """Until this backend waits for a lock."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        row = watch.execute("select wait_event_type from pg_stat_activity where pid = %s", (pid,)).fetchone()
        if row == ("Lock",):
            return
        time.sleep(0.002)
    raise AssertionError("it never waited")


@contextmanager
def sessions(url: str, count: int) -> Iterator[list[psycopg.Connection[Any]]]:
    opened = [connect(url, autocommit=True) for _ in range(count)]
    try:
        yield opened
    finally:
        for conn in opened:
            conn.close()


def changes(store: SqlStore) -> list[RowChange]:
    """The whole log, in the order in which a reader sees it."""
    found: list[RowChange] = []
    position = store.log_start()
    while batch := store.poll_changes(position, 1000):
        found += [entry.change for entry in batch.entries]
        if not batch.entries:
            break
        position = batch.position
    return found


def faults(log: Iterable[RowChange], rows: dict[Any, int], key: str = "id") -> list[str]:
    """What a cache would stumble over: a key's changes sorted by version must be create, updates,
    delete, create ...; and the last of them must be the row as it is.
    """
    by_key: dict[Any, list[RowChange]] = defaultdict(list)
    for change in log:
        by_key[change.key[key]].append(change)
    found = []
    for value, told in by_key.items():
        told.sort(key=lambda change: change.version or 0)
        alive = False
        for change in told:
            if (change.op == "create") == alive:
                found.append(f"{value}: {change.op} {change.version} while {'alive' if alive else 'gone'}")
            alive = change.op != "delete"
        last = told[-1]
        if alive != (value in rows) or (alive and rows[value] != last.version):
            found.append(f"{value}: ends with {last.op} {last.version}, the row is {rows.get(value, 'gone')}")
    return found


def versions(url: str, table: str = "items", key: str = "id") -> dict[Any, int]:
    with connect(url) as conn:
        return dict(conn.execute(f'select {key}, row_version from "{table}"').fetchall())
