"""Real Debezium's records, kept, are read as what was done (`format_samples` says what that was)."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest

from invalidator.formats.base import Changes, Ignored
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxRouter
from tests.unit.format_samples import BY_LOG, BY_TABLE, LINE, TYPES, UNKNOWN, changes_of, load, told

PLAIN = [one for one in load("plain") if "leasecache" not in one.topic]
LOG = [one for one in load("plain") if "leasecache" in one.topic]
DECODER = Debezium(types=Types(TYPES))


def test_topics_of_tables_tell_what_was_done() -> None:
    assert told(DECODER, PLAIN) == BY_TABLE


def test_schemas_in_place_of_said_types() -> None:
    assert told(Debezium(), load("schema")) == BY_TABLE


def test_flattened_topics_know_no_image_before_and_no_truncate() -> None:
    found = told(Flattened(types=Types(TYPES)), load("flat"))
    assert found["wide"] == [
        (op, key, version, None if op == "create" else UNKNOWN, now) for op, key, version, _, now in BY_TABLE["wide"]
    ]
    assert found["orders"] == BY_TABLE["orders"][:-1]


def test_captured_change_log_tells_versions_of_deletes() -> None:
    assert told(Debezium(), LOG) == BY_LOG


def test_routed_change_log_tells_all_but_amendments() -> None:
    expected = {table: [row for row in rows if row != ("create", 2, 5, None, 8)] for table, rows in BY_LOG.items()}
    assert told(OutboxRouter(prefix="routed."), load("routed")) == expected


def test_tombstones_are_ignored_where_a_delete_was_before() -> None:
    answers = [DECODER(one.topic, one.key, one.value) for one in PLAIN if one.value is None]
    assert len(answers) == 4
    assert all(isinstance(answer, Ignored) for answer in answers)


def test_tombstones_of_a_compacted_topic_are_deletes() -> None:
    decoder = Debezium(types=Types(TYPES), tombstones="delete")
    found = changes_of(decoder, [one for one in PLAIN if one.value is None])
    assert {(change.op, change.version, change.after) for change in found} == {("delete", None, None)}
    assert {change.table for change in found} == {"orders", "wide", "ops.lines"}


def test_delete_with_defaults_for_values_is_not_believed() -> None:
    """Under REPLICA IDENTITY DEFAULT Debezium writes customer_id 0 where it was 8."""
    (deleted,) = (one for one in PLAIN if b'"op":"d"' in (one.value or b"") and one.key == b'{"id":2}')
    assert b'"customer_id":0' in (deleted.value or b"")
    (change,) = changes_of(DECODER, [deleted])
    assert change.before == {"id": 2}


def test_delete_of_a_table_said_to_be_full_is_believed() -> None:
    (deleted,) = (one for one in PLAIN if b'"op":"d"' in (one.value or b"") and one.key == b'{"id":2}')
    (change,) = changes_of(Debezium(full=["orders"]), [deleted])
    assert change.before is not None
    assert change.before["customer_id"] == 0


def test_unchanged_long_value_is_unknown_not_a_marker() -> None:
    (updated,) = (
        one
        for one in PLAIN
        if b"unavailable" in (one.value or b"") and b'"customer_id":8' in (one.value or b"") and one.key == b'{"id":1}'
    )
    (change,) = changes_of(DECODER, [updated])
    assert change.after is not None
    assert "body" not in change.after


def test_place_time_and_transaction_are_told() -> None:
    first = next(one for one in PLAIN if "orders" in one.topic)
    answer = DECODER(first.topic, first.key, first.value)
    assert isinstance(answer, Changes)
    assert int(answer.position) > 0
    assert not answer.snapshot
    (change,) = answer.changes
    assert change.tx is not None
    assert change.at_us > 1_700_000_000_000_000


def test_values_come_out_as_the_driver_has_them() -> None:
    (created,) = (one for one in load("schema") if "wide" in one.topic and b'"op":"c"' in (one.value or b""))
    (change,) = changes_of(Debezium(), [created])
    assert change.after == {
        "id": 1,
        "list_id": 5,
        "day": date(2024, 2, 29),
        "at": datetime(2024, 2, 29, 12, 34, 56, 789012),
        "seen": datetime(2024, 2, 29, 10, 34, 56, 500000, UTC),
        "clock": time(23, 59, 59, 999999),
        "exact": Decimal("123456789012345678901234567890.123456789"),
        "blob": b"\x00\xff",
        "doc": "{}",
        "word": LINE,
        "yes": True,
        "tags": ["a"],
        "row_version": 7,
    }


def test_values_that_python_has_not_are_unknown() -> None:
    updates = [one for one in load("schema") if "wide" in one.topic and b'"op":"u"' in (one.value or b"")]
    *_, change = changes_of(Debezium(), updates)
    assert change.after is not None
    assert not {"day", "clock"} & set(change.after)  # -infinity, 24:00
    assert change.before is not None
    assert change.before["day"] == date(2024, 2, 29)


@pytest.mark.parametrize("name", ["plain", "schema", "flat", "routed"])
def test_every_sample_is_read(name: str) -> None:
    decoder = {"flat": Flattened(types=Types(TYPES)), "routed": OutboxRouter()}.get(name, DECODER)
    for one in load(name):
        assert decoder(one.topic, one.key, one.value, one.headers)
