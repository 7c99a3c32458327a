"""The relay on a real broker: nothing is lost whatever is killed, and every partition can prove how fresh it is."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cachelib.stores import SqlStore
from invalidator.config import load
from invalidator.dead_letters import Letter
from invalidator.dead_letters_kafka import TopicOfDeadLetters
from invalidator.logs import open_log
from invalidator.producer import NotSent, Outgoing, Producer
from invalidator.sources.base import Record
from tests.integration.invalidator_daemon import invalidator, until
from tests.integration.relay_process import RelayProcess, changes, heartbeats, records
from tests.servers.kafka import PASSWORD, USER, KafkaServer
from tests.servers.kafka_python import closing
from tests.servers.ports import free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]
BOTH = ["sqlite_url", "postgres_url"]


@pytest.fixture
def store(sqlite_url: str) -> Iterator[SqlStore]:
    with items(sqlite_url) as store:
        yield store


@pytest.fixture(params=BOTH)
def each_store(request: pytest.FixtureRequest) -> Iterator[tuple[SqlStore, str]]:
    url = str(request.getfixturevalue(request.param))
    with items(url) as store:
        yield store, url


def items(url: str) -> SqlStore:
    store = SqlStore(url)
    with store.transaction() as tx:
        tx.execute("create table items (id integer primary key, value text)")
    store.install("items", watch="value")
    return store


def write(store: SqlStore, key: int, value: str) -> None:
    with store.transaction() as tx:
        tx.execute(
            "insert into items (id, value) values (:id, :value) on conflict (id) do update set value = excluded.value",
            {"id": key, "value": value},
        )


def test_what_the_store_logs_is_in_the_topic_and_heartbeats_in_every_partition(
    kafka_server: KafkaServer, each_store: tuple[SqlStore, str], tmp_path: Path
) -> None:
    store, url = each_store
    topic = f"relayed-{free_port()}"
    kafka_server.create_topic(topic, partitions=3)
    for number in range(20):
        write(store, number % 7, f"value {number}")
    with RelayProcess(tmp_path, url, kafka_server.bootstrap, topic) as relay:
        logged = [entry.change for entry in store.poll_changes("", 100).entries]
        wanted_us = store.now_us()
        until(lambda: len(list(changes(records(kafka_server, topic)))) >= 20)
        until(
            lambda: (
                len(beats := heartbeats(records(kafka_server, topic))) == 3
                and all((beat.watermark_us or 0) >= wanted_us for beat in beats.values())
            )
        )
        found = records(kafka_server, topic)
        assert sorted((change.version for _, change in changes(found))) == [change.version for change in logged]
        assert {change.version: change for _, change in changes(found)} == {one.version: one for one in logged}
        assert all(beat.partitions == 3 for beat in heartbeats(found).values())
        assert len({(partition, change.key["id"]) for partition, change in changes(found)}) == 7
        with urllib.request.urlopen(f"{relay.url}/status", timeout=5) as answer:
            status = json.load(answer)
        assert status["problems"] == []
        assert status["ready"]
        assert relay.end() == 0
    assert store.load_consumer("relay") == store.poll_changes("", 100).position


def test_relay_that_is_killed_over_and_over_loses_nothing(
    kafka_server: KafkaServer, store: SqlStore, sqlite_url: str, tmp_path: Path
) -> None:
    topic = f"killed-{free_port()}"
    kafka_server.create_topic(topic, partitions=3)
    chance = random.Random(7)
    done = threading.Event()

    def writer() -> None:
        number = 0
        while not done.is_set():
            write(store, number % 11, f"value {number}")
            number += 1
            time.sleep(0.002)

    thread = threading.Thread(target=writer)
    thread.start()
    relay = RelayProcess(tmp_path, sqlite_url, kafka_server.bootstrap, topic)
    try:
        for _ in range(5):
            with relay:
                time.sleep(chance.uniform(0.1, 0.8))
                relay.end(signal.SIGKILL)
    finally:
        done.set()
        thread.join()
    with relay:
        last = store.poll_changes("", 100_000).position
        until(lambda: store.load_consumer("relay") == last)
    logged = [entry.change for entry in store.poll_changes("", 100_000).entries]
    sent = list(changes(records(kafka_server, topic)))
    print(f"{len(logged)} changes, {len(sent) - len(logged)} of them sent again")
    assert {change.version for _, change in sent} == {change.version for change in logged}
    # Sent again they come in their order, so the last that a row's partition tells is what the row is.
    newest = {change.key["id"]: change for change in logged}
    assert {change.key["id"]: change for _, change in sent} == newest


def test_relay_outlives_its_broker(store: SqlStore, sqlite_url: str, tmp_path: Path) -> None:
    with KafkaServer() as broker:
        broker.create_topic("outlives", partitions=2)
        with RelayProcess(tmp_path, sqlite_url, broker.bootstrap, "outlives") as relay:
            write(store, 1, "before")
            until(lambda: store.load_consumer("relay") == store.poll_changes("", 100).position)
            broker.kill()
            for number in range(5):
                write(store, number, "meanwhile")
            broker.start()
            until(lambda: store.load_consumer("relay") == store.poll_changes("", 100).position, 60)
            assert relay.end() == 0
        versions = {change.version for _, change in changes(records(broker, "outlives"))}
        assert versions == {entry.change.version for entry in store.poll_changes("", 100).entries}


def test_relay_logs_in_over_tls(store: SqlStore, sqlite_url: str, tmp_path: Path) -> None:
    with KafkaServer(secured=True) as broker:
        broker.create_topic("guarded", partitions=1)
        login = {
            "INVALIDATOR_KAFKA__SECURITY": "SASL_SSL",
            "INVALIDATOR_KAFKA__MECHANISM": "SCRAM-SHA-512",
            "INVALIDATOR_KAFKA__USER": USER,
            "INVALIDATOR_KAFKA__PASSWORD": PASSWORD,
            "INVALIDATOR_KAFKA__CA_FILE": str(broker.ca),
        }
        line = ["relay", "--store", sqlite_url, "--kafka", broker.sasl_ssl, "--topic", "guarded"]
        for wrong, said in (
            ({"INVALIDATOR_KAFKA__PASSWORD": "guessed-wrong"}, "the broker refuses the login: see kafka.user"),
            ({"INVALIDATOR_KAFKA__CA_FILE": ""}, "the broker's certificate is not trusted: see kafka.ca_file"),
            ({"INVALIDATOR_KAFKA__CA_FILE": "no-such.pem"}, "kafka.ca_file names no-such.pem, where there is no file"),
        ):
            ended = invalidator(tmp_path, *line, "--http-port", "-1", **login | wrong)
            assert ended.returncode == 2, ended.stderr
            assert said in ended.stderr.splitlines()[-1]
            assert "Traceback" not in ended.stderr
            assert "guessed-wrong" not in ended.stderr + ended.stdout
            assert PASSWORD not in ended.stderr + ended.stdout
        with RelayProcess(tmp_path, sqlite_url, broker.sasl_ssl, "guarded", **login) as relay:
            write(store, 1, "guarded")
            until(lambda: store.load_consumer("relay") == store.poll_changes("", 100).position)
            assert relay.end() == 0
        assert [change.key for _, change in changes(records(broker, "guarded"))] == [{"id": 1}]
    assert PASSWORD not in (tmp_path / "relay.log").read_text()


def test_topic_is_created_where_that_is_asked_for(
    kafka_server: KafkaServer, store: SqlStore, sqlite_url: str, tmp_path: Path
) -> None:
    topic = f"created-{free_port()}"
    line = ["relay", "--store", sqlite_url, "--kafka", kafka_server.bootstrap, "--topic", topic, "--http-port", "-1"]
    missing = invalidator(tmp_path, *line, INVALIDATOR_KAFKA_SOURCE__CONNECT="2s")
    assert missing.returncode == 2
    assert f"there is no topic '{topic}'" in missing.stderr
    assert "Traceback" not in missing.stderr
    with RelayProcess(tmp_path, sqlite_url, kafka_server.bootstrap, topic, INVALIDATOR_RELAY__PARTITIONS="4") as relay:
        assert len(kafka_server.describe(topic)["partitions"]) == 4
        assert relay.end() == 0


def test_broker_that_is_not_there_is_one_sentence(store: SqlStore, sqlite_url: str, tmp_path: Path) -> None:
    line = ["relay", "--store", sqlite_url, "--kafka", f"127.0.0.1:{free_port()}", "--topic", "t", "--http-port", "-1"]
    ended = invalidator(tmp_path, *line, INVALIDATOR_KAFKA_SOURCE__CONNECT="1s")
    assert ended.returncode == 1
    assert len([line for line in ended.stderr.splitlines() if line.startswith("invalidator: ")]) == 1
    assert "Traceback" not in ended.stderr


# --- the producer, and dead letters ---------------------------------------------------------------


def producer(kafka: KafkaServer, topic: str) -> AbstractContextManager[Producer]:
    settings = load(None, {}, {"kafka": {"bootstrap": [kafka.bootstrap]}})
    log = open_log(settings.log)
    return closing(Producer, settings.kafka, settings.kafka_source, topic, log)


def test_dead_letter_in_a_topic_has_the_record_and_its_origin(kafka_server: KafkaServer) -> None:
    topic = f"dead-{free_port()}"
    kafka_server.create_topic(topic, max_message_bytes=20_000)
    record = Record("shop.items", 2, 41, 1_700_000_000_000, b"\xff", b"{broken", [("trace", b"1")])
    large = Record("shop.items", 2, 42, 1_700_000_000_000, None, b"x" * 500_000)
    with producer(kafka_server, topic) as sender:
        TopicOfDeadLetters(sender).keep([Letter("undecodable", "no JSON", "p", "41", one) for one in (record, large)])
    found = {dict(one.headers)["leasecache.offset"]: one for one in records(kafka_server, topic)}
    kept, cut = found[b"41"], found[b"42"]
    assert (kept.key, kept.value) == (record.key, record.value)
    headers = dict(kept.headers)
    assert headers["trace"] == b"1"
    assert headers["leasecache.error"] == b"no JSON"
    assert headers["leasecache.topic"] == b"shop.items"
    assert headers["leasecache.partition"] == b"2"
    assert dict(cut.headers)["leasecache.cut"] == b"true"


def test_producer_says_what_it_could_not_send_and_goes_on(kafka_server: KafkaServer) -> None:
    topic = f"later-{free_port()}"
    with producer(kafka_server, topic) as sender:
        with pytest.raises(NotSent, match=topic):
            sender.send([Outgoing(b"one", b"key")])
        kafka_server.create_topic(topic, partitions=2)
        sender.send([Outgoing(b"one", b"key"), Outgoing(b"two", partition=1)])
    assert {record.value for record in records(kafka_server, topic)} == {b"one", b"two"}


def test_batch_that_is_too_large_for_its_topic_is_sent_in_parts(kafka_server: KafkaServer) -> None:
    topic = f"narrow-{free_port()}"
    kafka_server.create_topic(topic, max_message_bytes=5_000)
    values = [str(number).encode() * 100 for number in range(1000)]
    with producer(kafka_server, topic) as sender:
        sender.send([Outgoing(value, partition=0) for value in values])
    assert [record.value for record in records(kafka_server, topic)] == values


def test_place_of_a_key_is_where_the_client_itself_would_send_it(kafka_server: KafkaServer) -> None:
    topic = f"placed-{free_port()}"
    kafka_server.create_topic(topic, partitions=5)
    keys = [f"key {number}".encode() for number in range(20)]
    with producer(kafka_server, topic) as sender:
        sender.send([Outgoing(b"x", key) for key in keys])
        places = {key: sender.place(key, 5) for key in keys}
    assert {record.key: record.partition for record in records(kafka_server, topic)} == places
