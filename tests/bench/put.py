"""A write-through of a hot key and of 100: round trips to the cache, and CPU beside the bare transaction.

    python -m tests.bench.put [seconds]

SQLite with synchronous off is the store: the slower a commit, the less the cache's part shows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from cachelib import Cache, Entity, Row
from cachelib.stores import SqlStore
from tests.bench._cost import Cost
from tests.bench._interleave import Case, measure_cpu, pin, report, rows_of
from tests.bench._interleave import Row as Line
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer

KEYS = list(range(1, 101))
TRIPS_MAX = {"redis": 1, "memcached": 2}


def _load(tx: Any, keys: Sequence[int]) -> dict[int, Row]:
    found = tx.execute("select id, name, row_version from customers where id in :keys", {"keys": list(keys)})
    return {key: Row({"name": name}, version) for key, name, version in found}


def _many(start: Callable[[], Any], *, commit: bool) -> None:
    with start() as tx:
        tx.execute("update customers set name = name || '' where id <= 100")
        if commit:
            tx.commit()


def _one(start: Callable[[], Any], *, commit: bool) -> None:
    with start() as tx:
        tx.execute("update customers set name = 'z' where id = 1")
        if commit:
            tx.commit()


def main() -> None:
    """Run the table."""
    pin(0)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        store = stack.enter_context(SqlStore(f"sqlite:///{folder}/shop.db"))
        with store.transaction() as tx:
            tx.execute("create table customers (id integer primary key, name text)")
            for key in KEYS:
                tx.execute("insert into customers values (:id, 'x')", {"id": key})
            tx.commit()
        store.install("customers", key="id")
        cases = [
            Case("1 key, the bare transaction", lambda: _one(store.transaction, commit=True)),
            Case("100 keys, the bare transaction", lambda: _many(store.transaction, commit=True)),
        ]
        rows = []
        servers = [stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())]
        for server in servers:
            entity = Entity("customer:{id:int}", table="customers", key="id", load=_load)
            cache = stack.enter_context(Cache(server.url, store=store, entities=[entity]))
            cache.get_many(entity, KEYS)
            for keys, write, against in ((1, _one, cases[0].name), (100, _many, cases[1].name)):
                run: Callable[[], None] = lambda write=write, cache=cache: write(cache.transaction, commit=False)  # type: ignore[misc]  # noqa: E731
                run()
                most, trips = TRIPS_MAX[server.name], Cost(run).trips
                rows.append(Line(f"{keys} keys, {server.name}", trips, "trips", None, f"<= {most}", trips <= most))
                cases.append(Case(f"{keys} keys, Cache.transaction, {server.name}", run, against))
        pids = [server.pid for server in servers]
        found = measure_cpu(cases, pids, seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 15.0)
    report("put", "Write-through after a commit in SQLite, CPU of client and servers", rows_of(cases, found) + rows)


if __name__ == "__main__":
    main()
