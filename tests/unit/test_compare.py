"""What an item, a change and a row loaded afterwards say together: every doubt goes to the cache's favour."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.codecs import Packer
from cachelib.compare import Known, Sight, Truth, certainly_stale, difference, identity, served, sight
from cachelib.envelope import encode
from cachelib.errors import DecodeError
from cachelib.model import ABSENCE, Content, Item, Kind, value_of

NOW_MS = 1_000_000
PACKER = Packer("msgpack", 0, None)


def content_of(value: Any) -> Content:
    return value_of(PACKER.pack(value, 1000))


VALUE = Item(content_of("old"), known=True, version=5, floor=5, as_of_us=100, expires_ms=NOW_MS + 9)
GONE = Item(ABSENCE, known=True, version=5, floor=5, floor_gone=True, as_of_us=100, expires_ms=NOW_MS + 9)
PLAIN = VALUE.but(version=0, floor=0, known=False)


def row(version: int, value: Any = "new") -> Truth:
    return Truth(True, version, content_of(value), 200)


NO_ROW = Truth(False, 0, ABSENCE, 200)

SIGHTS: list[tuple[str, Item | None, Known, Sight]] = [
    ("nothing", None, Known(6, False, 150), Sight.EMPTY),
    ("the version itself", VALUE, Known(5, False, 150), Sight.FRESH),
    ("a newer one", VALUE.but(version=7), Known(6, False, 150), Sight.FRESH),
    ("an older one", VALUE, Known(6, False, 150), Sight.SUSPECT),
    ("an older one loaded later", VALUE.but(as_of_us=999), Known(6, False, 150), Sight.SUSPECT),
    ("absence after its delete", GONE, Known(5, True, 150), Sight.FRESH),
    ("absence without a version after a delete", GONE.but(version=0), Known(5, True, 150), Sight.FRESH),
    ("absence without a version after an update", GONE.but(version=0), Known(5, False, 150), Sight.SUSPECT),
    ("absence of a later delete", GONE.but(version=7), Known(6, False, 150), Sight.FRESH),
    ("absence that claims the version of a row", GONE, Known(5, False, 150), Sight.SUSPECT),
    ("a value at the version of a delete", VALUE, Known(5, True, 150), Sight.SUSPECT),
    ("many rows, loaded before", PLAIN, Known(0, False, 100), Sight.SUSPECT),
    ("many rows, loaded after", PLAIN, Known(0, False, 99), Sight.FRESH),
]


@pytest.mark.parametrize(("item", "known", "expected"), [pytest.param(*case[1:], id=case[0]) for case in SIGHTS])
def test_what_an_item_tells_by_itself(item: Item | None, known: Known, expected: Sight) -> None:
    assert sight(item, known) is expected


@pytest.mark.parametrize(
    ("item", "is_served"),
    [
        (VALUE, True),
        (GONE, True),
        (VALUE.but(soft_expire_ms=1), True),
        (VALUE.but(void=True), False),
        (VALUE.but(floor=6), False),
        (Item(lease=3, lease_until_ms=NOW_MS + 1), False),
    ],
)
def test_only_what_a_client_would_serve_is_judged(item: Item, is_served: bool) -> None:
    assert served(encode(item), NOW_MS) == (item if is_served else None)
    assert served(None, NOW_MS) is None


def test_bytes_of_another_program_are_no_finding() -> None:
    with pytest.raises(DecodeError):
        served(b"x" * 80, NOW_MS)
    other = VALUE.but(content=value_of(b"\xff" * 8))
    assert difference(other, row(5), PACKER.unpack) is None


@pytest.mark.parametrize(
    ("item", "truth", "expected"),
    [
        (VALUE, row(5, "old"), None),
        (VALUE, row(5), "differs"),
        (VALUE, row(6), "older"),
        (VALUE, row(4), "newer"),
        (VALUE, NO_ROW, "gone"),
        (GONE, NO_ROW, None),
        (GONE, row(5), "absent"),
        (PLAIN, row(0, "old"), None),
        (PLAIN, row(0), "differs"),
        (VALUE, Truth(True, 5, None, 0), None),
    ],
)
def test_how_an_item_is_not_what_the_store_has(item: Item, truth: Truth, expected: str | None) -> None:
    assert difference(item, truth, PACKER.unpack) == expected


def test_one_value_packed_in_two_ways_is_the_same() -> None:
    compressed = Packer("msgpack", 0, 10)
    long = "x" * 500
    item = VALUE.but(content=value_of(compressed.pack(long, 1000)))
    assert item.content.payload != PACKER.pack(long, 1000)
    assert difference(item, row(5, long), compressed.unpack) is None


def test_what_cannot_be_read_yet_makes_nothing_stale() -> None:
    assert not certainly_stale(VALUE, Known(6, False, 150), row(5, "old"))
    assert certainly_stale(VALUE, Known(6, False, 150), row(6))


def test_an_identity_changes_with_each_fill() -> None:
    assert identity(VALUE) == identity(VALUE.but(lease=9, expires_ms=NOW_MS + 1000))
    assert len({identity(one) for one in (VALUE, PLAIN, GONE, VALUE.but(as_of_us=101))}) == 4


@given(st.data())
def test_an_item_that_was_right_when_it_was_read_is_never_certainly_stale(data: st.DataObject) -> None:
    """The item is what the store had after change `at`; the change known is older, the row was loaded later."""
    present = data.draw(st.lists(st.booleans(), min_size=1, max_size=8))
    at = data.draw(st.integers(0, len(present) - 1))
    known_at = data.draw(st.integers(0, at))
    truth_at = data.draw(st.integers(at, len(present) - 1))
    version = at + 1
    if present[at]:
        item = VALUE.but(version=version, floor=version, content=content_of(version))
    else:
        item = GONE.but(version=data.draw(st.sampled_from((0, version))))
    known = Known(known_at + 1, not present[known_at], 150)
    truth = row(truth_at + 1, truth_at + 1) if present[truth_at] else NO_ROW
    assert not certainly_stale(item, known, truth)
    if truth_at == at:
        assert difference(item, truth, PACKER.unpack) is None


@given(st.integers(1, 5), st.integers(0, 3))
def test_an_older_version_than_a_change_that_can_be_read_is_certainly_stale(older_by: int, later: int) -> None:
    item = VALUE.but(version=10 - older_by)
    assert sight(item, Known(10, False, 150)) is Sight.SUSPECT
    assert certainly_stale(item, Known(10, False, 150), row(10 + later))
    assert certainly_stale(item, Known(10, False, 150), NO_ROW)
    assert item.content.kind is Kind.VALUE
