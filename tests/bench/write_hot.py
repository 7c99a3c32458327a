"""A key that is written 50 times a second while 100 readers want it linearizable: ours beside a cache like Chrono's.

`python -m tests.bench.write_hot [SECONDS]`. One row in a real PostgreSQL; readers are threads in processes of their
own, each asking 20 times a second; one process writes. Both caches stand in front of the same store, one after the
other, on a Redis (and ours on a memcached, too). Hit ratio: the share of reads that did not ask the store.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from cachelib import Cache, Entity, Strong
from cachelib.stores import SqlStore
from tests.bench._chrono import Chrono
from tests.bench._interleave import Row, report
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

HOT = Entity.from_table("hot", key="id", consistency=Strong())
READERS, PROCESSES = 100, 2
READS_PER_S, WRITES_PER_S = 20.0, 50.0
KEY = 1
spawn = get_context("spawn")


@dataclass
class Seen:
    """What the readers saw."""

    reads: int
    hits: int
    p50_ms: float
    p90_ms: float
    backwards: int

    @property
    def ratio(self) -> float:
        """Hits among all reads."""
        return self.hits / max(1, self.reads)


class Ours:
    """This project's cache, with the surface of `Chrono`."""

    def __init__(self, url: str, store: SqlStore) -> None:
        self._cache = Cache(url, store=store, entities=[HOT])

    def read(self, key: int) -> tuple[int, bool]:
        """See `Chrono.read`."""
        found = self._cache.read(HOT, key)
        return int(found.value["count"]), found.source == "hit"

    def write(self, key: int) -> None:
        """See `Chrono.write`."""
        with self._cache.transaction() as tx:
            tx.execute("update hot set count = count + 1 where id = :id", {"id": key})

    def close(self) -> None:
        """See `Chrono.close`."""
        self._cache.close()


FACES: dict[str, Callable[..., Any]] = {"ours": Ours, "chrono": Chrono}


def read(face: str, url: str, store_url: str, threads: int, ready: Any, stop: Any, answers: Any) -> None:
    """One process of readers."""
    with SqlStore(store_url, load_pool_size=8) as store:
        cache = FACES[face](url, store)
        cache.read(KEY)
        ready.release()
        logs: list[list[tuple[float, bool]]] = [[] for _ in range(threads)]
        backwards = [0] * threads
        workers = [
            threading.Thread(target=_reader, args=(cache, number / threads, stop, logs[number], backwards, number))
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        answers.put(([one for log in logs for one in log], sum(backwards)))
        cache.close()


def _reader(cache: Any, phase: float, stop: Any, log: list[Any], backwards: list[int], number: int) -> None:
    due_s, last = time.perf_counter() + phase / READS_PER_S, 0
    while not stop.wait(max(0.0, due_s - time.perf_counter())):
        began_s = time.perf_counter()
        count, hit = cache.read(KEY)
        log.append((time.perf_counter() - began_s, hit))
        backwards[number] += count < last
        last = count
        due_s = max(due_s + 1 / READS_PER_S, time.perf_counter())


def measure(face: str, url: str, store_url: str, seconds: float) -> Seen:
    """One cache, for so long."""
    ready, stop, answers = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    arguments = (face, url, store_url, READERS // PROCESSES, ready, stop, answers)
    processes = [spawn.Process(target=read, args=arguments, daemon=True) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for _ in processes:
        if not ready.acquire(timeout=60):
            raise RuntimeError("the readers did not start")
    with SqlStore(store_url) as store:
        writer = FACES[face](url, store)
        began_s, number = time.perf_counter(), 0
        while (now_s := time.perf_counter()) - began_s < seconds:
            writer.write(KEY)
            number += 1
            time.sleep(max(0.0, began_s + number / WRITES_PER_S - now_s))
        stop.set()
        found = [answers.get(timeout=60) for _ in processes]
        writer.close()
    for process in processes:
        process.join()
    reads = [one for log, _ in found for one in log]
    times_ms = np.array([took_s for took_s, _ in reads]) * 1000
    p50, p90 = np.percentile(times_ms, [50, 90])
    return Seen(len(reads), sum(hit for _, hit in reads), float(p50), float(p90), sum(back for _, back in found))


def store_of(stack: ExitStack) -> str:
    """A PostgreSQL with the row."""
    postgres = stack.enter_context(PostgresServer())
    database = postgres.create_database("hot")
    with postgres.connect(database) as connection:
        connection.execute("create table hot (id int primary key, count bigint not null)")
        connection.execute("insert into hot values (1, 0)")
    with SqlStore(postgres.url_of(database)) as store:
        store.install("hot", key="id")
    return postgres.url_of(database)


def main() -> None:
    """All three."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    rows = []
    with ExitStack() as stack:
        store_url = store_of(stack)
        redis, memcached = stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())
        for case, face, url in (
            ("ours, redis", "ours", redis.url),
            ("ours, memcached", "ours", memcached.url),
            ("like Chrono, redis", "chrono", redis.url),
        ):
            seen = measure(face, url, store_url, seconds)
            target = "> 0.9" if face == "ours" else "< 0.1 is what it is beside"
            met = seen.ratio > 0.9 if face == "ours" else seen.ratio < 0.1
            rows.append(Row(f"{case}: hit ratio", round(seen.ratio, 4), "", None, target, met))
            rows.append(Row(f"{case}: p50", round(seen.p50_ms, 3), "ms"))
            rows.append(Row(f"{case}: p90", round(seen.p90_ms, 3), "ms"))
            print(json.dumps({case: asdict(seen)}))
        report("write_hot", f"One key, {WRITES_PER_S:g} writes/s, {READERS} strong readers", rows)


if __name__ == "__main__":
    main()
