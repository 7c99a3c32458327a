"""All brokers were dead, and the daemon said that all was well: ready, no error, a poll that succeeded a moment ago.

Order of events: the brokers die · the client library connects again and again by itself, and its poll gives nothing ·
nothing is what an idle topic gives, so it counted as a poll that succeeded · the watch had asked for the log's end,
had no answer, noted why, and nobody read its note · the alert InvalidationStalled rests on the time of the last poll
that succeeded, and stayed silent.

Of its class: what a client library does not say. The game day that kills the broker found it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.invalidator_daemon import Daemon, Shop, until
from tests.servers.kafka import KafkaServer

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_a_daemon_whose_brokers_are_dead_says_so_and_goes_on_when_they_are_back(
    sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    shop = Shop(sqlite_url)
    source = {"topics": ["changes"], "group": "g", "format": "relay"}
    with KafkaServer() as kafka:
        kafka.create_topic("changes")
        quick = {"connect": "1s", "request": "2s", "rebuild_max": "1s", "check": "500ms"}
        settings = {"source": {"kind": "kafka"}, "kafka": {"bootstrap": [kafka.bootstrap]}}
        with Daemon(tmp_path, shop.url, [redis_url], kafka_source=source | quick, **settings) as daemon:
            kafka.kill()
            until(lambda: "Kafka" in daemon.status()["store_error"], 60)
            until(lambda: daemon.get("/readyz")[0] == 503, 60)
            before = daemon.metric("progress_timestamp_seconds")
            kafka.start()
            until(lambda: not daemon.status()["store_error"] and daemon.get("/readyz")[0] == 200, 90)
            assert daemon.metric("progress_timestamp_seconds") > before
    shop.close()
