"""How long after a commit is its key void in the cache? The invalidator as a process, its own change log as the source.

`python -m tests.bench.visible [--rate 200] [--seconds 15]`. One thread commits updates by plain SQL, one
after the other, each of another key; another looks at the items of those keys in the cache and notes
when their floor has risen. So a figure is late by up to one look (its median is printed).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.envelope import decode
from cachelib.layout import decode_layout
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, client
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

KEYS = 2_000
GIVE_UP_S = 10.0


@dataclass
class Run:
    """What one run saw, seconds."""

    seen_s: list[float] = field(default_factory=list)
    looks_s: list[float] = field(default_factory=list)
    lost: int = 0
    cpu: float = 0.0
    rate: float = 0.0


class Watcher:
    """Looks at the items whose floor is to rise."""

    def __init__(self, backend: Backend, prefix: bytes, run: Run) -> None:
        self._backend = backend
        self._prefix = prefix
        self._run = run
        self._floors: dict[int, int] = {}
        self._waiting: dict[int, float] = {}
        self.done = threading.Event()

    def start(self) -> None:
        """What is there already is no news."""
        items = self._backend.get_many([self._name(key) for key in range(KEYS)])
        self._floors = {key: decode(raw).floor if raw is not None else 0 for key, raw in enumerate(items)}

    def _name(self, key: int) -> bytes:
        return self._prefix + b"customers:%d" % key

    def committed(self, key: int) -> None:
        self._waiting[key] = time.perf_counter()

    def idle(self) -> bool:
        return not self._waiting

    def watch(self) -> None:
        while not self.done.is_set():
            waiting = list(self._waiting.items())
            if not waiting:
                time.sleep(0.0002)
                continue
            began_s = time.perf_counter()
            items = self._backend.get_many([self._name(key) for key, _ in waiting])
            now_s = time.perf_counter()
            self._run.looks_s.append(now_s - began_s)
            for (key, since_s), raw in zip(waiting, items, strict=True):
                floor = decode(raw).floor if raw is not None else 0
                if floor > self._floors[key]:
                    self._floors[key] = floor
                    self._run.seen_s.append(now_s - since_s)
                    del self._waiting[key]
                elif now_s - since_s > GIVE_UP_S:
                    self._run.lost += 1
                    del self._waiting[key]


def measure(store_url: str, cache_url: str, rate: float, seconds: float) -> Run:
    run = Run()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        shop = Shop(store_url, customers=KEYS)
        stack.callback(shop.close)
        daemon = stack.enter_context(Daemon(Path(folder), store_url, [cache_url], source={"poll": "500ms"}))
        cache = stack.enter_context(client(shop, cache_url))
        cache.get_many(CUSTOMERS, range(KEYS))
        backend = from_url(cache_url)
        stack.callback(backend.close)
        layout = decode_layout(shop.store.read_layout() or b"")
        watcher = Watcher(backend, layout.now.prefix("lc", "customers"), run)
        watcher.start()
        thread = threading.Thread(target=watcher.watch)
        thread.start()
        process = psutil.Process(daemon.process.pid if daemon.process else 0)
        process.cpu_percent()
        run.rate = _commit(shop, watcher, rate, seconds)
        run.cpu = process.cpu_percent()
        deadline = time.monotonic() + GIVE_UP_S
        while not watcher.idle() and time.monotonic() < deadline:
            time.sleep(0.01)
        watcher.done.set()
        thread.join()
    return run


def _commit(shop: Shop, watcher: Watcher, rate: float, seconds: float) -> float:
    raw = shop.engine.raw_connection()
    cursor = raw.cursor()
    mark = "?" if shop.url.startswith("sqlite") else "%s"
    began_s, number = time.perf_counter(), 0
    while (now_s := time.perf_counter()) - began_s < seconds:
        due_s = began_s + number / rate
        if now_s < due_s:
            time.sleep(due_s - now_s)
        cursor.execute(f"update customers set tier = {mark} where id = {mark}", (str(number), number % KEYS))
        raw.commit()
        watcher.committed(number % KEYS)
        number += 1
    raw.close()
    return number / (time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    heads = ("commits/s", "p50 ms", "p90", "p99", "max", "lost", "cpu %", "look ms")
    print(f"{'store -> cache':<24}" + "".join(f"{head:>10}" for head in heads))
    with PostgresServer() as postgres, RedisServer() as cache, MemcachedServer() as memcached:
        for kind in ("sqlite", "postgresql"):
            for node in (cache, memcached):
                with tempfile.TemporaryDirectory() as folder:
                    node.flush()  # positions of another store would make everything void
                    url = f"sqlite:///{folder}/shop.db"
                    if kind == "postgresql":
                        url = postgres.url_of(postgres.create_database("visible"))
                    _print(f"{kind} -> {node.name}", measure(url, node.url, options.rate, options.seconds))


def _print(what: str, run: Run) -> None:
    cuts = statistics.quantiles(run.seen_s, n=100)
    in_ms = [seconds * 1000 for seconds in (cuts[49], cuts[89], cuts[98], max(run.seen_s))]
    look_ms = statistics.median(run.looks_s) * 1000
    cells = [f"{run.rate:.0f}", *(f"{ms:.1f}" for ms in in_ms), str(run.lost), f"{run.cpu:.0f}", f"{look_ms:.2f}"]
    print(f"{what:<24}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
