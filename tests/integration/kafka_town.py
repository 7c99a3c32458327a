"""A shop whose changes come through a topic, and daemons that listen."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cachelib import Cache
from cachelib.layout import decode_layout
from cachelib.model import RowChange
from invalidator.formats.relay import RelayEncoder
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, client, tier, until
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaProducer

LIBRARIES = ["kafka-python", "confluent"]


class Town:
    """A shop whose changes come through a topic, and daemons that listen."""

    def __init__(self, kafka: KafkaServer, shop: Shop, redis_url: str, folder: Path, name: str) -> None:
        self.kafka, self.shop, self.redis_url, self.folder = kafka, shop, redis_url, folder
        self.topic = name
        kafka.create_topic(self.topic, 4)
        self._encoder = RelayEncoder()
        self.cleanup = ExitStack()
        self.cache: Cache = self.cleanup.enter_context(client(shop, redis_url))

    def daemon(self, library: str, number: int = 0, **source: Any) -> Daemon:
        folder = self.folder / f"daemon-{number}"
        folder.mkdir(exist_ok=True)
        settings = {"topics": [self.topic], "client": library, "session": "6s", "check": "500ms", **source}
        made = Daemon(
            folder,
            self.shop.url,
            [self.redis_url],
            source={"kind": "kafka"},
            kafka={"bootstrap": [self.kafka.bootstrap]},
            kafka_source=settings,
        )
        daemon = self.cleanup.enter_context(made)
        until(self.settled)  # the first one knows nothing of the nodes, so everything gets new epochs
        return daemon

    def settled(self) -> bool:
        return decode_layout(self.shop.store.read_layout() or b"").next is None

    def warm(self, ids: range) -> None:
        for one in ids:
            self.cache.get(CUSTOMERS, one)
        assert all(self.cache.read(CUSTOMERS, one).source == "hit" for one in ids)

    def change(self, ids: range, to: str) -> None:
        """In the store, behind the cache's back, and in the topic."""
        between = "id between :first and :last"
        self.shop.sql(f"update customers set tier = :to where {between}", to=to, first=ids[0], last=ids[-1])
        self.send(ids)

    def send(self, ids: range) -> None:
        producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap)
        for one in ids:
            key, value = self._encoder.change(RowChange("customers", "update", {"id": one}))
            producer.send(self.topic, value, key)
        producer.flush(timeout=20)
        producer.close(timeout=1)

    def agrees(self, ids: range, on: str) -> None:
        until(lambda: all(tier(self.cache, one) == on for one in ids))
