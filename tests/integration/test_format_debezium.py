"""The decoders against real Debezium: what it writes for what was done to a table is read as just that."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from cachelib.keys import Template
from cachelib.stores import SqlStore
from invalidator.formats.base import Heartbeat
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium as DebeziumFormat
from invalidator.formats.detect import Detect
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxRouter
from tests.conftest import revive
from tests.servers.connect import Debezium, flattened
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_python import KafkaConsumer, TopicPartition, closing
from tests.servers.postgresql import PostgresServer
from tests.unit import format_samples
from tests.unit.format_samples import BY_LOG, BY_TABLE, LINE, SCHEMA, TYPES, WORK, Seen, changes_of, told

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(300)]

TABLES = ["public.orders", "public.wide", "ops.lines", "public.ending"]
LOG = "public.leasecache_changes"
END = (
    "insert into ending values (1)",
    "insert into leasecache_changes (version, tbl, op, key) values (999, 'ending', 'create', '{\"id\": 1}')",
)
ROUTER = {
    "transforms": "out",
    "transforms.out.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.out.table.field.event.id": "version",
    "transforms.out.table.field.event.key": "key",
    "transforms.out.table.field.event.payload": "after",
    "transforms.out.route.by.field": "tbl",
    "transforms.out.route.topic.replacement": "routed.${routedByValue}",
    "transforms.out.route.tombstone.on.empty.payload": "false",
    "transforms.out.table.op.invalid.behavior": "warn",
    "transforms.out.table.fields.additional.placement": "tbl:header,op:header,version:header,before:header,at:header",
}
FLAT = flattened("op,table,schema,lsn,txId,source.ts_us")
CONNECTORS: dict[str, dict[str, Any]] = {
    "plain": {"tables": [*TABLES, LOG], "prefix": "plain"},
    "schema": {"tables": TABLES, "prefix": "schema", "schemas": True},
    "flat": {"tables": TABLES, "prefix": "flat", "options": FLAT},
    "routed": {"tables": [LOG], "prefix": "routed", "options": ROUTER},
}


@pytest.fixture(scope="module")
def captured(kafka_server: KafkaServer, postgres_server: PostgresServer) -> dict[str, list[Seen]]:
    """What four connectors saw of the same work."""
    revive(kafka_server)
    revive(postgres_server)
    database = postgres_server.create_database("formats")
    with postgres_server.connect(database) as connection, ExitStack() as stack:
        connection.execute(SCHEMA)
        store = SqlStore(postgres_server.url_of(database))
        store.install("orders", watch="customer_id")
        store.install("wide", watch="list_id")
        store.install("ops.lines", key=("shop", "item", "day", "price", "code"))
        store.close()
        connectors = [Debezium(kafka_server, postgres_server, database, **given) for given in CONNECTORS.values()]
        with ThreadPoolExecutor(2) as starting:
            list(starting.map(stack.enter_context, connectors))
        for statement in (*WORK, *END):
            connection.execute(statement)
        found = {name: _read(kafka_server, name) for name in CONNECTORS}
    postgres_server.drop_database(database)
    if os.environ.get("KEEP_SAMPLES"):
        for name, seen in found.items():
            (format_samples.HERE / f"{name}.jsonl").write_text("".join(f"{one.line()}\n" for one in seen))
    return found


def _read(kafka: KafkaServer, prefix: str) -> list[Seen]:
    """Everything up to the mark at the end, topic by topic."""
    options = {"bootstrap_servers": kafka.bootstrap, "auto_offset_reset": "earliest", "consumer_timeout_ms": 30_000}
    mark = f"{prefix}.ending" if prefix == "routed" else f"{prefix}.public.ending"
    with closing(KafkaConsumer, **options) as consumer:
        consumer.assign([TopicPartition(mark, 0)])
        next(consumer)  # the connector sends in the log's order, so all others are there
        topics = sorted(name for name in consumer.topics() if name.startswith(f"{prefix}.") and name != mark)
        found: list[Seen] = []
        for topic in topics:
            part = TopicPartition(topic, 0)
            consumer.assign([part])
            end = consumer.end_offsets([part])[part]
            while consumer.position(part) < end:
                found += [
                    Seen(one.topic, one.key, one.value, tuple(one.headers))
                    for polled in consumer.poll(1000).values()
                    for one in polled
                ]
        return [one for one in found if b"ending" not in (one.value or b"")]


def test_topics_of_tables_tell_what_was_done(captured: dict[str, list[Seen]]) -> None:
    tables = [one for one in captured["plain"] if LOG not in one.topic]
    assert told(DebeziumFormat(types=Types(TYPES)), tables) == BY_TABLE


def test_schemas_in_place_of_said_types(captured: dict[str, list[Seen]]) -> None:
    assert told(DebeziumFormat(), captured["schema"]) == BY_TABLE


def test_flattened_topics_tell_the_same_but_no_truncate_and_no_image_before(captured: dict[str, list[Seen]]) -> None:
    expected = {
        table: [
            (op, key, version, format_samples.UNKNOWN if op != "create" else None, now)
            for op, key, version, _, now in rows
        ]
        for table, rows in (BY_TABLE | {"orders": BY_TABLE["orders"][:-1]}).items()
    }
    assert told(Flattened(types=Types(TYPES)), captured["flat"]) == expected


def test_captured_change_log_tells_versions_of_deletes(captured: dict[str, list[Seen]]) -> None:
    log = [one for one in captured["plain"] if LOG in one.topic]
    assert told(DebeziumFormat(), log) == BY_LOG


def test_routed_change_log_tells_all_but_amendments(captured: dict[str, list[Seen]]) -> None:
    expected = {table: [row for row in rows if row != ("create", 2, 5, None, 8)] for table, rows in BY_LOG.items()}
    assert told(OutboxRouter(prefix="routed."), captured["routed"]) == expected


@pytest.mark.parametrize("name", CONNECTORS)
def test_format_is_detected(captured: dict[str, list[Seen]], name: str) -> None:
    types = Types(TYPES)
    detect = Detect(DebeziumFormat(types=types), Flattened(types=types), OutboxRouter(prefix="routed."))
    named = {"flat": Flattened(types=types), "routed": OutboxRouter(prefix="routed.")}
    assert changes_of(detect, captured[name]) == changes_of(
        named.get(name, DebeziumFormat(types=types)), captured[name]
    )


@pytest.mark.parametrize("name", CONNECTORS)
def test_key_is_the_one_that_the_library_makes(
    captured: dict[str, list[Seen]], name: str, postgres_server: PostgresServer
) -> None:
    columns = ("shop", "item", "day", "price", "code")
    template = Template("line:{shop:str}:{item:uuid}:{day:date}:{price:decimal}:{code:bytes}")
    statement = f"select 'Köln ☃ 𝄞', '{LINE}'::uuid, '2024-02-29'::date, 12.500::numeric(10,3), '\\x00ff41'::bytea"
    with postgres_server.connect() as connection:
        row = connection.execute(statement).fetchone()
    types = Types(TYPES)
    decoder = {"flat": Flattened(types=types), "routed": OutboxRouter(prefix="routed.")}.get(
        name, DebeziumFormat(types=types)
    )
    keys = [change.key for change in changes_of(decoder, captured[name]) if change.table == "ops.lines"]
    assert keys
    assert {template.render(template.from_columns(key, columns)) for key in keys} == {template.render(row)}


def test_heartbeat_measures_lag_and_proves_nothing(captured: dict[str, list[Seen]], kafka_server: KafkaServer) -> None:
    topic = "__debezium-heartbeat.plain"
    options = {"bootstrap_servers": kafka_server.bootstrap, "auto_offset_reset": "earliest"}
    with closing(KafkaConsumer, **options) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        record = next(consumer)
    found = Detect()(topic, record.key, record.value, record.headers)
    assert isinstance(found, Heartbeat)
    assert found.at_us > 1_700_000_000_000_000
    assert found.watermark_us is None
