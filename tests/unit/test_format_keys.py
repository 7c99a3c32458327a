"""Library and invalidator write the same text for the same row, whichever way the row's key came."""

from __future__ import annotations

import json
import string
from base64 import b64encode
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.keys import Template
from cachelib.model import RowChange
from invalidator.formats.base import Changes, Decoder
from invalidator.formats.columns import Encodings
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium
from invalidator.formats.detect import Detect
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxRouter
from invalidator.formats.relay import Relay, RelayEncoder

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SQL: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text": TEXT,
    "uuid": st.uuids(),
    "numeric(12,2)": st.decimals(-(10**9), 10**9, places=2),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40),
    "date": st.dates(),
    "bytea": st.binary(max_size=40),
}
TYPES = {
    "integer": ("int", "any"),
    "bigint": ("int", "any"),
    "text": ("str", "any"),
    "uuid": ("uuid", "any"),
    "numeric(12,2)": ("decimal", "any"),
    "numeric": ("decimal", "any"),
    "date": ("date", "any"),
    "bytea": ("bytes",),
}
"""The types of a template's field that take such a column."""
SCHEMAS: dict[str, dict[str, Any]] = {
    "integer": {"type": "int32"},
    "bigint": {"type": "int64"},
    "text": {"type": "string"},
    "uuid": {"type": "string", "name": "io.debezium.data.Uuid", "version": 1},
    "numeric(12,2)": {
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "parameters": {"scale": "2", "connect.decimal.precision": "12"},
    },
    "numeric": {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal", "fields": []},
    "date": {"type": "int32", "name": "io.debezium.time.Date", "version": 1},
    "bytea": {"type": "bytes"},
}


def connected(sql: str, value: Any) -> Any:
    """As Debezium writes it; real samples of each are in `format_samples`."""
    match value:
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            assert isinstance(exponent, int)
            scale = 2 if sql == "numeric(12,2)" else -exponent
            unscaled = int("".join(map(str, digits))) * (-1 if sign else 1) * 10 ** (exponent + scale)
            packed = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
            text = b64encode(packed).decode()
            return text if sql == "numeric(12,2)" else {"scale": scale, "value": text}
        case date():
            return value.toordinal() - date(1970, 1, 1).toordinal()
        case bytes():
            return b64encode(value).decode()
        case UUID():
            return str(value)
    return value


def logged(value: Any) -> Any:
    """As the change log has it (PostgreSQL's to_jsonb), decoded."""
    match value:
        case date() | UUID():
            return str(value)
        case bytes():
            return f"\\x{value.hex()}"
    return value


def dumps(value: Any) -> str:
    """JSON with decimals as they are, which `json` cannot write."""
    match value:
        case Decimal():
            return format(value, "f")
        case Mapping():
            return "{" + ", ".join(f"{json.dumps(name)}: {dumps(part)}" for name, part in value.items()) + "}"
    return json.dumps(value)


def schema_of(columns: Mapping[str, str]) -> dict[str, Any]:
    fields = [{"field": name, "optional": False} | SCHEMAS[sql] for name, sql in columns.items()]
    return {"type": "struct", "fields": fields, "optional": False, "name": "s.public.t.Key"}


def envelope(row: Mapping[str, Any]) -> dict[str, Any]:
    source = {"connector": "postgresql", "schema": "public", "table": "t", "txId": 1, "lsn": 5, "ts_us": 9}
    return {"before": None, "after": row, "source": source, "op": "c"}


def records(columns: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, tuple[Decoder, bytes, bytes, Any]]:
    """The row's insert in every format: (decoder, key, value, headers)."""
    types = Types({"t": columns})
    key = {name: connected(columns[name], value) for name, value in row.items()}
    log = {name: logged(value) for name, value in row.items()}
    plain = json.dumps(key).encode()
    schema = schema_of(columns)
    parts = {"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": schema["fields"]}]}
    change = RowChange("t", "create", log, 7, None, log)
    native = RowChange("t", "create", row, 7, None, row)
    as_log = {"version": 7, "tbl": "t", "op": "create", "key": dumps(log), "before": None, "after": None}
    captured = envelope(as_log)
    captured["source"]["table"] = "leasecache_changes"
    headers = [("op", b"create"), ("version", b"7"), ("tbl", b"t")]
    return {
        "debezium, types said": (Debezium(types=types), plain, json.dumps(envelope(key)).encode(), ()),
        "debezium, schemas": (
            Debezium(),
            json.dumps({"schema": schema, "payload": key}).encode(),
            json.dumps({"schema": parts, "payload": envelope(key)}).encode(),
            (),
        ),
        "flattened": (Flattened(types=types), plain, json.dumps(key | {"__op": "c"}).encode(), ()),
        "flattened, schemas": (
            Flattened(),
            json.dumps({"schema": schema, "payload": key}).encode(),
            json.dumps({"schema": schema, "payload": key}).encode(),
            (),
        ),
        "change log, captured": (Debezium(), b'{"version":7}', json.dumps(captured).encode(), ()),
        "change log, routed": (OutboxRouter(prefix="p."), json.dumps(dumps(log)).encode(), b"null", headers),
        "relay, msgpack": (Relay(), *RelayEncoder("msgpack").change(change), ()),
        "relay, json": (Relay(), *RelayEncoder("json").change(change), ()),
        "relay, native values, msgpack": (Relay(), *RelayEncoder("msgpack").change(native), ()),
        "relay, native values, json": (Relay(), *RelayEncoder("json").change(native), ()),
    }


