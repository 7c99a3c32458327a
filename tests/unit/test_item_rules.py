"""Each rule of the item, by name. PROTOCOL.md, "The item"."""

from __future__ import annotations

import pytest

from cachelib.item import LEASE_LIVES, LEASE_MS_MAX, apply, may_serve_stale, serves
from cachelib.model import (
    ABSENCE,
    U64_MAX,
    Answer,
    BelowFloor,
    Claim,
    Claimed,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Leased,
    LeaseLost,
    NoOp,
    Op,
    Put,
    Raised,
    RaiseFloor,
    Release,
    Released,
    Requirement,
    Revoke,
    Revoked,
    RowOp,
    Stored,
    Superseded,
    Tombstone,
    value_of,
)

NOW = 1_000_000
TTL, STALE, HOLD = 60_000, 30_000, 5_000
V, W = value_of(b"v"), value_of(b"w")

CACHED = Item(V, known=True, version=5, floor=5, as_of_us=50, expires_ms=NOW + TTL)
"""A value with version 5, fresh."""
ABSENT = Item(ABSENCE, known=True, version=5, floor=5, expires_ms=NOW + TTL)
EMPTY = Item(lease=1, lease_until_ms=NOW + HOLD, expires_ms=NOW + LEASE_LIVES * HOLD)
"""What the first miss leaves behind: a lease and no content."""


def after(item: Item | None, *ops: Op, now_ms: int = NOW) -> Item | None:
    for op in ops:
        item, _ = apply(item, op, now_ms)
    return item


def answer(item: Item | None, op: Op, now_ms: int = NOW) -> Answer:
    return apply(item, op, now_ms)[1]


def get(token: int = 1, hold_ms: int = HOLD, **asked: int) -> Get:
    return Get(token, hold_ms, Requirement(**asked))


def fill(version: int, token: int = 1, content=V, **more: int) -> Fill:
    return Fill(token, content, version, TTL, **more)


def put(version: int, content=W, change: RowOp = "update", **more: int) -> Put:
    return Put(content, version, change, TTL, STALE, **more)


def raise_to(version: int, change: RowOp = "update", tombstone_ttl_ms: int = 0) -> RaiseFloor:
    return RaiseFloor(version, change, STALE, tombstone_ttl_ms)


def unchanged(item: Item | None, op: Op, expected: Answer) -> bool:
    state, said = apply(item, op, NOW)
    return state == item and said == expected


# --- get ---------------------------------------------------------------------------------------


def test_miss_takes_the_lease_and_leaves_an_empty_item() -> None:
    assert apply(None, get(), NOW) == (EMPTY, Leased(1, Item()))


def test_fresh_value_is_hit() -> None:
    assert unchanged(CACHED, get(), Hit(CACHED))


def test_fresh_absence_is_hit() -> None:
    assert unchanged(ABSENT, get(), Hit(ABSENT))


def test_second_reader_is_held() -> None:
    assert unchanged(EMPTY, get(token=2), Held(HOLD, EMPTY))


def test_same_token_asking_again_is_held() -> None:
    assert answer(EMPTY, get(token=1)) == Held(HOLD, EMPTY)


def test_lease_that_ended_goes_to_the_next_reader() -> None:
    item = after(EMPTY, get(token=2), now_ms=NOW + HOLD)
    assert item is not None
    assert item.lease == 2


def test_reader_of_a_stale_item_is_given_its_content() -> None:
    stale = after(CACHED, raise_to(6))
    assert stale is not None
    assert answer(stale, get()) == Leased(1, stale)
    assert answer(after(stale, get()), get(token=2)) == Held(HOLD, after(stale, get()))


def test_hit_that_is_too_old_for_the_reader_is_refilled() -> None:
    assert isinstance(answer(CACHED, get(min_version=6)), Leased)
    assert isinstance(answer(CACHED, get(min_as_of_us=51)), Leased)
    assert isinstance(answer(CACHED, get(min_version=6, min_as_of_us=51)), Leased)


