"""How many changes does one process of the invalidator apply in a second, and where does its time go?

`python -m tests.bench.invalidator [--events 200000] [--clients kafka-python,confluent]`. A topic of four partitions
holds Debezium's JSON of 575 bytes, about 100 000 keys that are all cached. A real process drains it into a real
Redis, then Memcached, with positions and looks on. Beside it, in the same run, its bare parts alone: the same
client's consumer, the decoder, the script or CAS calls; and what a naive invalidator does, a pipelined UNLINK loop.

`ratio` of a throughput is to the rate that the bare parts add up to, one after the other. The table is also in
build/bench/invalidator.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from cachelib import Cache, Entity
from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.layout import Layout, decode_layout
from cachelib.stores import SqlStore
from invalidator.config import load
from invalidator.daemon import rest_the_collector
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.positions import found, note_names
from invalidator.rules import Rules
from invalidator.session import batch_for
from invalidator.sources.base import Event, Record
from invalidator.sources.kafka_open import builder
from invalidator.sources.kafka_places import Part, offset_of
from invalidator.sources.kafka_records import Records
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaProducer, closing
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

KEYS = 100_000
PARTITIONS = 4
BYTES = 575
BATCH = 1000
CUSTOMERS = Entity.from_table("customers", key="id", ttl="2h")
WANTED = 0.75
EXPECTED = {("kafka-python", "redis"): 50_000, ("confluent", "redis"): 90_000}
OUT = Path("build/bench/invalidator.json")
_ROOT = Path(__file__).parents[2]


@dataclass
class Row:
    """One line of the table. `ratio` and `target` are empty where there is nothing to compare with."""

    case: str
    value: float
    unit: str
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


class Bench:
    """The servers, the topic, and what was found."""

    def __init__(self, stack: ExitStack, events: int) -> None:
        self.events = events
        self.rows: list[Row] = []
        self.topic = ""
        self.kafka = stack.enter_context(KafkaServer())
        self.postgres = stack.enter_context(PostgresServer())
        self.redis = stack.enter_context(RedisServer())
        self.memcached = stack.enter_context(MemcachedServer(memory_mb=512))
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (self.folder / "bench_entities.py").write_text(
            "from cachelib import Entity\ncustomers = Entity.from_table('customers', key='id', ttl='2h')\n"
        )
        self.store_url = self.postgres.url_of(self.postgres.create_database("bench"))
        self.store = stack.enter_context(SqlStore(self.store_url))
        self._fill()

    def add(self, case: str, value: float, unit: str, ratio: float | None = None, target: str = "") -> None:
        """One more row, printed at once."""
        met = None if not target or ratio is None else ratio >= WANTED
        self.rows.append(Row(case, round(value, 2), unit, None if ratio is None else round(ratio, 3), target, met))
        shown = "" if ratio is None else f"{ratio:.2f}"
        print(f"{case:<58}{value:>12,.1f} {unit:<10}{shown:>6} {target}", flush=True)

    def _fill(self) -> None:
        with self.postgres.connect(self.store_url.rpartition("/")[2]) as connection:
            connection.execute("create table customers (id int primary key, tier text, email text)")
            rows = f"select g, 'plain', 'customer-' || g || '@example.com' from generate_series(0, {KEYS - 1}) g"
            connection.execute(f"insert into customers (id, tier, email) {rows}")
            found = connection.execute("select txid_current()").fetchone()
        self.tx = int(found[0]) if found else 3
        self.store.install("customers")
        with self.postgres.connect(self.store_url.rpartition("/")[2]) as connection:
            # Versions above the store's last would say that it went back.
            connection.execute("select setval('leasecache_version', 1000000000)")

    # --- settings and the topic --------------------------------------------------------------

    def settings(self, client: str, node: str) -> dict[str, Any]:
        """Those of a configuration's file."""
        return {
            "caches": [node],
            "entities": ["bench_entities"],
            "store": {"url": self.store_url},
            "http": {"port": -1},
            "log": {"level": "error"},
            "source": {"kind": "kafka"},
            "kafka": {"bootstrap": [self.kafka.bootstrap]},
            "kafka_source": {"topics": [self.topic], "group": f"bench-{client}-{node[:5]}", "client": client},
        }

    def new_topic(self, name: str) -> None:
        """Each case has its own."""
        self.topic = f"{name}.public.customers"
        self.kafka.create_topic(self.topic, PARTITIONS)

    def produce(self) -> None:
        """Fill the topic."""
        with closing(KafkaProducer, bootstrap_servers=self.kafka.bootstrap, linger_ms=50, batch_size=1 << 18) as out:
            for number in range(self.events):
                key = number * 7919 % KEYS  # every key in turn, in no order
                value = event(key, version=10 + number, tx=self.tx)
                out.send(self.topic, value, b'{"id":%d}' % key, partition=key % PARTITIONS)
            out.flush()

    def drop(self) -> None:
        """The topic is not needed any more."""
        self.kafka.delete_topic(self.topic)


