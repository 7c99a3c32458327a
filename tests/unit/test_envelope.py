"""The envelope: what goes in comes out, and what is not an item never becomes one (I12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.codecs import Packer
from cachelib.envelope import (
    DOUBT,
    FEW,
    HEADER_BYTES,
    MAGIC,
    OVERHEAD_BYTES,
    decode,
    decode_hit,
    encode,
    encode_header,
    plain_hit,
    plain_reader,
    plain_values,
)
from cachelib.errors import DecodeError
from cachelib.item import serves
from cachelib.model import ABSENCE, ANY, NOTHING, U64_MAX, Item, Requirement, value_of

NUMBERS = st.sampled_from((0, 1, 255, 256, 2**53 + 1, 2**63, U64_MAX)) | st.integers(0, U64_MAX)
ITEMS = st.builds(
    Item,
    content=st.sampled_from((ABSENCE, NOTHING)) | st.builds(value_of, st.binary(max_size=200)),
    void=st.booleans(),
    known=st.booleans(),
    version=NUMBERS,
    floor=NUMBERS,
    floor_gone=st.booleans(),
    lease=NUMBERS,
    lease_until_ms=NUMBERS,
    soft_expire_ms=NUMBERS,
    as_of_us=NUMBERS,
    stale_until_ms=NUMBERS,
    expires_ms=NUMBERS,
)
GOOD = encode(Item(value_of(b"payload"), known=True, version=5, floor=5))


@given(ITEMS)
def test_item_comes_back_as_it_was(item: Item) -> None:
    assert decode(encode(item)) == item


@given(ITEMS)
def test_header_stands_alone_before_the_payload(item: Item) -> None:
    raw = encode(item)
    assert raw == encode_header(item) + item.content.payload
    assert len(raw) == OVERHEAD_BYTES + len(item.content.payload)


def test_layout_is_what_other_servers_read() -> None:
    item = Item(value_of(b"p"), True, True, 1, 2, True, 3, 4, 5, 6, 7, 8)
    assert encode(item) == b"\xca\x01\x00\x1d" + b"".join(n.to_bytes(8, "big") for n in (1, 2, 5, 6, 3, 4, 7, 8)) + b"p"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_item_or_an_error(raw: bytes) -> None:
    try:
        assert encode(decode(raw)) == raw
    except DecodeError:
        pass


@given(st.binary(max_size=200), st.integers(0, 255))
def test_any_bytes_behind_our_magic_are_an_item_or_an_error(rest: bytes, flags: int) -> None:
    raw = MAGIC.to_bytes(2, "big") + bytes([0, flags]) + rest
    try:
        assert encode(decode(raw)) == raw
    except DecodeError:
        pass


@pytest.mark.parametrize("length", [0, 1, 4, HEADER_BYTES - 1])
def test_item_cut_short_is_an_error(length: int) -> None:
    with pytest.raises(DecodeError, match=str(length)):
        decode(GOOD[:length])


@pytest.mark.parametrize("flags", [3, 11, 32, 64, 128, 255])
def test_unknown_flags_are_an_error(flags: int) -> None:
    with pytest.raises(DecodeError):
        decode(GOOD[:3] + bytes([flags]) + GOOD[4:])


def test_other_format_is_an_error() -> None:
    for raw in (b"\xca\x02" + GOOD[2:], b"\xcb\x01" + GOOD[2:], GOOD[:2] + b"\1" + GOOD[3:]):
        with pytest.raises(DecodeError, match="not an item"):
            decode(raw)


@pytest.mark.parametrize("content", [ABSENCE, NOTHING])
def test_bytes_behind_an_item_without_a_value_are_an_error(content) -> None:
    with pytest.raises(DecodeError, match="1 bytes behind"):
        decode(encode(Item(content)) + b"x")


@given(ITEMS, NUMBERS)
def test_plain_hit_says_yes_only_to_what_serves_everybody(item: Item, now_ms: int) -> None:
    if plain_hit(encode(item), now_ms):
        assert decode_hit(encode(item), ANY, now_ms) == item
        assert item.content not in (ABSENCE, NOTHING)


@given(ITEMS, NUMBERS, st.sampled_from([b"", b"value"]))
def test_a_reader_of_plain_hits_answers_what_the_long_way_does(item: Item, now_ms: int, prefix: bytes) -> None:
    packer = Packer("bytes")
    content = (
        value_of((packer.prefix if prefix else b"") + item.content.payload) if item.content.payload else item.content
    )
    raw = encode(item.but(content=content))
    value = plain_reader(packer.prefix, packer.decode, packer.unpack)(raw, now_ms)
    if value is not DOUBT:
        assert plain_hit(raw, now_ms)
        assert value == packer.unpack(content.payload)
    elif prefix and content is not item.content:
        assert not plain_hit(raw, now_ms)


@given(st.binary(max_size=HEADER_BYTES + 20), NUMBERS)
def test_a_reader_of_plain_hits_doubts_what_is_no_item(raw: bytes, now_ms: int) -> None:
    packer = Packer("msgpack")
    assert plain_reader(packer.prefix, packer.decode, packer.unpack)(raw, now_ms) is DOUBT


def test_a_reader_of_plain_hits_doubts_a_value_that_cannot_be_read() -> None:
    packer = Packer("msgpack")
    raw = encode(Item(value_of(packer.prefix + b"\xc1"), version=1))
    assert plain_reader(packer.prefix, packer.decode, packer.unpack)(raw, 0) is DOUBT


def one_by_one(raws: list[bytes | None], now_ms: int, packer: Packer) -> tuple[list[object], list[int]]:
    values: list[object] = []
    others = []
    for at, raw in enumerate(raws):
        plain = raw is not None and plain_hit(raw, now_ms) and raw[HEADER_BYTES:].startswith(packer.prefix)
        try:
            values.append(packer.unpack(raw, HEADER_BYTES) if plain and raw is not None else None)
        except DecodeError:
            plain = False
            values.append(None)
        if not plain:
            others.append(at)
    return values, others


@given(st.lists(st.none() | st.binary(max_size=80) | ITEMS.map(encode), max_size=5), st.lists(NUMBERS), NUMBERS)
def test_values_of_many_are_those_of_each(odd: list[bytes | None], softs: list[int], now_ms: int) -> None:
    packer = Packer("msgpack")
    body = packer.pack("value", 1000)
    plain = [encode(Item(value_of(body), version=5, floor=5, soft_expire_ms=soft)) for soft in softs]
    broken = encode(Item(value_of(packer.prefix + b"\xc1"), version=5))
    for raws in (
        plain,
        plain * FEW,
        [*plain * FEW, *odd],
        [*plain, *odd],
        [*odd, *plain],
        [*plain, broken],
        [None, *plain],
    ):
        assert plain_values(raws, now_ms, packer.prefix, packer.decode) == one_by_one(raws, now_ms, packer)


@given(st.binary(max_size=HEADER_BYTES + 20), NUMBERS)
def test_plain_hit_says_no_to_what_is_no_item(raw: bytes, now_ms: int) -> None:
    if plain_hit(raw, now_ms):
        decode(raw)


@given(ITEMS, st.builds(Requirement, st.none() | NUMBERS, st.none() | NUMBERS), NUMBERS)
def test_decode_hit_serves_what_serves_and_is_not_due(item: Item, asked: Requirement, now_ms: int) -> None:
    due = item.soft_expire_ms != 0 and now_ms >= item.soft_expire_ms
    assert decode_hit(encode(item), asked, now_ms) == (item if serves(item, asked) and not due else None)