def test_any_one_requirement_that_is_met_suffices() -> None:
    assert isinstance(answer(CACHED, get(min_version=5, min_as_of_us=51)), Hit)
    assert isinstance(answer(CACHED, get(min_version=6, min_as_of_us=50)), Hit)


def test_number_from_a_session_never_enters_an_item() -> None:  # I5
    item = after(CACHED, get(min_version=U64_MAX, min_as_of_us=U64_MAX))
    assert item is not None
    assert (item.version, item.floor, item.as_of_us) == (5, 5, 50)


def test_due_refresh_goes_to_one_reader_and_the_others_hit() -> None:
    due = CACHED.but(soft_expire_ms=NOW)
    refreshing, said = apply(due, get(token=1), NOW)
    assert said == Leased(1, due)
    assert isinstance(answer(refreshing, get(token=2)), Hit)
    assert isinstance(answer(CACHED.but(soft_expire_ms=NOW + 1), get()), Hit)


def test_lease_is_never_granted_for_longer_than_the_bound() -> None:
    item = after(None, get(hold_ms=10 * LEASE_MS_MAX))
    assert item is not None
    assert item.lease_until_ms == NOW + LEASE_MS_MAX


def test_lease_written_by_a_clock_that_runs_ahead_does_not_block() -> None:  # I4
    assert isinstance(answer(EMPTY.but(lease_until_ms=NOW + LEASE_MS_MAX + 1), get(token=2)), Leased)


def test_grant_extends_a_life_and_never_shortens_it() -> None:
    short, long = after(CACHED.but(expires_ms=NOW + 1, void=True), get()), after(CACHED.but(void=True), get())
    assert short is not None
    assert long is not None
    assert short.expires_ms == NOW + LEASE_LIVES * HOLD
    assert long.expires_ms == NOW + TTL


# --- fill --------------------------------------------------------------------------------------


def test_fill_under_its_lease_is_stored() -> None:
    item, said = apply(EMPTY, fill(5, as_of_us=50), NOW)
    assert (item, said) == (CACHED, Stored())


def test_fill_after_eviction_is_refused() -> None:  # I2
    assert unchanged(None, fill(5), LeaseLost())


def test_fill_into_an_item_that_another_reader_was_leased_is_refused() -> None:  # I4
    assert unchanged(EMPTY, fill(5, token=2), LeaseLost())


def test_fill_without_a_token_is_refused_where_nobody_holds_a_lease() -> None:  # I2
    assert unchanged(CACHED, fill(9, token=0), LeaseLost())


def test_fill_under_a_lease_that_ended_counts_while_nobody_took_it() -> None:
    assert apply(EMPTY, fill(5), NOW + 10 * HOLD)[1] == Stored()


def test_fill_under_a_lease_that_was_taken_over_is_refused() -> None:
    item = after(EMPTY, get(token=2), now_ms=NOW + HOLD)
    assert answer(item, fill(5, token=1)) == LeaseLost()
    assert answer(item, fill(5, token=2)) == Stored()


def test_stale_fill_is_refused() -> None:  # I3
    item = after(EMPTY, raise_to(6))
    assert answer(item, fill(5)) == BelowFloor(6)


def test_refused_fill_gives_its_lease_back_and_changes_nothing_else() -> None:
    item = after(EMPTY, raise_to(6))
    assert apply(item, fill(5), NOW)[0] == item.but(lease=0, lease_until_ms=0)


def test_fill_at_the_floor_is_stored() -> None:
    assert answer(after(EMPTY, raise_to(6)), fill(6)) == Stored()


def test_second_fill_with_the_same_token_is_refused() -> None:
    assert answer(after(EMPTY, fill(5)), fill(6)) == LeaseLost()


def test_fill_after_revoke_is_refused() -> None:
    assert answer(after(EMPTY, Revoke(STALE)), fill(5)) == LeaseLost()


def test_value_without_a_version_is_stored_where_no_floor_is_known() -> None:
    item = after(EMPTY, fill(0))
    assert item is not None
    assert item.fresh
    assert not item.known