def event(key: int, version: int, tx: int) -> bytes:
    """What Debezium writes for an update, without schemas."""
    source = (
        '{"version":"3.5.0.Final","connector":"postgresql","name":"shop","ts_ms":1795414383820,"snapshot":"false",'
        f'"db":"shop","sequence":"[\\"26657288\\",\\"26657344\\"]","ts_us":1795414383820835,'
        f'"ts_ns":1795414383820835000,"schema":"public","table":"customers","txId":{tx},"lsn":26657344,"xmin":null}}'
    )
    after = f'{{"id":{key},"tier":"gold","email":"","row_version":{version}}}'
    text = f'{{"before":null,"after":{after},"source":{source},"transaction":null,"op":"u","ts_ms":1795414384434}}'
    return text.replace('"email":""', f'"email":"{"x" * (BYTES - len(text))}"').encode()


# --- the bare parts ------------------------------------------------------------------------------


@dataclass
class Cost:
    """Microseconds for each event: of the clock, and of this process's CPU."""

    wall_us: float
    cpu_us: float


def timed(events: int, deed: Callable[[], object]) -> Cost:
    """What it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    deed()
    return Cost((time.perf_counter() - wall) / events * 1e6, (time.process_time() - cpu) / events * 1e6)


def consumed(bench: Bench, client: str) -> tuple[Cost, list[Record]]:
    """The consumer alone: its cost, and the records."""
    settings = load(None, {}, bench.settings(client, bench.redis.url))
    reader = builder(settings, open_log(settings.log))()
    parts = [Part(bench.topic, number) for number in range(PARTITIONS)]
    reader.assign(parts)
    reader.seek(dict.fromkeys(parts, 0))
    records: list[Record] = list(reader.poll(2000, 10.0))
    before = len(records)

    def read() -> None:
        while len(records) < bench.events:
            records.extend(reader.poll(2000, 1.0))

    cost = timed(bench.events - before, read)
    reader.close(2.0)
    return cost, records


def batches(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """By the thousand, as the daemon has them."""
    return (things[at : at + BATCH] for at in range(0, len(things), BATCH))


class Told:
    """What a node is told, made from the records by the daemon's own parts, each timed."""

    def __init__(self, records: Sequence[Record], layout: Layout, topic: str) -> None:
        reader = Records({topic: "debezium"}, snapshots=False, metrics=Metrics())
        rules = Rules([CUSTOMERS])
        events: list[list[Event]] = []
        readings: list[Any] = []
        self.batches: list[Any] = []
        ids = {topic: "x"}
        several = list(batches(records))
        self.decode = timed(len(records), lambda: events.extend(reader.read(one, ids).events for one in several))
        self.rules = timed(len(records), lambda: readings.extend(rules.read(one) for one in events))
        self.naming = timed(
            len(records), lambda: self.batches.extend(batch_for(layout, "lc", one.effects) for one in readings)
        )


