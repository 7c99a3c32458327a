"""A cache that stands still, and a topic that is full: memory stays where it is, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cachelib.model import RowChange
from invalidator.formats.relay import RelayEncoder
from tests.integration.invalidator_daemon import Daemon, Shop, cached, client, until
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaProducer, closing
from tests.servers.ports import free_port
from tests.servers.redis import RedisServer

pytestmark = [pytest.mark.server, pytest.mark.slow]
RECORDS = 40_000
ROW_BYTES = 3000
GROWS_MB_MAX = 60
"""All of it would be 120 MB of bytes, and more as rows."""


def fill(kafka: KafkaServer, topic: str) -> None:
    encoder = RelayEncoder("json")
    row = {"tier": "gold", "text": "x" * ROW_BYTES}
    with closing(KafkaProducer, bootstrap_servers=kafka.bootstrap, linger_ms=20, batch_size=500_000) as producer:
        for number in range(RECORDS):
            key = {"id": number}
            change = RowChange("customers", "update", key, None, {**key, **row}, {**key, **row})
            producer.send(topic, encoder.change(change)[1], partition=number % 2)
        producer.flush(60)


def resident_mb(daemon: Daemon) -> float:
    assert daemon.process is not None
    return float(psutil.Process(daemon.process.pid).memory_info().rss) / 1e6


def test_paused_cache_stops_the_reading_and_memory_stays(
    kafka_server: KafkaServer, sqlite_url: str, tmp_path: Path
) -> None:
    topic = f"full-{free_port()}"
    kafka_server.create_topic(topic, partitions=2)
    shop = Shop(sqlite_url)
    with RedisServer() as redis:
        settings = {
            "source": {"kind": "kafka", "batch_max": 500},
            "kafka": {"bootstrap": [kafka_server.bootstrap]},
            "kafka_source": {"topics": [topic], "group": topic, "buffer_bytes": 4 << 20, "fetch_bytes": 1 << 20},
            "apply": {"window": 2000, "node_dead_after": "10m"},
        }
        with Daemon(tmp_path, shop.url, [redis.url], **settings) as daemon, client(shop, redis.url) as cache:
            assert cached(cache) == "plain"
            until(lambda: daemon.metric("node_counts") == 1)
            redis.pause()
            before_mb = resident_mb(daemon)
            fill(kafka_server, topic)
            until(lambda: daemon.metric("behind_changes") > 1000, 60)
            seen = -1.0
            while seen != (seen := daemon.metric("changes_total")):  # until nothing more is read
                until(lambda: daemon.get("/healthz")[0] == 200)
            peak_mb = resident_mb(daemon)
            assert daemon.metric("changes_total") < RECORDS
            redis.resume()
            until(lambda: daemon.metric("changes_total") >= RECORDS, 100)
            until(lambda: daemon.metric("behind_changes") == 0, 60)
            print(f"{before_mb:.0f} MB before, {peak_mb:.0f} MB while it stood, {resident_mb(daemon):.0f} MB after")
            assert peak_mb - before_mb < GROWS_MB_MAX
            assert cached(cache) == "plain"
    shop.close()
