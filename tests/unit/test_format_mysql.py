"""What a change of MySQL or MariaDB may be about, where the record does not tell."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.model import RowChange
from invalidator.formats.mysql import all_possible, without_truth

NUMBERS = st.integers(0, 2**64 - 1)


def arrived(number: int) -> int:
    """A number without a sign, as the connector writes it."""
    return number - 2**64 if number >= 2**63 else number


def shifted(word: UUID) -> str:
    """A UUID as the connector writes it: zeros from its end in front."""
    return str(UUID(bytes=word.bytes.rstrip(b"\0").rjust(16, b"\0")))


WORDS = st.builds(
    lambda raw, lost: UUID(bytes=raw[: 16 - lost] + bytes(lost)),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 15),
)


@given(NUMBERS, NUMBERS, WORDS)
def test_the_row_that_is_meant_is_among_them(one: int, other: int, word: UUID) -> None:
    key = {"one": arrived(one), "other": arrived(other), "word": shifted(word)}
    told = all_possible(RowChange("t", "update", key, 7, dict(key), dict(key)))
    assert told[0].key == key
    meant = {"one": one, "other": other, "word": str(word)}
    (found,) = (change for change in told if change.key == meant)
    assert found.before == found.after == meant
    assert (found.version is not None) == (meant == key)


@given(NUMBERS, WORDS)
def test_so_are_the_lists_that_it_was_and_is_on(number: int, word: UUID) -> None:
    before, after = {"id": 1, "of": arrived(number)}, {"id": 1, "of": 7, "word": shifted(word)}
    told = all_possible(RowChange("t", "update", {"id": 1}, 7, before, after))
    assert {change.version for change in told} == {7}
    assert number in [(change.before or {})["of"] for change in told]
    assert str(word) in [(change.after or {})["word"] for change in told]


def test_nothing_in_doubt_is_told_once() -> None:
    change = RowChange("t", "create", {"id": 1}, 7, None, {"id": 1, "text": "00", "word": str(UUID(int=1 << 127))})
    assert all_possible(change) == (change,)


def test_too_many_ways_are_the_whole_table() -> None:
    key = {name: str(UUID(int=1)) for name in "abc"}
    _, more = all_possible(RowChange("t", "delete", key))
    assert more.op == "truncate"


@pytest.mark.parametrize(("value", "number"), [(True, 1), (False, 0), (None, None), ("x", "x")])
def test_truth_is_a_number(value: object, number: object) -> None:
    row = {"k": value}
    without_truth(row)
    assert row == {"k": number}
    assert row["k"].__class__ is number.__class__
