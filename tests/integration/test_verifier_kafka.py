"""`invalidator verify` over PostgreSQL's own log, and over Kafka: a member of no group, a consumer of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachelib.layout import decode_layout
from tests.conftest import revive
from tests.integration.invalidator_daemon import Daemon, Shop, client, tier, until
from tests.integration.relay_process import RelayProcess
from tests.integration.test_verifier import change, item_of
from tests.integration.verifying import Verifying, plant
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(postgres_url: str) -> Iterator[Shop]:
    shop = Shop(postgres_url)
    yield shop
    shop.close()


def verified(shop: Shop, cache_url: str, daemon: Daemon) -> None:
    """Nothing is found where all is well; then an item that lost its invalidation is."""
    with client(shop, cache_url) as cache:
        until(lambda: decode_layout(shop.store.read_layout() or b"").next is None)
        with Verifying(daemon, tolerate="30s") as verifying:
            until(lambda: verifying.status()["ready"])
            for turn in range(10):
                change(shop, str(turn))
                until(lambda t=turn: tier(cache) == str(t))
            report = verifying.stopped(0, lambda it: it["chosen"] == 10 and all(row["served"] for row in it["ages"]))
        assert report["alarms"] == 0
        name, old = item_of(cache)
        with Verifying(daemon, tolerate="30s") as verifying:
            until(lambda: verifying.status()["ready"])
            change(shop, "gold")
            until(lambda: tier(cache) == "gold")
            plant(cache_url, name, old)
            report = verifying.stopped(3, lambda it: it["alarms"])
        # The last finding may be of another age, judged by what the node was told of when that was asked.
        assert {one["why"] for one in report["recent"]} & {"drop", "race"}


def test_over_postgresql_and_its_own_log(shop: Shop, redis_url: str, tmp_path: Path) -> None:
    with Daemon(tmp_path, shop.url, [redis_url]) as daemon:
        verified(shop, redis_url, daemon)


def test_over_kafka_outside_the_daemons_group(
    shop: Shop, memcached_url: str, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    revive(kafka_server)
    kafka_server.create_topic("verified", 3)
    before = groups(kafka_server)
    (tmp_path / "relay").mkdir()
    given = {
        "source": {"kind": "kafka"},
        "kafka": {"bootstrap": [kafka_server.bootstrap]},
        "kafka_source": {"topics": ["verified"], "format": "relay"},
    }
    with (
        RelayProcess(tmp_path / "relay", shop.url, kafka_server.bootstrap, "verified"),
        Daemon(tmp_path, shop.url, [memcached_url], **given) as daemon,
    ):
        verified(shop, memcached_url, daemon)
    assert groups(kafka_server) - before <= {"invalidator"}


def groups(kafka: KafkaServer) -> set[str]:
    with kafka.admin() as admin:
        return {group["group_id"] for group in admin.list_groups()}
