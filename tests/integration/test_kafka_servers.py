"""Kafka and Debezium as tests start them: they carry records, let in whom they should, and survive what tests do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import maven
from tests.servers.connect import Debezium
from tests.servers.kafka import PASSWORD, USER, KafkaCluster, KafkaServer
from tests.servers.kafka_python import KafkaConsumer, KafkaProducer, TopicPartition, closing
from tests.servers.postgresql import PostgresServer

pytestmark = [pytest.mark.server, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PATIENCE_MS = 20_000


def produce(bootstrap: str, topic: str, *values: bytes, **options: Any) -> None:
    with closing(KafkaProducer, bootstrap_servers=bootstrap, acks="all", **options) as producer:
        for value in values:
            producer.send(topic, value).get(30)


def consume(bootstrap: str, topic: str, until: Callable[[list[Any]], bool], **options: Any) -> list[Any]:
    """The records of partition 0 up to where `until` says so of them."""
    options |= {"bootstrap_servers": bootstrap, "auto_offset_reset": "earliest", "consumer_timeout_ms": PATIENCE_MS}
    found: list[Any] = []
    with closing(KafkaConsumer, **options) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        for record in consumer:
            found.append(record)
            if until(found):
                break
    return found


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


@pytest.fixture(scope="module")
def secured() -> Iterator[KafkaServer]:
    with KafkaServer(secured=True) as server:
        server.create_topic("guarded")
        yield server


def test_what_is_produced_is_consumed(kafka_server: KafkaServer) -> None:
    kafka_server.create_topic("carried", partitions=1)
    produce(kafka_server.bootstrap, "carried", b"one", b"two")
    assert values(consume(kafka_server.bootstrap, "carried", lambda found: len(found) == 2)) == [b"one", b"two"]


def test_topic_that_is_made_again_has_another_id(kafka_server: KafkaServer) -> None:
    ids = []
    for _ in range(2):
        kafka_server.create_topic("again", partitions=3, cleanup_policy="compact")
        ids.append(kafka_server.describe("again")["topic_id"])
        kafka_server.delete_topic("again")
    assert ids[0] != ids[1]


def test_killed_broker_keeps_what_it_acknowledged() -> None:
    with KafkaServer() as broker:
        broker.create_topic("kept")
        produce(broker.bootstrap, "kept", b"one")
        port = broker.port
        broker.kill()
        broker.start()
        assert broker.port == port
        assert values(consume(broker.bootstrap, "kept", any)) == [b"one"]


def test_three_brokers_survive_the_death_of_a_leader() -> None:
    with KafkaCluster() as cluster:
        cluster.create_topic("spread", partitions=1)
        produce(cluster.bootstrap, "spread", b"one")
        dead = cluster.leader("spread")
        dead.kill()
        produce(cluster.bootstrap, "spread", b"two")
        assert cluster.leader("spread") is not dead
        dead.start()
        assert values(consume(cluster.bootstrap, "spread", lambda found: len(found) == 2)) == [b"one", b"two"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_secured_listeners_let_the_user_in(secured: KafkaServer, protocol: str, mechanism: str) -> None:
    address = secured.sasl_ssl if protocol == "SASL_SSL" else secured.sasl_plaintext
    options = {
        "security_protocol": protocol,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": USER,
        "sasl_plain_password": PASSWORD,
        "ssl_cafile": str(secured.ca),
    }
    value = f"{protocol} {mechanism}".encode()
    produce(address, "guarded", value, **options)
    assert value in values(consume(address, "guarded", lambda found: found[-1].value == value, **options))


def test_change_of_a_row_arrives_also_over_a_restart(
    kafka_server: KafkaServer,
    postgres_server: PostgresServer,
    postgres_url: str,
    debezium: Callable[..., Debezium],
) -> None:
    database = postgres_url.rsplit("/", 1)[1]
    with postgres_server.connect(database) as connection:
        connection.execute("create table orders (id int primary key, item text)")
        connector = debezium(database, ["public.orders"], prefix="arrives")

        connection.execute("insert into orders values (1, 'tea')")
        first = consume(kafka_server.bootstrap, connector.topic("orders"), any)
        assert json.loads(first[0].key) == {"id": 1}
        assert json.loads(first[0].value)["after"] == {"id": 1, "item": "tea"}

        connector.kill()
        connection.execute("delete from orders")
        connector.start()
        # Once more from where it last saved its place: the log is told at least once.
        events = consume(kafka_server.bootstrap, connector.topic("orders"), lambda found: found[-1].value is None)
        told = [json.loads(event.value)["op"] for event in events if event.value]
        assert list(dict.fromkeys(told)) == ["c", "d"]


def test_parallel_runs_fetch_the_jars_once(tmp_path: Path) -> None:
    """With a Maven that only counts how often it is called, and another cache."""
    count = tmp_path / "calls"
    fake = tmp_path / "mvn"
    fake.write_text(f"#!/bin/sh\necho >> {count}\nsleep 0.3\nmkdir -p libs plugins\n")
    fake.chmod(0o755)
    program = "from tests.servers.maven import jars; assert jars().libs.is_dir() and jars().plugins.is_dir()"
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    runs = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert len(count.read_text().splitlines()) == 2  # one for Kafka, one for the connector


def test_without_maven_and_without_jars_the_test_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven.jars()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    java = tmp_path / "java"
    java.write_text("")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="mvn is missing"):
        maven.jars.__wrapped__()
