"""The invariants of the item, for any item and any operation. PROTOCOL.md, "Invariants"."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from cachelib.item import LEASE_MS_MAX, apply, serves
from cachelib.model import (
    ABSENCE,
    NOTHING,
    Claim,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Kind,
    Leased,
    Op,
    Put,
    RaiseFloor,
    Release,
    Requirement,
    Revoke,
    Revoked,
    RowOp,
    Stored,
    value_of,
)

NOW = 1_000_000
VERSIONS = st.integers(1, 6)
TOKENS = st.integers(1, 3)
TIMES = st.just(0) | st.integers(NOW - 100, NOW + 100)
LIVES = st.sampled_from((0, 50, 100_000))
CONTENTS = st.sampled_from((value_of(b""), value_of(b"v"), ABSENCE))
CHANGES = st.sampled_from(("create", "update", "delete"))
AS_OF = st.integers(0, 3)
ASKED = st.builds(Requirement, st.none() | VERSIONS, st.none() | AS_OF)

FILLS = st.builds(Fill, TOKENS, CONTENTS, st.just(0) | VERSIONS, LIVES, LIVES, AS_OF)
PUTS = st.builds(Put, CONTENTS, VERSIONS, CHANGES, LIVES, LIVES, LIVES, AS_OF, st.just(0) | TOKENS)
RAISES_OF_A_ROW_THAT_WAS = st.builds(RaiseFloor, VERSIONS, st.sampled_from(("update", "delete")), LIVES, LIVES)
RAISES = st.builds(RaiseFloor, VERSIONS, CHANGES, LIVES, LIVES)
OPS: st.SearchStrategy[Op] = st.one_of(
    st.builds(Get, TOKENS, st.sampled_from((1, 50, 2 * LEASE_MS_MAX)), ASKED),
    FILLS,
    PUTS,
    RAISES,
    st.builds(Revoke, LIVES, st.booleans()),
    st.builds(Claim, TOKENS, st.just(50)),
    st.builds(Release, TOKENS),
)
"""Any item, also those that no history leads to: the rules hold one operation at a time."""
ITEMS = st.builds(
    Item,
    content=CONTENTS | st.just(NOTHING),
    void=st.booleans(),
    known=st.booleans(),
    version=st.integers(0, 6),
    floor=st.integers(0, 6),
    floor_gone=st.booleans(),
    lease=st.integers(0, 3),
    lease_until_ms=TIMES,
    soft_expire_ms=TIMES,
    as_of_us=AS_OF,
    stale_until_ms=TIMES,
    expires_ms=st.integers(NOW, NOW + 100),
)
SLOTS = st.none() | ITEMS


def reached(ops: list[Op]) -> Item | None:
    """The item that a history leads to."""
    item: Item | None = None
    for number, op in enumerate(ops):
        item, _ = apply(item, op, NOW + number)
    return item


REACHED = st.lists(OPS, max_size=8).map(reached)


@given(SLOTS, OPS)
def test_floor_never_falls_but_by_revoke(item: Item | None, op: Op) -> None:  # I1
    after, answer = apply(item, op, NOW)
    if item is not None and answer != Revoked():
        assert after is not None
        assert after.floor >= item.floor


@given(SLOTS, OPS)
def test_item_never_goes_away_by_itself(item: Item | None, op: Op) -> None:
    assert item is None or apply(item, op, NOW)[0] is not None


@given(OPS)
def test_nothing_enters_an_empty_slot(op: Op) -> None:  # I2
    after, _ = apply(None, op, NOW)
    assert after is None or after.content == NOTHING


@given(ITEMS, OPS)
def test_content_changes_only_under_the_lease_or_over_known_content(item: Item, op: Op) -> None:  # I2
    after, answer = apply(item, op, NOW)
    assert after is not None
    if (after.content, after.version) != (item.content, item.version):
        under_lease = item.lease != 0 and getattr(op, "token", 0) == item.lease
        known = item.known and not item.void and item.content != NOTHING
        assert answer == Stored()
        assert under_lease or (isinstance(op, Put) and known and op.version > item.version)


@given(SLOTS, OPS)
def test_what_is_stored_is_fresh_and_not_below_the_floor(item: Item | None, op: Op) -> None:  # I3
    after, answer = apply(item, op, NOW)
    if answer == Stored():
        assert item is not None
        assert after is not None
        assert after.fresh
        assert after.version >= item.floor


@given(SLOTS, OPS)
def test_hit_is_fresh_and_as_new_as_was_asked(item: Item | None, op: Op) -> None:  # I3
    _, answer = apply(item, op, NOW)
    if isinstance(answer, Hit) and isinstance(op, Get):
        assert answer.item == item
        assert serves(answer.item, op.requirement)
        assert answer.item.version >= answer.item.floor


@given(SLOTS, OPS)
def test_freshness_comes_only_with_new_content(item: Item | None, op: Op) -> None:
    after, answer = apply(item, op, NOW)
    if after is not None and after.fresh and not (item is not None and item.fresh):
        assert answer == Stored()


@given(SLOTS, FILLS)
def test_wrong_token_never_stores(item: Item | None, op: Fill) -> None:  # I4
    assume(item is None or item.lease != op.token)
    after, answer = apply(item, op, NOW)
    assert after == item
    assert answer != Stored()


@given(SLOTS, st.integers(1, 3), st.integers(4, 6), st.integers(1, 100))
def test_one_lease_at_a_time(item: Item | None, first: int, second: int, hold_ms: int) -> None:  # I4
    leased, answer = apply(item, Get(first, hold_ms), NOW)
    assume(isinstance(answer, Leased))
    assert leased is not None
    _, again = apply(leased, Get(second, hold_ms), NOW + hold_ms - 1)
    assert isinstance(again, Held | Hit)
    assert apply(leased, Fill(second, value_of(b"v"), 6, 100), NOW)[1] != Stored()


@given(SLOTS, OPS, st.sampled_from((-(10**6), -1, 1, 10**6)))
def test_clock_carries_load_and_never_correctness(item: Item | None, op: Op, skew_ms: int) -> None:  # I4
    assume(not isinstance(op, Get))  # whose clock decides who loads
    here, there = apply(item, op, NOW), apply(item, op, NOW + skew_ms)
    assert here[1] == there[1]
    for one, other in zip(here[:1], there[:1], strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.content, one.version, one.floor) == (other.content, other.version, other.floor)
            assert (one.void, one.lease, one.fresh) == (other.void, other.lease, other.fresh)


@given(ITEMS, st.integers(1, 3), CONTENTS)
def test_absence_without_a_version_needs_a_delete_or_no_floor(item: Item, token: int, content) -> None:  # I5
    _, answer = apply(item.but(lease=token), Fill(token, content, 0, 100), NOW)
    allowed = item.floor == 0 or (content.kind is Kind.ABSENCE and item.floor_gone)
    assert (answer == Stored()) == allowed


@given(SLOTS, ASKED, TOKENS)
def test_number_from_a_session_never_enters_an_item(item: Item | None, asked: Requirement, token: int) -> None:  # I5
    after, _ = apply(item, Get(token, 50, asked), NOW)
    before = item or Item()
    assert after is not None
    assert (after.version, after.floor, after.as_of_us) == (before.version, before.floor, before.as_of_us)


# --- I9 ----------------------------------------------------------------------------------------


def same_but_for_time(one: Item | None, other: Item | None) -> bool:
    if one is None or other is None:
        return one is other
    plain = {"stale_until_ms": 0, "expires_ms": 0}
    return one.but(**plain) == other.but(**plain)


@given(REACHED, RAISES_OF_A_ROW_THAT_WAS, st.integers(0, 200))
def test_event_twice_changes_nothing(item: Item | None, event: RaiseFloor, later_ms: int) -> None:  # I9
    once, _ = apply(item, event, NOW)
    twice, _ = apply(once, event, NOW + later_ms)
    assert twice == once


@given(REACHED, RAISES)
def test_create_twice_changes_nothing_that_is_served(item: Item | None, event: RaiseFloor) -> None:  # I9
    """Behind an absence it revokes, then raises the floor, then revokes …: never what is fresh, never upwards."""
    once, _ = apply(item, event, NOW)
    twice, _ = apply(once, event, NOW)
    assert once is None or not once.fresh or twice == once
    assert twice is None or not twice.fresh or twice == item


@given(REACHED, VERSIONS, st.sampled_from(("update", "delete")), st.lists(RAISES, max_size=4))
def test_older_event_after_a_newer_one_changes_nothing(
    item: Item | None, version: int, change: RowOp, older: list[RaiseFloor]
) -> None:  # I9
    newest = RaiseFloor(version, change, 50)
    raised, _ = apply(item, newest, NOW)
    for event in older:
        if event.version <= version and event.change != "create":
            again, _ = apply(raised, RaiseFloor(event.version, event.change, 50), NOW)
            assert again == raised


KNOWN = st.builds(Item, content=CONTENTS, known=st.just(True), version=st.integers(1, 3), floor=st.integers(0, 3))


@given(KNOWN, PUTS)
def test_own_event_after_its_put_changes_nothing(item: Item, write: Put) -> None:
    stored, answer = apply(item, write, NOW)
    if answer == Stored() and not (write.change == "create" and write.content == ABSENCE):  # no write is both
        event = RaiseFloor(write.version, write.change, 100)
        assert apply(stored, event, NOW)[0] == stored


@given(REACHED, PUTS)
def test_put_twice_changes_nothing(item: Item | None, write: Put) -> None:
    write = replace(write, change="update")
    once, _ = apply(item, write, NOW)
    twice, _ = apply(once, write, NOW)
    assert same_but_for_time(once, twice)
