"""Flattened rows, the relay's own records, the routed change log, and finding out which is which."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.model import U64_MAX, RowChange
from invalidator.formats.base import Changes, Decoded, DecodeFailed, Decoder, Heartbeat, Ignored
from invalidator.formats.columns import Encodings
from invalidator.formats.connect_json import Types
from invalidator.formats.detect import Detect
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxColumns, OutboxRouter
from invalidator.formats.relay import Relay, RelayEncoder
from tests.unit.format_samples import load

KEY = b'{"id":1}'
TOPIC = "shop.public.orders"


def one(answer: Decoded) -> RowChange:
    assert isinstance(answer, Changes)
    (change,) = answer.changes
    return change


def flat(row: Any, key: bytes | None = KEY, headers: Any = (), **settings: Any) -> Decoded:
    return Flattened(**settings)(TOPIC, key, None if row is None else json.dumps(row).encode(), headers)


# --- flattened -------------------------------------------------------------------------------


def test_tombstone_is_a_delete() -> None:
    assert one(flat(None)) == RowChange("orders", "delete", {"id": 1}, before={"id": 1})


def test_tombstone_behind_a_rewritten_delete_is_ignored() -> None:
    assert one(flat({"id": 1, "row_version": 9, "__deleted": "true"})).op == "delete"
    assert isinstance(flat(None, tombstones="ignore"), Ignored)


def test_delete_has_no_version() -> None:
    assert one(flat({"id": 1, "row_version": 9, "__op": "d"})).version is None


def test_without_an_operation_a_version_counts_as_a_create_whose_past_is_unknown() -> None:
    """A create's floor also voids cached absence, and the images name the old lists as unknown."""
    assert one(flat({"id": 1, "row_version": 9})) == RowChange(
        "orders", "create", {"id": 1}, 9, {"id": 1}, {"id": 1, "row_version": 9}
    )


def test_without_operation_and_version_it_is_an_update() -> None:
    assert one(flat({"id": 1})) == RowChange("orders", "update", {"id": 1}, None, {"id": 1}, {"id": 1})


def test_metadata_in_headers() -> None:
    headers = [
        ("__op", b"u"),
        ("__table", b"lines"),
        ("__source_schema", b"ops"),
        ("__lsn", b"77"),
        ("__source_ts_ms", b"5"),
    ]
    answer = flat({"id": 1}, headers=headers)
    assert isinstance(answer, Changes)
    assert answer.position == "77"
    assert (one(answer).table, one(answer).at_us) == ("ops.lines", 5000)


def test_snapshot_row_is_flagged() -> None:
    answer = flat({"id": 1, "__op": "r"})
    assert isinstance(answer, Changes)
    assert answer.snapshot


def test_update_of_a_table_without_a_key_names_no_row() -> None:
    change = one(flat({"id": 1, "__op": "u"}, key=None))
    assert (change.key, change.before) == ({}, {})


def test_record_without_key_and_value_leaves_the_table() -> None:
    """A truncate may look like this."""
    with pytest.raises(DecodeFailed) as failed:
        flat(None, key=None)
    assert failed.value.instead == (RowChange("orders", "truncate"),)


@pytest.mark.parametrize(("said", "value"), [("2024-02-29Z", "iso"), (19782, "days")])
def test_dates_in_either_notation(said: Any, value: str) -> None:
    types = Types({"orders": {"day": "date"}}, Encodings(iso_dates=value == "iso"))
    assert one(flat({"id": 1, "day": said}, types=types)).after == {"id": 1, "day": date(2024, 2, 29)}


# --- the relay -------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.dates()
    | st.uuids()
    | st.decimals(allow_nan=False, allow_infinity=False)
)
COLUMNS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), SCALARS | st.binary(), max_size=5
)
CHANGES = st.builds(
    RowChange,
    table=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    op=st.sampled_from(["create", "update", "delete"]),
    key=COLUMNS,
    version=st.none() | st.integers(1, U64_MAX),
    before=COLUMNS,
    after=COLUMNS,
    tx=st.none() | st.integers(0, 2**63 - 1),
    at_us=st.integers(0, 2**60),
)


