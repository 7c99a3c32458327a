"""A real MariaDB's change log, kept, is read as what was done (`format_samples/mariadb.py` says what that was)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from cachelib.keys import Template
from invalidator.formats.base import Changes, Heartbeat, Ignored
from invalidator.formats.debezium import Debezium
from invalidator.formats.detect import Detect
from tests.unit.format_samples import changes_of, load, told
from tests.unit.format_samples.mariadb import (
    AS_THE_DRIVER_HAS_IT,
    BY_TABLE,
    HOME,
    KEY_TYPES,
    KeyType,
    decoders,
    flattened,
)

DECODERS = decoders()
SEEN = {name: load(name) for name in DECODERS}
TOPICS = {(name, one.topic) for name, seen in SEEN.items() for one in seen}
KEYS = [
    pytest.param(name, one, id=f"{name}-{one.name}")
    for name in DECODERS
    for one in KEY_TYPES
    if (name, f"{name}.shop.{one.table}") in TOPICS
]


def test_topics_of_tables_tell_what_was_done() -> None:
    assert told(DECODERS["mariadb_plain"], SEEN["mariadb_plain"]) == BY_TABLE


def test_schemas_in_place_of_said_types() -> None:
    kept = {table: rows for table, rows in BY_TABLE.items() if table != "orders"}
    assert told(DECODERS["mariadb_schema"], SEEN["mariadb_schema"]) == kept


def test_connector_for_mysql_tells_the_same() -> None:
    assert told(DECODERS["mysql_plain"], SEEN["mysql_plain"]) == {"orders": BY_TABLE["orders"]}


def test_flattened_topics_know_no_image_before_and_no_truncate() -> None:
    assert told(DECODERS["mariadb_flat"], SEEN["mariadb_flat"]) == flattened()


@pytest.mark.parametrize("name", DECODERS)
def test_every_sample_is_read_and_its_format_detected(name: str) -> None:
    debezium = DECODERS["mariadb_plain"] if name != "mariadb_schema" else DECODERS[name]
    detect = Detect(debezium, DECODERS["mariadb_flat"])  # type: ignore[arg-type]
    for one in SEEN[name]:
        decoder = DECODERS[name] if "heartbeat" not in one.topic else debezium
        assert detect(one.topic, one.key, one.value, one.headers) == decoder(one.topic, one.key, one.value, one.headers)


@pytest.mark.parametrize(("name", "one"), KEYS)
def test_key_is_the_one_that_the_library_makes(name: str, one: KeyType) -> None:
    keys = [change.key for change in changes_of(DECODERS[name], SEEN[name]) if change.table == one.table]
    for kind in one.kinds:
        template = Template(f"thing:{{k:{kind}}}")
        made = {template.render(template.from_columns(key, ("k",))) for key in keys}
        assert template.render(one.value) in made


def wide(op: str) -> list[Mapping[str, Any]]:
    found = changes_of(DECODERS["mariadb_schema"], SEEN["mariadb_schema"])
    return [change.after or {} for change in found if change.table == "wide" and change.op == op]


def test_values_come_out_as_the_driver_has_them() -> None:
    after = wide("create")[0]
    assert {name: after[name] for name in AS_THE_DRIVER_HAS_IT} == AS_THE_DRIVER_HAS_IT
    assert after["seen"] == datetime(2024, 2, 29, 10, 34, 56, 500000, UTC)


def test_time_that_is_no_time_of_day_is_unknown() -> None:
    assert all(("clock" in after) == (after["list_id"] is not None) for after in wide("update"))


def test_number_that_may_be_unsigned_is_told_both_ways() -> None:
    (seen,) = (one for one in SEEN["mariadb_plain"] if one.topic.endswith("key_bigint_huge"))
    changes = changes_of(DECODERS["mariadb_plain"], [seen])
    assert [change.key["k"] for change in changes] == [-1, 2**64 - 1]


def test_uuid_that_may_have_lost_its_end_is_told_both_ways() -> None:
    (seen,) = (one for one in SEEN["mariadb_plain"] if one.topic.endswith("key_uuid_v4_last"))
    assert seen.key == b'{"k":"006f1eca-fe1c-2d4e-3f8a-5b0123456789"}'
    changes = changes_of(DECODERS["mariadb_plain"], [seen])
    assert [change.key["k"] for change in changes] == [
        "006f1eca-fe1c-2d4e-3f8a-5b0123456789",
        "6f1ecafe-1c2d-4e3f-8a5b-012345678900",
    ]


def test_rows_that_a_connector_only_read_are_flagged() -> None:
    (first, *_) = (one for one in SEEN["mariadb_schema"] if one.topic.endswith(".old"))
    answer = DECODERS["mariadb_schema"](first.topic, first.key, first.value)
    assert isinstance(answer, Changes)
    assert answer.snapshot
    assert answer.changes[0].key == {"id": 1}


def test_place_and_time_are_told_and_no_transaction_by_which_to_look_twice() -> None:
    first = next(one for one in SEEN["mariadb_plain"] if one.topic.endswith("orders"))
    answer = DECODERS["mariadb_plain"](first.topic, first.key, first.value)
    assert isinstance(answer, Changes)
    assert answer.position.startswith("binlog.000001:")
    assert answer.changes[0].tx is None
    assert answer.changes[0].at_us > 1_700_000_000_000_000


@pytest.mark.parametrize("name", DECODERS)
def test_heartbeat_measures_lag_and_proves_nothing(name: str) -> None:
    beat = next(one for one in SEEN[name] if "heartbeat" in one.topic)
    found = Detect()(beat.topic, beat.key, beat.value)
    assert isinstance(found, Heartbeat)
    assert found.at_us > 1_700_000_000_000_000
    assert found.watermark_us is None


def test_changes_of_a_tables_schema_renew_it() -> None:
    ddl = [one for one in SEEN["mariadb_plain"] if one.topic == "mariadb_plain" and b'"snapshot":"false"' in one.value]  # type: ignore[operator]
    found = [(change.table, change.op) for change in changes_of(DECODERS["mariadb_plain"], ddl)]
    # alter, rename (under its new name), drop, create or replace
    assert found == [("old", "truncate"), ("renamed", "truncate"), ("renamed", "truncate"), ("old", "truncate")]


def test_where_transactions_end_is_ignored_with_a_reason() -> None:
    ends = [one for one in SEEN["mariadb_plain"] if one.topic.endswith(".transaction")]
    assert ends
    for one in ends:
        answer = Debezium(tables=HOME)(one.topic, one.key, one.value)
        assert isinstance(answer, Ignored)
        assert "transaction" in answer.why
