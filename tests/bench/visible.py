"""How long after a commit is its key void in the cache? The invalidator as a process, over its sources.

`python -m tests.bench.visible [--rate 200] [--seconds 15] [--warm-up 10] [--runs 1] [--only kafka] [--nodes redis]`.
One thread commits updates by plain SQL, one after the other, each of another key; another looks at the items of those
keys in the cache and notes when their floor has risen. So a figure is late by up to one look (its median is printed).

"kafka" is PostgreSQL, Debezium (poll.interval.ms=5, linger.ms=0), Kafka, the source `kafka`; beside it, on the same
topic at the same time, a bare consumer of the same client in a process of its own, from the same commits to the
record in its hands. Of several runs the table has the median of each figure. Every run has a Kafka Connect of its own,
and the first seconds of a JVM are its compiler's: they are the warm-up, and not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.envelope import decode
from cachelib.layout import decode_layout
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, client, until
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaConsumer, TopicPartition, closing
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

KEYS = 2_000
GIVE_UP_S = 10.0
PARTITIONS = 1
NODES: dict[str, Callable[[], RedisServer | MemcachedServer]] = {"redis": RedisServer, "memcached": MemcachedServer}
spawn = get_context("spawn")


@dataclass
class Run:
    """What one run saw, seconds."""

    seen_s: list[float] = field(default_factory=list)
    looks_s: list[float] = field(default_factory=list)
    lost: int = 0
    cpu: float = 0.0
    rate: float = 0.0
    bare_s: list[float] = field(default_factory=list)

    def forget(self) -> None:
        """What was seen in the warm-up."""
        self.seen_s.clear()
        self.looks_s.clear()


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


class Bare:
    """A consumer of the same topic, and nothing else; in a process of its own, as the daemon is."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        here, there = spawn.Pipe()
        self._pipe = here
        self._process = spawn.Process(target=_consume, args=(bootstrap, topic, there), daemon=True)
        self._process.start()
        assert here.recv() == "ready"

    def stop(self) -> dict[str, float]:
        """When it had the record, by the value of the column that every commit sets anew."""
        self._pipe.send("stop")
        seen: dict[str, float] = self._pipe.recv()
        self._process.join(10)
        return seen


def _consume(bootstrap: str, topic: str, pipe: Connection) -> None:
    seen: dict[str, float] = {}
    parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    with closing(KafkaConsumer, bootstrap_servers=bootstrap, fetch_max_wait_ms=100) as consumer:
        consumer.assign(parts)
        consumer.seek_to_end(*parts)
        for part in parts:
            consumer.position(part)
        pipe.send("ready")
        while not pipe.poll():
            for records in consumer.poll(timeout_ms=100).values():
                now_s = time.perf_counter()  # CLOCK_MONOTONIC: the same in all processes
                for record in records:
                    seen[json.loads(record.value)["after"]["tier"]] = now_s
    pipe.recv()
    pipe.send(seen)


def capture(stack: ExitStack, kafka: KafkaServer, postgres: PostgresServer, shop: Shop) -> dict[str, Any]:
    """Debezium on the shop's customers; the daemon's settings."""
    database = shop.url.rpartition("/")[2]
    debezium = Debezium(kafka, postgres, database, ["public.customers"], prefix=database)
    kafka.create_topic(debezium.topic("customers"), PARTITIONS)
    stack.enter_context(debezium)
    return {
        "source": {"kind": "kafka"},
        "kafka": {"bootstrap": [kafka.bootstrap]},
        "kafka_source": {"topics": [debezium.topic("customers")], "group": database},
    }


def measure(
    store_url: str, cache_url: str, options: argparse.Namespace, bus: tuple[KafkaServer, PostgresServer] | None = None
) -> Run:
    run = Run()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        shop = Shop(store_url, customers=KEYS)
        stack.callback(shop.close)
        settings: dict[str, Any] = capture(stack, *bus, shop) if bus else {"source": {"poll": "500ms"}}
        daemon = stack.enter_context(Daemon(Path(folder), store_url, [cache_url], **settings))
        if bus:  # until the new epochs of a node that it did not know are current
            until(lambda: decode_layout(shop.store.read_layout() or b"").next is None)
        bare = Bare(bus[0].bootstrap, settings["kafka_source"]["topics"][0]) if bus else None
        cache = stack.enter_context(client(shop, cache_url))
        cache.get_many(CUSTOMERS, range(KEYS))
        backend = from_url(cache_url)
        stack.callback(backend.close)
        layout = decode_layout(shop.store.read_layout() or b"")
        watcher = Watcher(backend, layout.now.prefix("lc", "customers"), run)
        watcher.start()
        thread = threading.Thread(target=watcher.watch)
        thread.start()
        _commit(shop, watcher, options.rate, options.warm_up, "w")
        until(watcher.idle)
        run.forget()
        process = psutil.Process(daemon.process.pid if daemon.process else 0)
        process.cpu_percent()
        run.rate, committed = _commit(shop, watcher, options.rate, options.seconds)
        run.cpu = process.cpu_percent()
        deadline = time.monotonic() + GIVE_UP_S
        while not watcher.idle() and time.monotonic() < deadline:
            time.sleep(0.01)
        watcher.done.set()
        thread.join()
        if bare is not None:
            had = bare.stop()
            run.bare_s = [had[number] - at_s for number, at_s in committed.items() if number in had]
    return run