def applied(backend: Backend, told: Told, events: int) -> Cost:
    """The script or CAS calls alone."""
    now_ms = time.time_ns() // 1_000_000

    def apply() -> None:
        for batch in told.batches:
            backend.apply(batch, {}, now_ms)

    return timed(events, apply)


def unlinked(url: str, told: Told, events: int) -> Cost:
    """A naive invalidator's half: UNLINK, a thousand in a pipeline."""
    plain = redis.Redis.from_url(url)

    def unlink() -> None:
        for batch in told.batches:
            pipeline = plain.pipeline(transaction=False)
            for name, _ in batch:
                pipeline.unlink(name)
            pipeline.execute()

    cost = timed(events, unlink)
    plain.close()
    return cost


# --- the whole -----------------------------------------------------------------------------------


class Process:
    """The daemon, as a process of its own."""

    def __init__(self, bench: Bench, client: str, node: str) -> None:
        settings = bench.settings(client, node)
        self._config, self._threads = bench.folder / "config.toml", bench.folder / "threads.json"
        self._config.write_text(toml(settings))
        self._threads.unlink(missing_ok=True)
        self._bench = bench
        self._node = node

    def __enter__(self) -> Process:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench._daemon", str(self._config), str(self._threads)],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": f"{_ROOT}:{self._bench.folder}"},
        )
        self._ps = psutil.Process(self._process.pid)
        return self

    def cpu_s(self) -> Mapping[str, float]:
        """By thread, what it has used so far."""
        names = json.loads(self._threads.read_text()) if self._threads.exists() else {}
        used: dict[str, float] = {}
        for thread in self._ps.threads():
            name = str(names.get(str(thread.id), "others")).partition(" ")[0]
            used[name] = used.get(name, 0.0) + thread.user_time + thread.system_time
        return used

    def rss_mb(self) -> float:
        """Its memory."""
        return float(self._ps.memory_info().rss) / 1e6

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def toml(settings: Mapping[str, Any]) -> str:
    """For a file."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, Mapping)]
    for name, value in settings.items():
        if isinstance(value, Mapping):
            lines += [f"[{name}]", *(f"{inner} = {json.dumps(given)}" for inner, given in value.items())]
    return "\n".join(lines)


def progress(backend: Backend, topic: str) -> int:
    """How many records the node's positions say; -1 where it has none yet."""
    parts = [f"{topic}-{number}" for number in range(PARTITIONS)]
    names = [name for part in parts for name in note_names("lc", "invalidator", part)]
    positions = found(parts, backend.read_notes(names)).positions
    return sum(map(offset_of, positions.values())) if len(positions) == PARTITIONS else -1


def warm(bench: Bench, node: str) -> None:
    """All keys are cached."""
    with Cache(node, store=bench.store) as cache:
        for chunk in batches(range(KEYS)):
            cache.get_many(CUSTOMERS, chunk)
        hits = sum(read.source == "hit" for read in cache.read_many(CUSTOMERS, range(0, KEYS, 997)).values())
    if hits < KEYS // 997:
        raise SystemExit(f"the cache keeps {hits} of {len(range(0, KEYS, 997))} keys")


@dataclass
class Drained:
    """One drain. `cpu_us`: for each event, by thread."""

    rate: float
    cpu_us: Mapping[str, float]
    rss_mb: float