def test_value_without_a_version_is_refused_where_a_floor_is_known() -> None:
    assert answer(after(EMPTY, raise_to(6)), fill(0)) == BelowFloor(6)
    assert answer(after(EMPTY, raise_to(6, "delete")), fill(0)) == BelowFloor(6)


def test_absence_without_a_version_is_refused_where_an_upsert_set_the_floor() -> None:  # I5
    assert answer(after(EMPTY, raise_to(6)), fill(0, content=ABSENCE)) == BelowFloor(6)


def test_absence_without_a_version_claims_a_floor_that_a_delete_set() -> None:  # I5
    item = after(EMPTY, raise_to(6, "delete"), fill(0, content=ABSENCE))
    assert item is not None
    assert (item.version, item.floor, item.floor_gone, item.known) == (6, 6, True, False)
    assert item.fresh


def test_fill_with_a_value_forgets_that_a_delete_set_the_floor() -> None:
    item = after(EMPTY, raise_to(6, "delete"), fill(7))
    assert item is not None
    assert not item.floor_gone


# --- put ---------------------------------------------------------------------------------------


def test_late_put_into_evicted_slot_is_refused() -> None:  # I2
    assert unchanged(None, put(9), NoOp())


def test_put_over_known_content_is_stored() -> None:
    item, said = apply(CACHED, put(6), NOW)
    assert said == Stored()
    assert item == Item(W, known=True, version=6, floor=6, expires_ms=NOW + TTL)


def test_put_after_a_newer_put_is_superseded() -> None:
    assert unchanged(CACHED, put(4), Superseded())
    assert unchanged(CACHED, put(5), Superseded())


def test_put_into_an_empty_item_raises_the_floor() -> None:  # I2
    item, said = apply(EMPTY, put(6), NOW)
    assert said == Raised()
    assert item is not None
    assert (item.floor, item.lease, item.fresh) == (6, 1, False)


def test_put_over_void_content_raises_the_floor() -> None:
    assert answer(after(CACHED, Revoke(STALE)), put(6)) == Raised()


def test_put_over_content_without_a_version_raises_the_floor() -> None:
    assert answer(after(EMPTY, fill(0)), put(6)) == Raised()


def test_put_under_a_claimed_lease_warms_a_cold_key() -> None:
    assert answer(after(None, Claim(9, HOLD)), put(6, token=9)) == Stored()
    assert answer(after(None, Claim(9, HOLD), Claim(8, HOLD)), put(6, token=9)) == Raised()


def test_put_below_the_floor_is_superseded_even_under_its_lease() -> None:  # I3
    assert unchanged(after(EMPTY, raise_to(7)), put(6, token=1), Superseded())


def test_put_below_the_floor_over_older_content_is_superseded() -> None:  # I3
    assert unchanged(after(CACHED, raise_to(9)), put(7), Superseded())


def test_put_clears_the_lease_so_an_older_load_cannot_fill() -> None:
    leased = after(CACHED.but(soft_expire_ms=NOW), get())
    assert answer(after(leased, put(6)), fill(5)) == LeaseLost()


def test_put_of_an_absence_remembers_the_delete() -> None:
    item = after(CACHED, put(6, ABSENCE, "delete"))
    assert item is not None
    assert item.fresh
    assert item.floor_gone


def test_refused_put_of_an_insert_voids_a_cached_absence() -> None:
    assert answer(ABSENT, put(4, change="create")) == Revoked()


# --- raise_floor -------------------------------------------------------------------------------


def test_raise_voids_what_is_older_and_keeps_it_for_stale_serving() -> None:
    item, said = apply(CACHED, raise_to(6), NOW)
    assert said == Raised()
    assert item is not None
    assert not serves(item, Requirement())
    assert may_serve_stale(item, NOW + STALE - 1)
    assert not may_serve_stale(item, NOW + STALE)


def test_raise_to_what_the_item_knows_is_nothing() -> None:
    assert unchanged(CACHED, raise_to(5), NoOp())
    assert unchanged(CACHED, raise_to(4), NoOp())