WAYS = sorted(records({}, {}))


def key_by(way: str, columns: Mapping[str, str], row: Mapping[str, Any]) -> Mapping[str, Any]:
    decoder, key, value, headers = records(columns, row)[way]
    answer = decoder("p.public.t", key, value, headers)
    assert isinstance(answer, Changes)
    (change,) = answer.changes
    assert change.table == "t"
    return change.key


@pytest.mark.parametrize("sql", SQL)
@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
def test_key_of_one_column_is_the_same(way: str, sql: str, data: st.DataObject) -> None:
    value = data.draw(SQL[sql])
    found = key_by(way, {"k": sql}, {"k": value})
    for kind in TYPES[sql]:
        template = Template(f"thing:{{k:{kind}}}")
        assert template.render(template.from_columns(found, ("k",))) == template.render(value)


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
def test_key_of_all_kinds_of_columns_is_the_same(way: str, data: st.DataObject) -> None:
    columns = dict(zip(string.ascii_lowercase, SQL, strict=False))
    row = {name: data.draw(SQL[sql], label=sql) for name, sql in columns.items()}
    template = Template("thing:" + "/".join(f"{{{name}:{TYPES[sql][0]}}}" for name, sql in columns.items()))
    found = key_by(way, columns, row)
    assert template.render(template.from_columns(found, tuple(columns))) == template.render(row)


@pytest.mark.parametrize("value", ["12.50", "0.00", "-1.10", "1000000000000.00"])
def test_decimals_written_as_text_are_decimals_where_the_type_is_said(value: str) -> None:
    types = Types({"t": {"k": "numeric"}}, Encodings(decimal="string"))
    template = Template("thing:{k}")
    found = Debezium(types=types)("p.public.t", json.dumps({"k": value}).encode(), json.dumps(envelope({})).encode())
    assert isinstance(found, Changes)
    assert template.render(found.changes[0].key["k"]) == template.render(Decimal(value))


@pytest.mark.parametrize("binary", ["bytes", "base64", "base64-url-safe", "hex"])
def test_bytes_in_any_notation_are_the_same_where_it_is_said(binary: str) -> None:
    raw = b"\xfb\xff\xfe\x00"
    text = {"hex": raw.hex(), "base64-url-safe": "-__-AA=="}.get(binary, b64encode(raw).decode())
    types = Types({"t": {"k": "bytea"}}, Encodings(binary=binary))
    found = Debezium(types=types)("p.public.t", json.dumps({"k": text}).encode(), json.dumps(envelope({})).encode())
    assert isinstance(found, Changes)
    assert found.changes[0].key == {"k": raw}
    assert (
        Detect(Debezium(types=types))("p.public.t", json.dumps({"k": text}).encode(), json.dumps(envelope({})).encode())
        == found
    )
