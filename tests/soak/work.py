"""The load: a process that commits, and one that keeps the cache full of what will be changed next."""

from __future__ import annotations

import random
import threading
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import psycopg

from cachelib import Cache
from cachelib.errors import CacheError
from cachelib.stores import SqlStore
from tests.soak.entities import ITEM_KEYS, ITEMS, LEDGER

AHEAD = 2000
"""So many rows of the ledger are cached as absent before they are inserted."""
CHUNK = 250
_THREADS = 2
_GONE = 0.1

spawn = get_context("spawn")


class Shared:
    """What the processes tell each other."""

    def __init__(self) -> None:
        self.stop = spawn.Event()
        self.committed = spawn.Value("q", 0)
        """Commits so far, of all kinds."""
        self.next_id = spawn.Value("q", 0)
        """The ledger's rows below this one exist, or will in a moment."""
        self.armed_to = spawn.Value("q", 0)
        """Up to here the ledger is cached as absent."""
        self.armed = spawn.Value("q", 0)
        """Rows that were cached as absent before they were inserted; again after each restart of the cache."""
        self.cache_starts = spawn.Value("q", 0)
        """Rises with each restart of the cache: what was kept there has to be read again."""
        self.reads = spawn.Value("q", 0)


def start(target: Any, *arguments: Any) -> BaseProcess:
    """A process that ends with this one."""
    process = spawn.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def write(dsn: str, rate: float, shared: Shared, seed: int) -> None:
    """Commit so often: every other one inserts into the ledger, the rest change items."""
    threads = [
        threading.Thread(target=_write, args=(dsn, rate / _THREADS, shared, seed + number))
        for number in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _write(dsn: str, rate: float, shared: Shared, seed: int) -> None:
    chance = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        began_s, number = time.monotonic(), 0
        while not shared.stop.is_set():
            due_s = began_s + number / rate
            if due_s > (now_s := time.monotonic()):
                time.sleep(due_s - now_s)
            elif now_s - due_s > 1.0:
                began_s, number = now_s, 0  # as fast as it goes, without a burst to make up for what was not
            if number % 2:
                _change(connection, chance)
            else:
                _insert(connection, shared)
            number += 1
            with shared.committed.get_lock():
                shared.committed.value += 1


def _insert(connection: psycopg.Connection[Any], shared: Shared) -> None:
    with shared.next_id.get_lock():
        number = shared.next_id.value
        shared.next_id.value += 1
    connection.execute("insert into ledger (id, note) values (%s, 'there')", [number])


def _change(connection: psycopg.Connection[Any], chance: random.Random) -> None:
    key, note = chance.randrange(ITEM_KEYS), f"{chance.random():.9f}"
    if chance.random() < _GONE:
        connection.execute("delete from items where id = %s", [key])
    elif not connection.execute("update items set note = %s where id = %s", [note, key]).rowcount:
        insert = "insert into items (id, note) values (%s, %s) on conflict (id) do nothing"
        connection.execute(insert, [key, note])


def keep_full(store_url: str, cache_url: str, namespace: str, shared: Shared) -> None:
    """Read what will be inserted, before it is, and the items, all the time."""
    chance, seen = random.Random(1), -1
    with SqlStore(store_url) as store, Cache(cache_url, store=store, namespace=namespace) as cache:
        while not shared.stop.is_set():
            starts, begin = shared.cache_starts.value, shared.next_id.value
            if starts != seen:
                seen, shared.armed_to.value = starts, begin
            first = max(begin, shared.armed_to.value)
            last = min(first + CHUNK, begin + AHEAD)
            try:
                if first < last:
                    cache.get_many(LEDGER, range(first, last))
                    # Those that were inserted meanwhile may have been loaded after it.
                    shared.armed.value += max(0, last - max(first, shared.next_id.value))
                    shared.armed_to.value = last
                cache.get_many(ITEMS, [chance.randrange(ITEM_KEYS) for _ in range(50)])
                shared.reads.value += max(0, last - first) + 50
            except CacheError:
                time.sleep(0.05)  # the cache restarts: what was read may be lost
            time.sleep(0.02)
