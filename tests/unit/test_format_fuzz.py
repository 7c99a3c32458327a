"""No record makes a decoder crash, and none is passed over in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachelib.model import RowChange
from invalidator.formats.base import Changes, DecodeFailed, Decoder, Headers, Heartbeat, Ignored
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium
from invalidator.formats.detect import Detect
from invalidator.formats.flattened import Flattened
from invalidator.formats.outbox_router import OutboxRouter
from invalidator.formats.relay import Relay, RelayEncoder
from tests.unit.format_samples import Seen, load

SAMPLES = [one for name in ("plain", "schema", "flat", "routed") for one in load(name)]
_CHANGE = RowChange("orders", "update", {"id": 1}, 7, {"id": 1}, {"id": 1, "price": 1.5})
SAMPLES += [
    Seen("relay", *RelayEncoder("json").change(_CHANGE)),
    Seen("relay", *RelayEncoder("msgpack").change(_CHANGE)),
]
TYPES = Types({"orders": {"id": "integer", "price": "numeric(12,2)", "day": "date", "raw": "bytea", "n": "numeric"}})
DECODERS: dict[str, Decoder] = {
    "debezium": Debezium(types=TYPES),
    "debezium, compacted": Debezium(types=TYPES, tombstones="delete", version=""),
    "flattened": Flattened(types=TYPES),
    "flattened, rewritten": Flattened(types=TYPES, tombstones="ignore"),
    "router": OutboxRouter(),
    "relay": Relay(),
}
WORDS = st.sampled_from(
    re.findall(
        r"\S+",
        """
        op source before after payload schema fields field type name parameters scale value connector table db txId lsn
        ts_ms ts_us id price day raw n __op __deleted __table __lsn tbl key version at ddl tableChanges status BEGIN
        data_collections leasecache c u d r t m true create update delete truncate postgresql mysql orders struct bytes
        int32 org.apache.kafka.connect.data.Decimal io.debezium.data.VariableScaleDecimal io.debezium.time.Date AAAA
        __debezium_unavailable_value 1e999999 infinity change/1 heartbeat/1
        """,
    )
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | WORDS
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=8), max_leaves=20
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes | None, bytes | None, Headers]:
    """A real record, with pieces of its JSON replaced, or bytes changed."""
    seen = draw(st.sampled_from(SAMPLES))
    key, value = seen.key, seen.value
    for _ in range(draw(st.integers(0, 3))):
        which = draw(st.sampled_from(["key", "value"]))
        text = key if which == "key" else value
        text = draw(st.one_of(_changed_tree(text), _changed_bytes(text))) if text else draw(_anything())
        key, value = (text, value) if which == "key" else (key, text)
    return key, value, seen.headers


def _changed_tree(text: bytes) -> st.SearchStrategy[bytes]:
    try:
        tree = json.loads(text)
    except ValueError:
        return _changed_bytes(text)
    places = list(_places(tree)) or [()]

    def change(place: tuple[Any, ...], given: Any) -> bytes:
        copied = json.loads(text)
        inside = copied
        for step in place[:-1]:
            inside = inside[step]
        if place:
            inside[place[-1]] = given
        else:
            copied = given
        return json.dumps(copied).encode()

    return st.builds(change, st.sampled_from(places), TREES)


def _places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for step, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*at, step)
        yield from _places(inner, (*at, step))


def _changed_bytes(text: bytes) -> st.SearchStrategy[bytes]:
    def change(start: int, end: int, given: bytes) -> bytes:
        return text[:start] + given + text[max(start, end) :]

    place = st.integers(0, len(text))
    return st.builds(change, place, place, st.binary(max_size=8))


def _anything() -> st.SearchStrategy[bytes | None]:
    packed = TREES.filter(_packs).map(msgspec.msgpack.encode)
    return st.none() | st.binary(max_size=60) | TREES.map(lambda tree: json.dumps(tree).encode()) | packed


def _packs(tree: Any) -> bool:
    try:
        msgspec.msgpack.encode(tree)
    except OverflowError:
        return False
    return True


HEADERS = st.lists(st.tuples(WORDS, st.none() | st.binary(max_size=8) | WORDS.map(str.encode)), max_size=4)
UNRELATED = st.tuples(_anything(), _anything(), HEADERS)


def check(decoder: Decoder, key: bytes | None, value: bytes | None, headers: Headers) -> None:
    answer: Changes | Ignored | Heartbeat | DecodeFailed
    try:
        answer = decoder("shop.public.orders", key, value, headers)
    except DecodeFailed as failed:
        answer = failed
    match answer:
        case DecodeFailed():
            assert answer.why
            for change in answer.instead:
                assert change.version is None
                assert change.op == "truncate" or change.key
        case Changes():
            assert answer.changes
            for change in answer.changes:
                assert change.table
                # Never an image that reads as "on no list": the images are there, if only with the key.
                assert change.before is not None or change.op in ("create", "truncate")
                assert change.after is not None or change.op in ("delete", "truncate")
                assert change.version is None or 0 < change.version < 2**64
        case Ignored():
            assert answer.why
        case Heartbeat():
            assert isinstance(answer.at_us, int)


@pytest.mark.parametrize("name", DECODERS)
@given(record=mutated())
def test_changed_record_is_read_or_refused(name: str, record: tuple[bytes | None, bytes | None, Headers]) -> None:
    check(DECODERS[name], *record)


@pytest.mark.parametrize("name", DECODERS)
@given(record=UNRELATED)
@example(record=(None, b"[" * 100_000, ()))
@example(record=(b"[" * 100_000, b"{}", ()))
@example(record=(None, b"\x91" * 100_000, ()))
@example(record=(b'{"id":1}', b'{"id":' + b"9" * 10_000 + b"}", ()))
@example(record=(b'{"id":1}', b'{"id":1e999999999999999999999}', ()))
@example(record=(b"\xff", b"\xff\xfe", (("op", b"\xff"), ("__op", b"\xff"))))
def test_any_bytes_are_read_or_refused(name: str, record: tuple[bytes | None, bytes | None, Headers]) -> None:
    check(DECODERS[name], *record)


@given(records=st.lists(mutated() | UNRELATED, max_size=4))
def test_any_mixture_in_one_topic_is_read_or_refused(records: list[tuple[bytes | None, bytes | None, Headers]]) -> None:
    detect = Detect(Debezium(types=TYPES), Flattened(types=TYPES))
    for record in records:
        check(detect, *record)


@given(name=st.sampled_from(["plain", "flat"]), data=st.data())
def test_what_is_ignored_of_real_records_is_only_tombstones_and_purges(name: str, data: st.DataObject) -> None:
    seen = data.draw(st.sampled_from(load(name)))
    decoder = Flattened() if name == "flat" else Debezium()
    if isinstance(decoder(seen.topic, seen.key, seen.value, seen.headers), Ignored):
        assert seen.value is None
