"""Relay and daemon over three brokers, of which one dies or stands still: nothing is lost, and nobody has to help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.invalidator_daemon import Daemon, Shop, cached, client, tier, until
from tests.integration.relay_process import RelayProcess
from tests.servers.kafka import KafkaCluster

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(300)]
TOPIC = "changes"
IDS = range(20)
BACK_S = 90.0
"""A leader's session, an election, a client's backoff, and a busy machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster() as made:
        made.create_topic(TOPIC, partitions=3, replicas=3)
        yield made


@pytest.mark.parametrize(("library", "harm"), [("kafka-python", "kill"), ("confluent", "pause")])
def test_changes_arrive_although_a_leader_is_gone(
    cluster: KafkaCluster, sqlite_url: str, redis_url: str, tmp_path: Path, library: str, harm: str
) -> None:
    shop = Shop(sqlite_url)
    source = {"topics": [TOPIC], "format": "relay", "client": library, "group": f"{library}-{harm}", "check": "500ms"}
    with ExitStack() as running:
        running.enter_context(RelayProcess(tmp_path, sqlite_url, cluster.bootstrap, TOPIC))
        brokers = {"bootstrap": cluster.bootstrap.split(",")}
        daemon = running.enter_context(
            Daemon(tmp_path, sqlite_url, [redis_url], source={"kind": "kafka"}, kafka=brokers, kafka_source=source)
        )
        cache = running.enter_context(client(shop, redis_url))
        until(lambda: all(cached(cache, one) == "plain" for one in IDS), 60)
        gone = cluster.leader(TOPIC)
        getattr(gone, harm)()
        try:
            shop.sql("update customers set tier = 'gold'")
            until(lambda: all(tier(cache, one) == "gold" for one in IDS), BACK_S)
        finally:
            gone.start() if harm == "kill" else gone.resume()
        until(lambda: daemon.get("/readyz")[0] == 200, BACK_S)
        shop.sql("update customers set tier = 'silver'")
        until(lambda: all(tier(cache, one) == "silver" for one in IDS), BACK_S)
    shop.close()
