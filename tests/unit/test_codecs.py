"""Values as bytes: what comes back, and that bytes of others, or damaged ones, are refused as such."""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachelib import codecs
from cachelib.codecs import PREFIX_BYTES, Codec, Packer, codec_of
from cachelib.errors import ConfigError, DecodeError, LaterCodec, ValueTooLarge
from tests.servers.missing import package

BIG = 1 << 30
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
DECIMALS = st.decimals(allow_nan=False)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**300), 2**300),
    st.floats(allow_nan=False),
    TEXTS,
    st.binary(),
    DECIMALS,
    st.uuids(),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(timezones=ZONES),
    st.timedeltas(),
)
NAMES = st.one_of(TEXTS, st.integers(-(2**63), 2**64 - 1), st.uuids(), st.dates())
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=12)


def through(packer: Packer, value: Any) -> Any:
    return packer.unpack(packer.pack(value, BIG))


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types: 1, 1.0, True and Decimal(1) are four values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(name in other and same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime):
        return bool(one == other and one.utcoffset() == other.utcoffset())
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    return bool(one == other)


# --- the default codec -----------------------------------------------------------------------


@given(VALUES)
@example(2**64)
@example(-(2**63) - 1)
@example([Decimal("1.10"), {"a": None}])
@example({1: "a", "1": "b"})
def test_msgpack_gives_back_what_it_was_given(value: Any) -> None:
    assert same(through(Packer("msgpack"), value), value)


@pytest.mark.parametrize(
    "value",
    [
        time(1, 2, 3, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime.min,
        date.max,
        timedelta.min,
        Decimal("-0"),
        Decimal("Infinity"),
        UUID(int=0),
        -0.0,
        2**2000,
        {"nested": [[[{"deep": Decimal("0.1")}]]]},
        {(1, 2): "tuple key"},
    ],
)
def test_msgpack_keeps_odd_values(value: Any) -> None:
    assert same(through(Packer("msgpack"), value), value)


def test_msgpack_keeps_not_a_number() -> None:
    assert math.isnan(through(Packer("msgpack"), float("nan")))
    assert through(Packer("msgpack"), Decimal("NaN")).is_nan()


def test_a_tuple_comes_back_as_a_list() -> None:
    assert through(Packer("msgpack"), (1, (2,))) == [1, [2]]


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, lambda: 0, "\ud800", {"a": {1}}, [2**64, {3}]])
def test_a_value_that_cannot_be_written_is_a_mistake_of_the_program(value: Any) -> None:
    with pytest.raises(ConfigError, match="cannot encode"):
        Packer("msgpack").pack(value, BIG)


def test_a_value_that_contains_itself_is_a_mistake_of_the_program() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ConfigError, match="cannot encode"):
        Packer("msgpack").pack(value, BIG)


# --- the others ------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXTS
    ),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=10,
)


@given(PLAIN)
def test_json_gives_back_plain_values(value: Any) -> None:
    assert through(Packer("json"), value) == value


@given(st.binary())
def test_bytes_are_kept_as_they_are(value: bytes) -> None:
    assert through(Packer("bytes"), value) == value


def test_bytes_take_nothing_else() -> None:
    with pytest.raises(ConfigError, match="codec 'bytes' keeps bytes, not a str"):
        Packer("bytes").pack("text", BIG)


class Order(msgspec.Struct):
    number: int
    total: Decimal
    at: datetime
    lines: list[str] = []


@dataclass
class Point:
    x: int
    label: str | None = None


class Named(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Order, Order(7, Decimal("9.90"), datetime(2026, 1, 1, tzinfo=UTC), ["a"])),
        (Point, Point(3, "p")),
        (Point, Point(3)),
        (Named, {"name": "n"}),
        (list[Point], [Point(1), Point(2)]),
        (dict[str, int], {"a": 1}),
        (int | None, None),
    ],
)
def test_a_typed_value_comes_back_as_its_type(kind: Any, value: Any) -> None:
    got = through(Packer(kind), value)
    assert got == value
    assert type(got) is type(value)