def _commit(
    shop: Shop, watcher: Watcher, rate: float, seconds: float, mark: str = ""
) -> tuple[float, dict[str, float]]:
    """The rate that was reached, and when each was committed, by the value it set: `mark` and its number."""
    raw = shop.engine.raw_connection()
    cursor = raw.cursor()
    arg = "?" if shop.url.startswith("sqlite") else "%s"
    began_s, number, committed = time.perf_counter(), 0, {}
    while (now_s := time.perf_counter()) - began_s < seconds:
        due_s = began_s + number / rate
        if now_s < due_s:
            time.sleep(due_s - now_s)
        cursor.execute(f"update customers set tier = {arg} where id = {arg}", (f"{mark}{number}", number % KEYS))
        raw.commit()
        committed[f"{mark}{number}"] = time.perf_counter()
        watcher.committed(number % KEYS)
        number += 1
    raw.close()
    return number / (time.perf_counter() - began_s), committed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--warm-up", type=float, default=10)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", default="sqlite,postgresql,kafka")
    parser.add_argument("--nodes", default=",".join(NODES))
    options = parser.parse_args()
    heads = ("commits/s", "p50 ms", "p90", "p99", "max", "lost", "cpu %", "look ms")
    print(f"{'store -> cache':<28}" + "".join(f"{head:>10}" for head in heads), flush=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        nodes = [NODES[name]() for name in options.nodes.split(",")]
        for node in nodes:
            stack.enter_context(node)
        for kind in options.only.split(","):
            kafka = stack.enter_context(KafkaServer()) if kind == "kafka" else None
            for node in nodes:
                runs = [_run(kind, postgres, kafka, node, options) for _ in range(options.runs)]
                _print(f"{kind} -> {node.name}", runs)


def _run(
    kind: str,
    postgres: PostgresServer,
    kafka: KafkaServer | None,
    node: RedisServer | MemcachedServer,
    options: argparse.Namespace,
) -> Run:
    node.flush()  # positions of another store would make everything void
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            return measure(f"sqlite:///{folder}/shop.db", node.url, options)
        database = postgres.create_database("visible")
        bus = (kafka, postgres) if kafka is not None else None
        found = measure(postgres.url_of(database), node.url, options, bus)
        postgres.drop_database(database)
        return found


def _print(what: str, runs: Sequence[Run]) -> None:
    """The median of each figure, and of kafka the bare consumer's under it."""
    shown = [_figures(run.seen_s) for run in runs]
    looks = statistics.median(look_s for run in runs for look_s in run.looks_s) * 1000
    rate, cpu = statistics.median(run.rate for run in runs), statistics.median(run.cpu for run in runs)
    lost = str(sum(run.lost for run in runs))
    _line(what, [f"{rate:.0f}", *_medians(shown), lost, f"{cpu:.0f}", f"{looks:.2f}"])
    if len(runs) > 1:
        _line("  p50 of each run", [f"{one[0]:.1f}" for one in shown])
        _line("  p99 of each run", [f"{one[2]:.1f}" for one in shown])
    if runs[0].bare_s:
        bare = [_figures(run.bare_s) for run in runs]
        _line("  a bare consumer", ["", *_medians(bare)])
        ratios = [one[0] / other[0] for one, other in zip(shown, bare, strict=True)]
        _line("  p50 over its, of each run", [f"{ratio:.2f}" for ratio in ratios])
        print(f"  median of these: {statistics.median(ratios):.2f}", flush=True)


def _figures(seconds: Sequence[float]) -> list[float]:
    cuts = statistics.quantiles(seconds, n=100)
    return [one * 1000 for one in (cuts[49], cuts[89], cuts[98], max(seconds))]


def _medians(shown: Sequence[Sequence[float]]) -> list[str]:
    return [f"{statistics.median(column):.1f}" for column in zip(*shown, strict=True)]


def _line(what: str, cells: Sequence[str]) -> None:
    print(f"{what:<28}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