def test_raise_keeps_the_lease() -> None:
    item = after(EMPTY, raise_to(6))
    assert item is not None
    assert item.lease == 1
    assert answer(item, fill(6)) == Stored()


def test_raise_of_an_uncached_key_leaves_nothing_behind() -> None:
    assert unchanged(None, raise_to(6), NoOp())


def test_raise_of_an_uncached_key_leaves_a_tombstone_where_asked() -> None:
    item, said = apply(None, raise_to(6, "delete", tombstone_ttl_ms=TTL), NOW)
    assert said == Tombstone()
    assert item == Item(floor=6, floor_gone=True, expires_ms=NOW + TTL)
    assert answer(after(item, get()), fill(5)) == BelowFloor(6)


def test_raise_extends_a_life_and_never_shortens_it() -> None:
    short = after(CACHED.but(expires_ms=NOW + 1), raise_to(6))
    long = after(CACHED, raise_to(6))
    assert short is not None
    assert long is not None
    assert (short.expires_ms, long.expires_ms) == (NOW + STALE, NOW + TTL)


def test_content_that_went_stale_first_sets_how_long_it_is_shown() -> None:
    later = after(after(CACHED, raise_to(6)), raise_to(7), now_ms=NOW + 1000)
    assert later is not None
    assert later.stale_until_ms == NOW + STALE


@pytest.mark.parametrize("version", [3, 5])
def test_insert_behind_a_cached_absence_voids_it_whatever_its_version(version: int) -> None:
    item, said = apply(ABSENT, raise_to(version, "create"), NOW)
    assert said == Revoked()
    assert item is not None
    assert (item.void, item.floor, item.lease) == (True, 0, 0)


def test_insert_that_drew_its_version_before_the_delete_lifts_the_floor() -> None:
    deleted = after(CACHED, raise_to(8, "delete"), get())
    assert answer(deleted, fill(7)) == BelowFloor(8)
    lifted = after(deleted, raise_to(7, "create"), get())
    assert answer(lifted, fill(7)) == Stored()


def test_insert_with_an_older_version_says_nothing_about_a_value() -> None:
    assert unchanged(CACHED, raise_to(4, "create"), NoOp())


def test_update_with_an_older_version_says_nothing_about_an_absence() -> None:
    assert unchanged(ABSENT, raise_to(4, "update"), NoOp())


# --- revoke, claim, release --------------------------------------------------------------------


def test_revoke_voids_whatever_the_version() -> None:
    item, said = apply(CACHED.but(version=U64_MAX, floor=U64_MAX, lease=1), Revoke(STALE), NOW)
    assert said == Revoked()
    assert item is not None
    assert (item.fresh, item.floor, item.lease) == (False, 0, 0)
    assert may_serve_stale(item, NOW)


def test_revoke_of_an_uncached_key_is_nothing() -> None:
    assert unchanged(None, Revoke(STALE), NoOp())


def test_revoke_for_a_create_voids_absence_only() -> None:
    assert unchanged(CACHED, Revoke(STALE, create=True), NoOp())
    assert answer(ABSENT, Revoke(STALE, create=True)) == Revoked()
    assert answer(after(CACHED, raise_to(6, "delete")), Revoke(STALE, create=True)) == Revoked()


def test_after_revoke_an_older_version_may_be_filled_as_after_an_eviction() -> None:
    assert answer(after(CACHED, Revoke(STALE), get()), fill(1)) == Stored()


def test_claim_takes_the_lease_from_its_holder() -> None:
    item, said = apply(EMPTY, Claim(9, HOLD), NOW)
    assert said == Claimed()
    assert answer(item, fill(5, token=1)) == LeaseLost()


def test_release_lets_the_next_reader_try_at_once() -> None:
    item, said = apply(EMPTY, Release(1), NOW)
    assert said == Released()
    assert isinstance(answer(item, get(token=2)), Leased)


@pytest.mark.parametrize("item", [None, EMPTY, CACHED])
def test_release_of_another_lease_or_of_none_is_nothing(item: Item | None) -> None:
    assert unchanged(item, Release(2), NoOp())
    assert unchanged(item, Release(0), NoOp())