def test_a_typed_codec_refuses_what_is_not_its_type() -> None:
    with pytest.raises(DecodeError):
        through(Packer(Point), Point("no number"))  # type: ignore[arg-type]


def test_a_type_that_cannot_be_described_is_refused() -> None:
    with pytest.raises(ConfigError, match="codec"):
        codec_of(object)


def test_pydantic_models_are_checked_and_come_back() -> None:
    pydantic = package("pydantic")

    class Customer(pydantic.BaseModel):
        id: int
        spent: Decimal

    packer = Packer(Customer)
    assert through(packer, Customer(id=1, spent=Decimal("1.5"))) == Customer(id=1, spent=Decimal("1.5"))
    with pytest.raises(ConfigError, match="keeps Customer, not a dict"):
        packer.pack({"id": 1}, BIG)


class Upper:
    """Somebody's own codec."""

    name = "upper 1"

    def encode(self, value: str) -> bytes:
        return value.upper().encode()

    def decode(self, body: bytes) -> str:
        return body.decode()


def test_an_own_codec_is_used_as_it_is() -> None:
    assert isinstance(Upper(), Codec)
    assert through(Packer(Upper()), "a") == "A"


def test_a_wrong_name_of_a_codec_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'msgpack'"):
        codec_of("msgpak")


@pytest.mark.parametrize("schema", [-1, 256, "1", 1.0, None, True])
def test_a_wrong_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigError, match="schema"):
        Packer("msgpack", schema)


@pytest.mark.parametrize("over", [-1, "x", 1.5])
def test_a_wrong_compression_limit_is_refused(over: Any) -> None:
    with pytest.raises(ConfigError, match="compress_over"):
        Packer("msgpack", 0, over)


# --- tags: a rolling deploy ------------------------------------------------------------------


def test_a_later_schema_is_left_to_the_program_that_wrote_it() -> None:
    with pytest.raises(LaterCodec):
        Packer("msgpack", 1).unpack(Packer("msgpack", 2).pack(7, BIG))


def test_an_earlier_schema_is_a_value_to_be_refilled() -> None:
    with pytest.raises(DecodeError) as caught:
        Packer("msgpack", 2).unpack(Packer("msgpack", 1).pack(7, BIG))
    assert not isinstance(caught.value, LaterCodec)


def test_of_two_codecs_exactly_one_gives_way() -> None:
    packers = [Packer(kind) for kind in ("msgpack", "json", "bytes", Point, Order, Upper())]
    for one in packers:
        for other in packers:
            if one is not other:
                later = LaterCodec if other.tag > one.tag else DecodeError
                with pytest.raises(DecodeError) as caught:
                    one.unpack(other.pack(_value_for(other), BIG))
                assert type(caught.value) is later


def _value_for(packer: Packer) -> Any:
    by_name = {"bytes": b"x", "upper 1": "x"}
    return by_name.get(packer.codec.name, [1])


def test_schemas_outrank_codecs() -> None:
    assert min(Packer(kind, 1).tag for kind in ("msgpack", "json", Point)) > max(
        Packer(kind, 0).tag for kind in ("msgpack", "json", Point)
    )


def test_a_changed_type_has_another_tag() -> None:
    @dataclass
    class Point:
        x: int
        y: int

    assert Packer(Point).tag != Packer(globals()["Point"]).tag


def test_a_tag_is_the_same_in_every_process() -> None:
    assert Packer("msgpack", 3).pack(None, BIG)[: PREFIX_BYTES - 3] == b"\0\3"
    assert Packer("msgpack").tag == zlib.crc32(b"msgpack") & 0xFFFFFF


# --- doubt is a miss (I12) -------------------------------------------------------------------

PACKERS = [Packer("msgpack"), Packer("json"), Packer(Order), Packer(Point), Packer("msgpack", 0, 0)]


