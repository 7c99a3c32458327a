"""Store, relay, Kafka, daemon and Redis in a row; and what cannot be read on the way."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cachelib.proof import proof_name
from tests.integration.invalidator_daemon import Daemon, Shop, cached, client, invalidator, until
from tests.integration.relay_process import RelayProcess, changes, records
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaProducer, closing
from tests.servers.ports import free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def shop(sqlite_url: str) -> Iterator[Shop]:
    shop = Shop(sqlite_url)
    yield shop
    shop.close()


class Chain:
    """Topics of their own, and the settings of a daemon that reads them."""

    def __init__(self, kafka: KafkaServer, folder: Path, shop: Shop, cache_url: str) -> None:
        self.kafka = kafka
        self.topic, self.dead = f"changes-{free_port()}", f"dead-{free_port()}"
        kafka.create_topic(self.topic, partitions=3)
        self.relay = RelayProcess(folder, shop.url, kafka.bootstrap, self.topic)
        self.daemon = Daemon(
            folder,
            shop.url,
            [cache_url],
            source={"kind": "kafka"},
            kafka={"bootstrap": [kafka.bootstrap]},
            kafka_source={"topics": [self.topic], "group": self.topic, "format": "relay"},
            dead_letters={"topic": self.dead},
            apply={"settle_delay": "300ms"},
        )

    def produce(self, value: bytes, key: bytes | None = None) -> int:
        """Into partition 0; at which offset."""
        with closing(KafkaProducer, bootstrap_servers=self.kafka.bootstrap, acks="all") as producer:
            sent = producer.send(self.topic, value, key=key, partition=0, headers=[("from", b"elsewhere")])
            return int(sent.get(20).offset)

    def committed(self, daemon: Daemon) -> int:
        """The offset of partition 0 that is done."""
        positions = daemon.status()["committed"] or {}
        found = [position for partition, position in positions.items() if partition.endswith("0")]
        return int(found[0].partition("@")[0] or 0) if found else 0


@pytest.fixture
def chain(kafka_server: KafkaServer, tmp_path: Path, shop: Shop, redis_url: str) -> Chain:
    return Chain(kafka_server, tmp_path, shop, redis_url)


def test_changes_pass_through_the_relay_and_freshness_is_proven_through_kafka(
    chain: Chain, shop: Shop, redis_url: str
) -> None:
    with chain.relay, chain.daemon as daemon, client(shop, redis_url) as cache, Redis.from_url(redis_url) as redis:
        assert cached(cache) == "plain"
        shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: cached(cache) == "gold")
        shop.sql("insert into orders (id, customer_id) values (1, 7)")
        until(lambda: daemon.metric("changes_total", table="orders") == 1)
        wanted_us = shop.store.now_us()

        def proven() -> bool:
            raw: Any = redis.get(proof_name("lc"))
            return raw is not None and (json.loads(raw)["watermark_us"] or 0) >= wanted_us

        until(proven)
        assert daemon.status()["problems"] == []


def test_record_that_cannot_be_read_is_kept_and_the_row_of_its_key_invalidated(
    chain: Chain, shop: Shop, redis_url: str
) -> None:
    chain.kafka.create_topic(chain.dead)
    with chain.relay, chain.daemon as daemon, client(shop, redis_url) as cache:
        assert cached(cache) == "plain"
        chain.produce(b"\x00garbage", b'["customers",{"id":7}]')
        until(lambda: len(records(chain.kafka, chain.dead)) == 1)
        (letter,) = records(chain.kafka, chain.dead)
        headers = dict(letter.headers)
        assert letter.value == b"\x00garbage"
        assert headers["from"] == b"elsewhere"
        assert headers["leasecache.topic"].decode() == chain.topic
        assert headers["leasecache.kind"] == b"undecodable"
        assert daemon.metric("decode_errors_total") >= 1
        shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: cached(cache) == "gold")  # it goes on behind it


def test_topic_of_dead_letters_that_is_missing_holds_back_the_offset_and_nothing_else(
    chain: Chain, shop: Shop, redis_url: str
) -> None:
    with chain.relay, chain.daemon as daemon, client(shop, redis_url) as cache:
        assert cached(cache) == "plain"
        offset = chain.produce(b"\x00garbage", b'["customers",{"id":3}]')
        until(lambda: daemon.metric("dead_letter_errors_total") > 0, 60)
        shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: cached(cache) == "gold")
        time.sleep(0.5)  # a few commits long
        assert chain.committed(daemon) <= offset
        assert daemon.metric("dead_letters_waiting") == 1
        daemon.kill()

        chain.kafka.create_topic(chain.dead)
        daemon.start()
        until(lambda: len(records(chain.kafka, chain.dead)) >= 1)
        until(lambda: chain.committed(daemon) > offset)


def test_a_sample_of_the_topic_tells_the_keys_and_a_replay_applies_them(
    chain: Chain, shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    line = ["--config", str(chain.daemon.config)]
    chain.kafka.create_topic(chain.dead)
    with chain.relay, client(shop, redis_url) as cache:
        assert cached(cache) == "plain"
        shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: any(True for _ in changes(records(chain.kafka, chain.topic))))
        ended = invalidator(tmp_path, "check", *line)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert f"log {chain.topic}-2: " in ended.stdout

        ended = invalidator(tmp_path, "check", "--dry-run", *line)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert re.search(rf"{chain.topic}-\d \d+ update customers .* -> customers:7: raise the floor", ended.stdout)
        assert cached(cache) == "plain"

        ended = invalidator(tmp_path, "replay", "--from", "10m", *line)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "replayed 1 changes" in ended.stdout
        until(lambda: cached(cache) == "gold")

        chain.produce(b"\x00garbage", b'["customers",{"id":8}]')
        ended = invalidator(tmp_path, "check", "--dry-run", "--from", "START", *line)
        assert ended.returncode == 1
        assert "cannot be read" in ended.stdout
        assert "-> customers:8: revoke" in ended.stdout
