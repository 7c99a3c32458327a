"""The daemon over a real broker, inside the test's process: topics, members, and caches to look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from cachelib.backends.memory import Memory
from cachelib.entity import Entity
from cachelib.envelope import decode, encode
from cachelib.layout import decode_layout, encode_layout, first_layout
from cachelib.model import Item, Name, RowChange, value_of
from cachelib.stores import SqlStore
from invalidator.config import load
from invalidator.formats.base import Heartbeat
from invalidator.formats.relay import RelayEncoder
from invalidator.logs import open_log
from invalidator.rules import Rules
from invalidator.service import Service
from invalidator.settings import Settings
from invalidator.sources.kafka import KafkaSource
from invalidator.sources.kafka_open import builder
from tests.integration.invalidator_daemon import until
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaProducer, TopicPartition

from kafka.errors import KafkaError  # isort: skip - imported above without its warning

CUSTOMERS = Entity.from_table("customers", key="id")
RULES = Rules([CUSTOMERS])
CLIENTS = ["kafka-python", "confluent"]
_NUMBERS = count()
_FAST: dict[str, Any] = {"session": "12s", "check": "500ms", "metadata": "500ms", "flush": "200ms"}


class Node(Memory):
    """A cache in memory that can be slow, and knows when it is surely empty."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.fresh_from_start = True

    def empty(self) -> bool:
        return self.fresh_from_start

    def apply(self, batch: Any, notes: Any, now_ms: int) -> Any:
        assert self.open.wait(60)
        return super().apply(batch, notes, now_ms)


class Place:
    """A topic, a store for the layout, cache nodes; and the members that come and go."""

    def __init__(self, kafka: KafkaServer, store: SqlStore, partitions: int = 4, nodes: int = 1) -> None:
        self.kafka = kafka
        self.store = store
        self.topic = f"changes-{next(_NUMBERS)}"
        self.group = f"group-of-{self.topic}"
        self.nodes = {f"memory://{number}": Node() for number in range(nodes)}
        self.members: list[Member] = []
        self.log_level = "warning"
        store.identity()
        if store.read_layout() is None:
            store.write_layout(encode_layout(first_layout()), None)
        kafka.create_topic(self.topic, partitions)
        self._encoder = RelayEncoder("json")
        self._producer: Any = None

    # --- sending -----------------------------------------------------------------------------

    def send(self, ids: Sequence[int], *, partition: int | None = None, version: int = 2) -> None:
        """A change of each of these customers."""
        changes = [RowChange("customers", "update", {"id": one}, version) for one in ids]
        self.send_raw([self._encoder.change(change) for change in changes], partition)

    def beat(self, watermarks_us: Sequence[int], partitions: int = 4) -> None:
        """A heartbeat of the relay in each of the first partitions."""
        for partition, watermark_us in enumerate(watermarks_us):
            beat = Heartbeat(watermark_us, watermark_us, partitions, "")
            self.send_raw([(None, self._encoder.heartbeat(beat))], partition)

    def send_raw(self, records: Sequence[tuple[bytes | None, bytes | None]], partition: int | None = None) -> None:
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap, linger_ms=5)
        sent = [self._producer.send(self.topic, value, key, partition=partition) for key, value in records]
        self._producer.flush(timeout=20)
        for one in sent:
            one.get(timeout=20)

    def recreate(self, partitions: int = 4) -> None:
        self.kafka.delete_topic(self.topic)
        self._forget_producer()
        until(lambda: self._created(partitions))

    def _created(self, partitions: int) -> bool:
        try:
            self.kafka.create_topic(self.topic, partitions)
        except KafkaError:
            return False  # the deletion is not over yet
        return True

    def truncate(self) -> None:
        """Drop every record, as retention does."""
        with self.kafka.admin() as admin:
            parts = [TopicPartition(self.topic, number) for number in range(self.partitions())]
            admin.delete_records(dict.fromkeys(parts, -1))

    def partitions(self) -> int:
        return len(self.kafka.describe(self.topic)["partitions"])

    def add_partitions(self, number: int) -> None:
        with self.kafka.admin() as admin:
            admin.create_partitions({self.topic: number})
        until(lambda: self.partitions() == number)
        self._forget_producer()

    def aborted(self, number: int) -> None:
        """Records of a transaction that is given up."""
        producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap, transactional_id=self.topic)
        producer.init_transactions()
        producer.begin_transaction()
        for _ in range(number):
            producer.send(self.topic, b"never")
        producer.flush(timeout=10)
        producer.abort_transaction()
        producer.close(timeout=1)

    def _forget_producer(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)
        self._producer = None

    # --- members -----------------------------------------------------------------------------

    def settings(self, client: str = "kafka-python", apply: Mapping[str, Any] | None = None, **source: Any) -> Settings:
        quick = {"commit": "200ms", "positions": "100ms", "retry_max": "200ms", "settle_delay": "100ms"}
        return load(
            None,
            {},
            {
                "source": {"kind": "kafka", "poll": "50ms"},
                "kafka": {"bootstrap": [self.kafka.bootstrap]},
                "kafka_source": {"topics": [self.topic], "group": self.group, "client": client, **_FAST, **source},
                "apply": {**quick, **(apply or {})},
            },
        )

    def member(self, client: str = "kafka-python", *, wait: bool = True, **source: Any) -> Member:
        member = Member(self, self.settings(client, **source)).start()
        self.members.append(member)
        if wait:
            until(member.service.ready)
        return member

    def close(self) -> None:
        for node in self.nodes.values():
            node.open.set()
        while self.members:
            self.members.pop().stop()
        self._forget_producer()

    # --- caches ------------------------------------------------------------------------------

    def cache(self, ids: Sequence[int], version: int = 1) -> None:
        """A client has filled these in, on every node."""
        item = Item(value_of(b"x"), version=version, known=True, floor=version, expires_ms=2**60)
        for node in self.nodes.values():
            for one in ids:
                node.plant(self.name(one), encode(item))
            node.fresh_from_start = False

    def name(self, customer: int) -> Name:
        prefix = decode_layout(self.store.read_layout() or b"").now.prefix("lc", "customers")
        return prefix + f"customers:{customer}".encode()

    def fresh(self, ids: Sequence[int]) -> list[int]:
        """Which of these would still be served, on any node. By the names of now."""
        names = {one: self.name(one) for one in ids}
        found = ((one, node.get(name)) for one, name in names.items() for node in self.nodes.values())
        return [one for one, raw in found if raw is not None and decode(raw).fresh]

    def voided(self, ids: Sequence[int], wait_s: float = 20) -> bool:
        return bool(until(lambda: not self.fresh(ids), wait_s))

    def changing(self) -> bool:
        return decode_layout(self.store.read_layout() or b"").next is not None

    def layouts(self) -> int:
        return decode_layout(self.store.read_layout() or b"").number


