"""A herd: two hundred readers in four processes want one cold key, and the store is asked once.

Processes are started anew (`spawn`), meet at a barrier, and write what they saw to a SQLite file:
each load with its beginning and end, each reader with how long it waited.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachelib import Cache, Entity, LeasePolicy
from cachelib.backends import from_url
from cachelib.entity import FunctionLoader
from tests.integration.client_world import until

PROCESSES, THREADS = 4, 50
LOAD_S = 0.05
HOLD_S = 1.0
ALLOWANCE_S = 6.0
"""What scheduling may add: two hundred Python threads, on a machine that others use too."""

pytestmark = pytest.mark.slow


@pytest.fixture(params=["redis", "memcached"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


class Book:
    """What the processes write down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as db:
            db.execute("create table if not exists notes (at real, pid integer, what text, value text)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=60)
        try:
            with db:
                yield db
        finally:
            db.close()

    def note(self, what: str, value: Any = None) -> None:
        with self._open() as db:
            db.execute("insert into notes values (?, ?, ?, ?)", (time.time(), os.getpid(), what, json.dumps(value)))

    def of(self, what: str) -> list[tuple[int, Any]]:
        """Process and value of each such note, in order."""
        with self._open() as db:
            rows = db.execute("select pid, value from notes where what = ? order by at, rowid", (what,)).fetchall()
        return [(pid, json.loads(value)) for pid, value in rows]


def entity_of(load: Callable[[int], Any], hold_s: float = HOLD_S) -> Entity:
    # A herd of many threads on a busy machine looks for longer than the default.
    lease = LeasePolicy(hold=hold_s, wait="30ms", wait_max="60s")
    return Entity("hot:{n}", load=FunctionLoader(lambda n: load(n)), lease=lease)


def readers(url: str, path: Path, ready: Any, go: Any, hold_s: float) -> None:
    """One process of the herd: its threads read at once, and write down what they got and when."""
    book = Book(path)

    def load(n: int) -> int:
        book.note("begun")
        time.sleep(LOAD_S)
        book.note("finished")
        return n * n

    hot, cache = entity_of(load, hold_s), Cache(from_url(url))
    got: list[tuple[Any, str, float]] = []
    start = threading.Barrier(THREADS)

    def read() -> None:
        start.wait()
        began = time.monotonic()
        found = cache.read(hot, 7)
        got.append((found.value, found.source, time.monotonic() - began))

    threads = [threading.Thread(target=read) for _ in range(THREADS)]
    ready.release()
    go.wait(60)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book.note("got", got)
    cache.close()


def dies_in_its_load(url: str, path: Path) -> None:
    """Takes the lease, begins to load, and never comes back."""
    book = Book(path)

    def load(n: int) -> int:
        book.note("begun")
        book.note("holding")
        time.sleep(600)
        return 0

    Cache(from_url(url)).get(entity_of(load), 7)


@contextmanager
def herd(url: str, path: Path, hold_s: float = HOLD_S) -> Iterator[Callable[[], None]]:
    """The processes, waiting; what is given lets them go. At the end they have all ended well."""
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Semaphore(0), spawn.Event()
    processes = [spawn.Process(target=readers, args=(url, path, ready, go, hold_s)) for _ in range(PROCESSES)]
    try:
        for process in processes:
            process.start()
        for _ in processes:
            assert ready.acquire(timeout=60), "a process of the herd did not start"
        yield go.set
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join(10)
            process.close()


def seen(book: Book) -> list[tuple[Any, str, float]]:
    return [tuple(one) for _, got in book.of("got") for one in got]


def test_two_hundred_readers_in_four_processes_cause_one_load(url: str, tmp_path: Path) -> None:
    book = Book(tmp_path / "book.db")
    with herd(url, book.path, hold_s=20) as let_go:  # no lease ends because the machine is busy
        let_go()
    assert len(book.of("begun")) == len(book.of("finished")) == 1
    got = seen(book)
    assert len(got) == PROCESSES * THREADS
    assert {value for value, _, _ in got} == {49}
    assert sum(source == "filled" for _, source, _ in got) == 1
    assert {source for _, source, _ in got} <= {"filled", "joined", "hit"}
    assert max(waited for _, _, waited in got) < LOAD_S + ALLOWANCE_S


def test_when_the_one_that_loads_is_killed_another_loads_and_no_more(url: str, tmp_path: Path) -> None:
    book = Book(tmp_path / "book.db")
    spawn = multiprocessing.get_context("spawn")
    with herd(url, book.path) as let_go:
        holder = spawn.Process(target=dies_in_its_load, args=(url, book.path))
        holder.start()
        until(lambda: book.of("holding"), "the lease of the process that is going to die")
        let_go()
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(10)
        holder.close()
    assert len(book.of("begun")) == 2
    assert len(book.of("finished")) == 1
    got = seen(book)
    assert len(got) == PROCESSES * THREADS
    assert {value for value, _, _ in got} == {49}
    assert max(waited for _, _, waited in got) < HOLD_S + LOAD_S + ALLOWANCE_S


def test_a_herd_on_a_warm_key_loads_nothing(url: str, tmp_path: Path) -> None:
    book = Book(tmp_path / "book.db")
    with Cache(from_url(url)) as cache:
        cache.get(entity_of(lambda n: 49), 7)
    with herd(url, book.path) as let_go:
        let_go()
    assert book.of("begun") == []
    assert {source for _, source, _ in seen(book)} == {"hit"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_a_holder_that_sleeps_through_its_lease_stores_nothing_over_what_came_after(url: str, tmp_path: Path) -> None:
    """Lease, load, the process is stopped · the lease ends, another fills · it goes on: its fill is refused."""
    book = Book(tmp_path / "book.db")
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=loads_slowly, args=(url, book.path))
    process.start()
    until(lambda: book.of("holding"), "the lease of the process that is going to sleep")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with Cache(from_url(url)) as cache:
            newer = entity_of(lambda n: "newer")
            assert cache.read(newer, 7).value == "newer"
            _go(book.path).touch()
            os.kill(process.pid, signal.SIGCONT)
            process.join(60)
            assert book.of("got")[0][1] == ["older", "store"]
            assert (cache.read(newer, 7).value, cache.read(newer, 7).source) == ("newer", "hit")
    finally:
        process.kill()  # one that still sleeps would be waited for at the end of the tests
        process.join()
        process.close()


def _go(book: Path) -> Path:
    """Not in the book: whoever is stopped while he looks into it keeps it locked."""
    return book.with_name("go on")


def loads_slowly(url: str, path: Path) -> None:
    book = Book(path)

    def load(n: int) -> str:
        book.note("holding")
        until(lambda: _go(path).exists(), "the end of the sleep")
        return "older"

    cache = Cache(from_url(url))
    found = cache.read(entity_of(load), 7)
    book.note("got", [found.value, found.source])
    cache.close()
