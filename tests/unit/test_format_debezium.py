"""Debezium's envelope: what else there is than rows, other databases, and what a broken record still tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cachelib.model import RowChange
from invalidator.formats.base import Changes, Decoded, DecodeFailed, Heartbeat, Ignored, Tables
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium

POSTGRESQL = {"connector": "postgresql", "schema": "public", "table": "orders", "txId": 7, "lsn": 99, "ts_ms": 5}
MYSQL = {
    "version": "3.5.0.Final",
    "connector": "mysql",
    "name": "shop",
    "ts_ms": 1700000000000,
    "ts_us": 1700000000000001,
    "db": "shop",
    "table": "orders",
    "server_id": 1,
    "gtid": "24bc7850-2c16-11e6-a073-0242ac110002:9",
    "file": "binlog.000003",
    "pos": 484,
    "row": 0,
    "thread": 7,
}
KEY = b'{"id":1}'
TOPIC = "shop.public.orders"


def event(op: str, before: Any = None, after: Any = None, **source: Any) -> bytes:
    return json.dumps({"before": before, "after": after, "source": POSTGRESQL | source, "op": op, "ts_ms": 6}).encode()


def changes(answer: Decoded) -> tuple[RowChange, ...]:
    assert isinstance(answer, Changes)
    return answer.changes


def read(value: bytes | None, key: bytes | None = KEY, decoder: Debezium | None = None, topic: str = TOPIC) -> Decoded:
    return (decoder or Debezium())(topic, key, value)


def fails(value: bytes | None, key: bytes | None = KEY, decoder: Debezium | None = None) -> DecodeFailed:
    with pytest.raises(DecodeFailed) as failed:
        read(value, key, decoder)
    return failed.value


@pytest.mark.parametrize("connector", ["mysql", "mariadb"])
@pytest.mark.parametrize("home", ["shop", "other"])
def test_mysql_and_mariadb_have_databases_for_schemas_and_full_images(connector: str, home: str) -> None:
    row = {"id": 1, "customer_id": 8, "row_version": 4}
    old = {"id": 1, "customer_id": 7}  # no version, and believed
    source = MYSQL | {"connector": connector}
    value = json.dumps({"before": old, "after": row, "source": source, "op": "u", "transaction": None}).encode()
    answer = read(value, decoder=Debezium(tables=Tables(frozenset([home]))))
    table = "orders" if home == "shop" else "shop.orders"
    assert changes(answer) == (RowChange(table, "update", {"id": 1}, 4, old, row, None, 1700000000000001),)
    assert isinstance(answer, Changes)
    assert answer.position == "binlog.000003:484"


def test_snapshot_rows_are_flagged_and_what_was_is_unknown() -> None:
    answer = read(event("r", None, {"id": 1, "row_version": 4}))
    assert isinstance(answer, Changes)
    assert answer.snapshot
    assert answer.changes == (
        RowChange("orders", "update", {"id": 1}, 4, {"id": 1}, {"id": 1, "row_version": 4}, 7, 5000),
    )


def test_truncate_has_no_key() -> None:
    assert changes(read(event("t"), None)) == (RowChange("orders", "truncate", tx=7, at_us=5000),)


@pytest.mark.parametrize("kind", ["ALTER", "DROP", "CREATE"])  # `create or replace` is a create
def test_schema_change_renews_its_tables(kind: str) -> None:
    changed = {"type": kind, "id": '"shop"."orders"', "table": {}}
    value = {
        "source": MYSQL,
        "ts_ms": 1,
        "databaseName": "shop",
        "ddl": "... TABLE orders ...",
        "tableChanges": [changed],
    }
    decoder = Debezium(tables=Tables(frozenset(["shop"])))
    found = changes(read(json.dumps(value).encode(), b'{"databaseName":"shop"}', decoder, "shop"))
    assert [(change.table, change.op) for change in found] == [("orders", "truncate")]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"source": MYSQL, "ddl": "SET names utf8mb4", "tableChanges": []}, "schema"),
        ({"status": "BEGIN", "id": "7", "event_count": None, "data_collections": None, "ts_ms": 1}, "transaction"),
        ({"op": "m", "source": POSTGRESQL, "message": {"prefix": "p", "content": "AA=="}}, "application"),
    ],
)
def test_what_concerns_no_row_is_ignored_with_a_reason(value: dict[str, Any], why: str) -> None:
    answer = read(json.dumps(value).encode())
    assert isinstance(answer, Ignored)
    assert why in answer.why


@pytest.mark.parametrize("wrapped", [False, True])
def test_heartbeat(wrapped: bool) -> None:
    value: dict[str, Any] = {"ts_ms": 1700000000000}
    if wrapped:
        value = {"schema": {"type": "struct", "fields": []}, "payload": value}
    answer = read(json.dumps(value).encode(), b'{"serverName":"shop"}')
    assert answer == Heartbeat(1700000000000000)


def test_row_with_a_heartbeats_column_is_not_taken_for_one() -> None:
    assert fails(b'{"ts_ms":1700000000000,"id":1}').instead == (
        RowChange("orders", "update", {"id": 1}, before={"id": 1}),
    )


@pytest.mark.parametrize("version", [None, 0, -1, 1.5, True, 2**64, "x", "", "9" * 30])
def test_version_that_is_no_positive_number_is_none(version: Any) -> None:
    (change,) = changes(read(event("c", None, {"id": 1, "row_version": version})))
    assert change.version is None


@pytest.mark.parametrize(("version", "column"), [(5, "seq"), (None, "")])
def test_version_column_has_the_name_that_it_was_given(version: int | None, column: str) -> None:
    (change,) = changes(read(event("c", None, {"id": 1, "seq": 5}), decoder=Debezium(column)))
    assert change.version == version


@pytest.mark.parametrize(
    ("before", "known"),
    [
        ({"id": 1, "customer_id": 0, "row_version": None}, False),
        ({"id": 1, "customer_id": 0, "row_version": 1}, False),
        ({"id": 1, "customer_id": 7, "row_version": 2}, True),
    ],
)
def test_image_before_is_believed_by_its_version(before: dict[str, Any], known: bool) -> None:
    (change,) = changes(read(event("d", before)))
    assert change.before == (before if known else {"id": 1})


def test_table_without_a_key_is_named_by_its_rows() -> None:
    old, new = {"a": 1, "row_version": 5}, {"a": 2, "row_version": 6}
    assert [(one.op, one.key, one.version) for one in changes(read(event("u", old, new), None))] == [
        ("delete", old, None),
        ("create", new, None),
    ]
    (change,) = changes(read(event("u", None, new), None))
    assert (change.key, change.before) == ({}, {})


@pytest.mark.parametrize("marker", ["__debezium_unavailable_value", "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="])
@pytest.mark.parametrize("inside", [str, lambda text: [text], lambda text: {text: text}])
def test_unchanged_value_is_unknown(marker: str, inside: Any) -> None:
    (change,) = changes(read(event("u", None, {"id": 1, "body": inside(marker)})))
    assert change.after == {"id": 1}


def test_marker_can_be_another() -> None:
    (change,) = changes(read(event("u", None, {"id": 1, "body": "?"}), decoder=Debezium(placeholder="?")))
    assert change.after == {"id": 1}


def test_column_that_is_not_of_its_type_is_unknown() -> None:
    types = Types({"orders": {"day": "date", "price": "numeric(9,2)"}})
    (change,) = changes(
        read(event("c", None, {"id": 1, "day": 2**31 - 1, "price": "%"}), decoder=Debezium(types=types))
    )
    assert change.after == {"id": 1}


def test_key_that_is_not_of_its_type_leaves_the_table() -> None:
    failed = fails(event("c", None, {"id": 1}), b'{"day":"monday"}', Debezium(types=Types({"orders": {"day": "date"}})))
    assert failed.instead == (RowChange("orders", "truncate"),)
    assert "'day'" in failed.why


def test_avro_is_named() -> None:
    failed = fails(b"\0\0\0\0\x2a\x02\x04", b"\0\0\0\0\x29\x02")
    assert "Avro or Protobuf (schema 42" in failed.why
    assert failed.instead == (RowChange("orders", "truncate"),)


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"1", b"null", b'{"op":"u"}', b'{"op":"x","source":{"table":"orders"}}']
)
def test_broken_record_leaves_its_row(value: bytes) -> None:
    assert fails(value).instead == (RowChange("orders", "update", {"id": 1}, before={"id": 1}),)


@pytest.mark.parametrize(("op", "before", "after"), [("u", {"id": 1}, None), ("c", None, None), ("d", None, {"id": 1})])
def test_event_without_its_row_is_refused(op: str, before: Any, after: Any) -> None:
    assert "without its row" in fails(event(op, before, after)).why


@pytest.mark.parametrize(
    ("topic", "table"),
    [("shop.public.orders", "orders"), ("shop.ops.orders", "ops.orders"), ("orders", "orders"), ("a.b.ops.x", "ops.x")],
)
def test_table_of_a_topic(topic: str, table: str) -> None:
    assert Tables().of_topic(topic) == table