def drained(bench: Bench, client: str, server: RedisServer | MemcachedServer) -> Drained:
    """The daemon from a topic that is full to one that is applied."""
    backend = from_url(server.url)
    bench.new_topic(f"{client}-{server.name}")
    with Process(bench, client, server.url):  # a new consumer begins at the log's end: so it is made known first
        until(lambda: progress(backend, bench.topic) == 0, 60)
        time.sleep(2.0)  # the first offset is committed
        until(lambda: decode_layout(bench.store.read_layout() or b"").next is None, 60)
    bench.produce()
    warm(bench, server.url)
    with Process(bench, client, server.url) as process:
        until(lambda: progress(backend, bench.topic) > bench.events * 0.05, 60)
        begun, cpu, began_s = progress(backend, bench.topic), process.cpu_s(), time.perf_counter()
        until(lambda: progress(backend, bench.topic) >= bench.events, 300)
        took_s, after, rss_mb = time.perf_counter() - began_s, process.cpu_s(), process.rss_mb()
    backend.close()
    done = bench.events - begun
    used = {name: (after[name] - cpu.get(name, 0.0)) / done * 1e6 for name in after}
    return Drained(done / took_s, {name: us for name, us in used.items() if us > 0.05}, rss_mb)


def until(said: Callable[[], object], wait_s: float) -> None:
    """Wait until something is true."""
    deadline_s = time.monotonic() + wait_s
    while not said():
        if time.monotonic() > deadline_s:
            raise SystemExit("the daemon does not get on")
        time.sleep(0.05)


# --- the table -----------------------------------------------------------------------------------


def measure(bench: Bench, client: str) -> None:
    """All cases of one client."""
    for server in (bench.redis, bench.memcached):
        node = server.name
        whole = drained(bench, client, server)
        consume, records = consumed(bench, client)
        rest_the_collector()  # as the daemon does: 200 000 records would be looked through again and again
        raw = bench.store.read_layout()
        layout = decode_layout(raw or b"")
        told = Told(records, layout, bench.topic)
        server.flush()  # the floors that the daemon left are above all that the store has
        warm(bench, server.url)
        backend = from_url(server.url)
        apply = applied(backend, told, bench.events)
        backend.close()
        bench.drop()
        parts_us = consume.wall_us + told.decode.wall_us + apply.wall_us
        where = f"{client} -> {node}"
        expected = EXPECTED.get((client, node))
        target = f">= {WANTED} of the parts" + (f", about {expected:,}/s" if expected else "")
        bench.add(f"{where}: the daemon", whole.rate, "events/s", whole.rate * parts_us / 1e6, target)
        bench.add(f"{where}: what the bare parts add up to", 1e6 / parts_us, "events/s")
        bench.add(f"{where}: bare consumer", 1e6 / consume.wall_us, "events/s")
        bench.add(f"{where}: decoding alone", 1e6 / told.decode.wall_us, "events/s")
        bench.add(f"{where}: script or CAS calls alone", 1e6 / apply.wall_us, "events/s")
        if server is bench.redis:
            naive = unlinked(server.url, told, bench.events)
            bench.add(f"{where}: bare UNLINK loop", 1e6 / naive.wall_us, "events/s")
            both = consume.wall_us + naive.wall_us
            bench.add(f"{where}: consumer and UNLINK, one after the other", 1e6 / both, "events/s")
        for stage, cost in (
            ("consumer", consume),
            ("decoding", told.decode),
            ("keys of changes", told.rules),
            ("names of keys", told.naming),
            ("script or CAS calls", apply),
        ):
            bench.add(f"{where}: CPU, {stage} alone", cost.cpu_us, "µs/event")
        for thread, us in sorted(whole.cpu_us.items()):
            bench.add(f"{where}: CPU of the daemon, thread {thread}", us, "µs/event")
        bench.add(f"{where}: CPU of the daemon", sum(whole.cpu_us.values()), "µs/event")
        bench.add(f"{where}: memory of the daemon", whole.rss_mb, "MB")


def main() -> None:
    """The table and the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--clients", default="kafka-python,confluent")
    options = parser.parse_args()
    load_average = statistics.mean(os.getloadavg())
    print(f"{options.events:,} events of {BYTES} B, {KEYS:,} keys, {PARTITIONS} partitions; load {load_average:.1f}")
    with ExitStack() as stack:
        bench = Bench(stack, options.events)
        for client in options.clients.split(","):
            measure(bench, client)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(row) for row in bench.rows], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
