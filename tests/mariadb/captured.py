"""What connectors saw of the same work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.servers.connect import flattened
from tests.servers.connect_mariadb import MariaDebezium
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaConsumer, TopicPartition, closing
from tests.servers.mariadb import MariaDBServer
from tests.unit.format_samples import HERE, Seen
from tests.unit.format_samples.mariadb import KEY_TYPES, SCHEMA, WORK

_OWN = ["shop.orders", "shop.wide", "ops.lines", "shop.old", "shop.renamed"]
_END = "shop.ending"
_KEYS = [f"shop.{one.table}" for one in KEY_TYPES]
_DDL = (b'"table":"old"', b'"table":"renamed"')
_WITHOUT_SCHEMA = (".orders", "int", "latin1", "text", "char", "_unsigned", "tinyint1")
"""Not kept with their schemas, in which nothing is to be seen."""
_NO_UUID = ["shop.key_bigint_huge", "shop.key_late_boolean"]
_IN_DOUBT = [*_NO_UUID, "shop.key_uuid_v4_last"]
_OF_MYSQL = {
    "schema.history.internal.store.only.captured.tables.ddl": "true",  # MySQL has no type uuid
    "schema.history.internal.skip.unparseable.ddl": "true",
}
FLAT = flattened("op,table,db,connector,source.ts_us")
CONNECTORS: Mapping[str, Mapping[str, Any]] = {
    "mariadb_plain": {"tables": [*_OWN, *_KEYS, _END], "options": {"provide.transaction.metadata": "true"}},
    "mariadb_schema": {"tables": [*_OWN, *_KEYS, _END], "schemas": True, "options": {"snapshot.mode": "initial"}},
    "mysql_plain": {"connector": "mysql", "tables": ["shop.orders", *_NO_UUID, _END], "options": _OF_MYSQL},
    "mariadb_flat": {"tables": ["ops.lines", "shop.orders", *_IN_DOUBT, _END], "options": FLAT},
}


def capture(kafka: KafkaServer, mariadb: MariaDBServer) -> Mapping[str, list[Seen]]:
    """By connector, topic by topic. With `KEEP_SAMPLES` set the files that CI reads are written anew."""
    with ExitStack() as stack:
        cursor = stack.enter_context(mariadb.connect())
        for statement in SCHEMA:
            cursor.execute(statement)
        _create(cursor, late=False)
        connectors = [MariaDebezium(kafka, mariadb, prefix=name, **given) for name, given in CONNECTORS.items()]
        with ThreadPoolExecutor(2) as starting:
            list(starting.map(stack.enter_context, connectors))
        _create(cursor, late=True)
        for one in KEY_TYPES:
            cursor.execute(f"insert into shop.{one.table} values ({one.literal})")
        for statement in (*WORK, "insert into ending values (1)"):
            for part in statement.split("; "):
                cursor.execute(part)
        found = {name: read(kafka, name) for name in CONNECTORS}
    if os.environ.get("KEEP_SAMPLES"):
        for name, seen in found.items():
            lines = [f"{one.line()}\n" for one in seen if _is_worth_keeping(name, one)]
            (HERE / f"{name}.jsonl").write_text("".join(lines))
    return found


def _create(cursor: Any, *, late: bool) -> None:
    for one in KEY_TYPES:
        if one.late is late:
            cursor.execute(f"create table shop.{one.table} (k {one.sql} primary key)")


def _is_worth_keeping(name: str, one: Seen) -> bool:
    """Samples are small: a schema beside each record is most of it, and of the changes of schemas there are many."""
    if one.topic == name:
        return name == "mariadb_plain" and any(table in (one.value or b"") for table in _DDL)
    if one.topic.endswith(".transaction"):
        return b'"event_count":2' in (one.value or b"")
    return name != "mariadb_schema" or not one.topic.endswith(_WITHOUT_SCHEMA)


def read(kafka: KafkaServer, prefix: str, last: str = _END) -> list[Seen]:
    """Everything up to the mark at the end, topic by topic."""
    options = {"bootstrap_servers": kafka.bootstrap, "auto_offset_reset": "earliest", "consumer_timeout_ms": 30_000}
    mark = f"{prefix}.{last}"
    with closing(KafkaConsumer, **options) as consumer:
        consumer.assign([TopicPartition(mark, 0)])
        next(consumer)  # the connector sends in the log's order, so all others are there
        beats = f"__debezium-heartbeat.{prefix}"
        consumer.assign([TopicPartition(beats, 0)])
        found = [_seen(next(consumer))]
        ours = (name for name in consumer.topics() if name == prefix or name.startswith(f"{prefix}."))
        for topic in sorted(name for name in ours if name != mark):
            part = TopicPartition(topic, 0)
            consumer.assign([part])
            end = consumer.end_offsets([part])[part]
            while consumer.position(part) < end:
                found += [_seen(one) for polled in consumer.poll(1000).values() for one in polled]
        return [one for one in found if b"ending" not in (one.value or b"")]


def _seen(record: Any) -> Seen:
    return Seen(record.topic, record.key, record.value, tuple(record.headers))
