"""The hit path knows a value by the length of its reply: it must see one exactly where hiredis does."""

from __future__ import annotations

import hiredis
from hypothesis import example, given
from hypothesis import strategies as st

from cachelib.backends.redis.shapes import GET_HEADS, NAMES_MAX, VALUE_HEADS, VALUES_MAX

values = st.binary(max_size=300) | st.integers(0, VALUES_MAX).map(bytes)
tails = st.sampled_from([b"", b"\r\n", b"$1\r\nx\r\n", b"x"])


def read_by_its_length(data: bytes) -> bytes | None:
    """As `Transport.get` does it."""
    head = VALUE_HEADS[len(data)] if len(data) < VALUES_MAX else ()
    return data[len(head) : -2] if data.startswith(head) else None


def read_by_hiredis(data: bytes) -> bytes | None:
    """The value, if `data` is one and nothing else."""
    reader = hiredis.Reader()
    reader.feed(data)
    try:
        value = reader.gets()
    except hiredis.ProtocolError:
        return None
    return value if type(value) is bytes and not reader.has_data() and data.startswith(b"$") else None


@given(values, tails, st.integers(0, 20))
@example(b"", b"", 0)
@example(b"x" * 9, b"", 0)
@example(b"x" * 10, b"", 0)
def test_a_value_is_seen_where_hiredis_sees_one(value: bytes, tail: bytes, missing: int) -> None:
    whole = b"$%d\r\n%b\r\n" % (len(value), value) + tail
    data = whole[: len(whole) - missing] if missing else whole
    assert read_by_its_length(data) in (read_by_hiredis(data), None)
    if data == whole and not tail and len(data) < VALUES_MAX:
        assert read_by_its_length(data) == value


def test_every_value_that_is_not_long_is_seen() -> None:
    for length in range(VALUES_MAX - 16):
        assert read_by_its_length(b"$%d\r\n%b\r\n" % (length, bytes(length))) == bytes(length)


@given(st.binary(max_size=60) | st.sampled_from([b"$-1\r\n", b"+OK\r\n", b"-ERR no\r\n", b"*1\r\n$1\r\nx\r\n", b""]))
def test_nothing_else_is_taken_for_a_value(data: bytes) -> None:
    assert read_by_its_length(data) in (read_by_hiredis(data), None)


@given(st.binary(max_size=NAMES_MAX - 1))
def test_the_request_is_the_usual_one(name: bytes) -> None:
    assert b"".join((GET_HEADS[len(name)], name, b"\r\n")) == hiredis.pack_command((b"GET", name))  # type: ignore[arg-type]