@given(change=CHANGES, position=st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_packed_comes_out_as_it_was(change: RowChange, position: str) -> None:
    key, value = RelayEncoder("msgpack").change(change, position)
    assert Relay()("t", key, value) == Changes((change,), position)


@given(change=CHANGES)
def test_what_is_written_as_json_comes_out_as_the_change_log_has_it(change: RowChange) -> None:
    def logged(row: Any) -> Any:
        return {
            name: f"\\x{given.hex()}"
            if isinstance(given, bytes)
            else str(given)
            if isinstance(given, date | UUID)
            else given
            for name, given in row.items()
        }

    found = one(Relay()("t", *RelayEncoder("json").change(change)))
    assert (found.key, found.before, found.after) == (logged(change.key), logged(change.before), logged(change.after))
    assert (found.table, found.op, found.version, found.tx) == (change.table, change.op, change.version, change.tx)


@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_heartbeat_carries_the_proof(form: Any) -> None:
    beat = Heartbeat(1_700_000_000_000_000, 1_699_999_999_000_000, 12, "7.8")
    assert Relay()("t", None, RelayEncoder(form).heartbeat(beat)) == beat


@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_truncate_survives(form: Any) -> None:
    change = RowChange("orders", "truncate", version=7)
    assert one(Relay()("t", *RelayEncoder(form).change(change))) == change


def test_order_of_columns_does_not_choose_the_partition() -> None:
    one_way, other = RowChange("t", "update", {"a": 1, "b": 2}), RowChange("t", "update", {"b": 2, "a": 1})
    assert RelayEncoder().change(one_way)[0] == RelayEncoder("json").change(other)[0]


@pytest.mark.parametrize("value", [None, b'{"leasecache":"change/2"}', b"\x91\xa8change/2", b"\xff", b""])
def test_later_or_broken_record_leaves_its_row(value: bytes | None) -> None:
    key, _ = RelayEncoder().change(RowChange("orders", "update", {"price": Decimal("1.50")}))
    with pytest.raises(DecodeFailed) as failed:
        Relay()("t", key, value)
    assert failed.value.instead == (
        RowChange("orders", "update", {"price": Decimal("1.50")}, before={"price": Decimal("1.50")}),
    )


def test_broken_record_without_a_key_leaves_nothing_known() -> None:
    with pytest.raises(DecodeFailed) as failed:
        Relay()("t", None, b"{}")
    assert failed.value.instead == ()


# --- the router ------------------------------------------------------------------------------


def test_columns_beside_the_payload_and_a_payload_that_is_an_object() -> None:
    value = {"payload": {"n": 2}, "op": "update", "version": 9, "before": '{"n": 1}', "at": "2024-02-29T00:00:00Z"}
    found = OutboxRouter()("outbox.event.orders", b'"{\\"id\\": 1}"', json.dumps(value).encode())
    assert one(found) == RowChange(
        "orders", "update", {"id": 1}, 9, {"id": 1, "n": 1}, {"id": 1, "n": 2}, None, 1709164800000000
    )


def test_columns_of_other_names() -> None:
    router = OutboxRouter(OutboxColumns(table="t", op="o", version="v"))
    assert one(router("x", KEY, b"null", [("o", b"delete"), ("v", b"3"), ("t", b"ops.lines")])) == RowChange(
        "ops.lines", "delete", {"id": 1}, 3, {"id": 1}
    )


@pytest.mark.parametrize("headers", [(), [("op", b"merge")], [("op", b"update"), ("before", b"[1]")]])
def test_row_that_says_too_little_leaves_its_key(headers: Any) -> None:
    with pytest.raises(DecodeFailed) as failed:
        OutboxRouter()("outbox.event.orders", KEY, b"null", headers)
    assert failed.value.instead == (RowChange("orders", "update", {"id": 1}, before={"id": 1}),)


# --- which is which --------------------------------------------------------------------------


def test_unmarked_object_is_not_taken_for_a_row() -> None:
    with pytest.raises(DecodeFailed, match="name the topic's format") as failed:
        Detect()(TOPIC, KEY, b'{"id":1,"name":"x"}')
    assert failed.value.instead == (RowChange("orders", "update", {"id": 1}, before={"id": 1}),)


def test_format_is_known_from_the_first_record_that_shows_it() -> None:
    detect = Detect()
    assert one(detect(TOPIC, KEY, b'{"id":1,"__op":"u"}')).op == "update"
    assert one(detect(TOPIC, KEY, b'{"id":1}')).op == "update"
    assert one(detect(TOPIC, KEY, None)).op == "delete"


def test_tombstone_follows_the_topics_format() -> None:
    detect, seen = Detect(), [s for s in load("plain") if "orders" in s.topic]
    answers = [detect(s.topic, s.key, s.value, s.headers) for s in seen]
    assert [type(answer) for answer, s in zip(answers, seen, strict=True) if s.value is None] == [Ignored, Ignored]


def test_tombstone_before_anything_else_is_a_delete() -> None:
    assert one(Detect()(TOPIC, KEY, None)).op == "delete"


def test_topic_may_change_its_format() -> None:
    detect = Detect()
    key, value = RelayEncoder().change(RowChange("orders", "update", {"id": 1}, 5, {"id": 1}, {"id": 1}))
    for record in ((KEY, b'{"id":1,"__op":"u"}'), (key, value), *((s.key, s.value) for s in load("schema")[:1])):
        assert one(detect(TOPIC, *record)).op in ("update", "create")


def test_all_are_decoders() -> None:
    decoders: list[Decoder] = [Detect(), Flattened(), OutboxRouter(), Relay()]
    assert all(map(callable, decoders))