@given(st.sampled_from(PACKERS), st.binary())
def test_garbage_is_a_decode_error_or_a_value(packer: Packer, garbage: bytes) -> None:
    for raw in (garbage, packer.pack(None, BIG)[:PREFIX_BYTES] + garbage):
        try:
            packer.unpack(raw)
        except DecodeError:
            pass


@given(st.sampled_from(PACKERS), VALUES, st.integers(0, 40), st.integers(0, 255))
def test_damage_is_a_decode_error_or_a_value(packer: Packer, value: Any, at: int, byte: int) -> None:
    try:
        raw = bytearray(packer.pack(value, BIG))
    except ConfigError:
        return
    raw[at % len(raw)] = byte
    try:
        packer.unpack(bytes(raw))
    except DecodeError:
        pass


@given(st.sampled_from(PACKERS), st.lists(st.integers(0, 2**63), min_size=1), st.data())
def test_a_truncated_list_is_a_decode_error(packer: Packer, value: list[int], data: st.DataObject) -> None:
    raw = packer.pack(value, BIG)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(DecodeError):
        packer.unpack(raw[:cut])


def test_deeply_nested_garbage_is_a_decode_error() -> None:
    packer = Packer("msgpack")
    with pytest.raises(DecodeError):
        packer.unpack(packer.pack(None, BIG)[:PREFIX_BYTES] + b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize("code", [0, 8, 127])
def test_an_unknown_extension_is_a_decode_error(code: int) -> None:
    packer = Packer("msgpack")
    with pytest.raises(DecodeError):
        packer.unpack(packer.pack(None, BIG)[:PREFIX_BYTES] + b"\xd4" + bytes([code]) + b"x")


@pytest.mark.parametrize("code", range(1, 8))
def test_a_damaged_extension_is_a_decode_error(code: int) -> None:
    packer = Packer("msgpack")
    with pytest.raises(DecodeError):
        packer.unpack(packer.pack(None, BIG)[:PREFIX_BYTES] + b"\xd4" + bytes([code]) + b"\xff")


# --- size and compression --------------------------------------------------------------------


def test_a_large_value_is_compressed_and_comes_back() -> None:
    packer = Packer("msgpack", compress_over=100)
    value = ["again and again"] * 100
    assert len(packer.pack(value, BIG)) < 100
    assert through(packer, value) == value


def test_what_compression_makes_no_smaller_stays_plain() -> None:
    noise = random.Random(1).randbytes(1000)
    packer = Packer("bytes", compress_over=0)
    assert packer.pack(noise, BIG)[0] == 0
    assert through(packer, noise) == noise


def test_programs_with_and_without_compression_read_each_other() -> None:
    value = ["x" * 100] * 100
    small, plain = Packer("msgpack", compress_over=10), Packer("msgpack", compress_over=None)
    assert plain.unpack(small.pack(value, BIG)) == small.unpack(plain.pack(value, BIG)) == value


def test_a_value_over_the_limit_is_refused_and_one_at_it_is_not() -> None:
    packer = Packer("bytes")
    assert len(packer.pack(b"x" * 95, 95 + PREFIX_BYTES)) == 100
    with pytest.raises(ValueTooLarge):
        packer.pack(b"x" * 96, 95 + PREFIX_BYTES)


def test_a_decompression_bomb_is_a_decode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = Packer("bytes", compress_over=0)
    bomb = packer.pack(b"\0" * 1_000_000, BIG)
    assert len(bomb) < 5_000
    monkeypatch.setattr(codecs, "_BODY_BYTES_MAX", 100_000)
    with pytest.raises(DecodeError, match="larger than any value"):
        packer.unpack(bomb)


@given(st.integers(0, 200))
def test_a_cut_compressed_body_is_a_decode_error(cut: int) -> None:
    packer = Packer("bytes", compress_over=0)
    raw = packer.pack(b"abc" * 1000, BIG)
    with pytest.raises(DecodeError):
        packer.unpack(raw[: min(cut, len(raw) - 1)])