class Member:
    """A daemon's service over Kafka, running in threads."""

    def __init__(self, place: Place, settings: Settings) -> None:
        self.place = place
        self.settings = settings
        log = open_log(replace(settings.log, level=place.log_level))
        self.source = KafkaSource(settings, builder(settings, log), _metrics(), log)
        self.service = Service(
            settings,
            store=place.store,
            source=self.source,
            nodes=list(place.nodes.items()),
            rules=RULES,
            reload=lambda: RULES,
            log=log,
            metrics=self.source._metrics,
            turn_s=0.02,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.died: BaseException | None = None

    def start(self) -> Member:
        self.source.open(self.service.fleet.done)
        self.service.begin()
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self.service.run()
        except BaseException as error:  # noqa: BLE001 - told at the stop
            self.died = error

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(20)
        self.source.close()
        assert self.died is None, self.died

    def partitions(self) -> int:
        return len(self.source._parts)

    def metric(self, name: str, **labels: str) -> float:
        registry = self.service.metrics.registry
        if labels:
            return registry.get_sample_value(f"invalidator_{name}", labels) or 0.0
        return sum(s.value for m in registry.collect() for s in m.samples if s.name == f"invalidator_{name}")

    def committed(self) -> Mapping[str, str]:
        done = self.service.books.committed
        return dict(done.positions) if done else {}


def _metrics() -> Any:
    from invalidator.metrics import Metrics

    return Metrics()


@contextmanager
def place(kafka: KafkaServer, sqlite_url: str, **settings: Any) -> Iterator[Place]:
    store = SqlStore(sqlite_url)
    there = Place(kafka, store, **settings)
    try:
        yield there
    finally:
        there.close()
        store.close()


Made = Callable[..., Place]
