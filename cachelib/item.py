"""THE CACHE MACHINE: what a cache must do with one key. All rules of the item are here.

`apply(item, op, now_ms)` takes what the cache holds for a key (None: nothing) and answers
what it holds afterwards, and what the caller is told. It is the executable form of
PROTOCOL.md; the numbers I1 … cite its invariants. `backends/redis/item.lua` says the same in
Lua, in the same order: read the two side by side. Memcached and the memory backend run this
very code.

Between two calls a server may drop an item (eviction, expiry, restart) and nothing else.
"""

from __future__ import annotations

from typing import assert_never

from cachelib.model import (
    NO_ITEM,
    Answer,
    BelowFloor,
    Claim,
    Claimed,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Kind,
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
)

LEASE_MS_MAX = 60_000
"""No lease is granted for longer. One that seems to end later was written by a wrong clock."""
LEASE_LIVES = 4
"""An item lives at least so many holds after a grant, for a holder that is late (see `_fill`)."""

State = tuple[Item | None, Answer]


def apply(item: Item | None, op: Op, now_ms: int) -> State:
    """What the cache holds after `op`, and what it answers."""
    match op:
        case Get():
            return _get(item, op, now_ms)
        case Fill():
            return _fill(item, op, now_ms)
        case Put():
            return _put(item, op, now_ms)
        case RaiseFloor():
            return _raise_floor(item, op, now_ms)
        case Revoke():
            return _revoke(item, op, now_ms)
        case Claim():
            return _grant(item or NO_ITEM, op.token, op.hold_ms, now_ms), Claimed()
        case Release():
            return _release(item, op)
        case _:
            assert_never(op)


def serves(item: Item, requirement: Requirement) -> bool:
    """The one test of a hit: fresh, and as new as was asked."""
    if not item.fresh:  # I3
        return False
    newest, as_of = requirement.min_version, requirement.min_as_of_us
    if newest is None and as_of is None:
        return True
    return (newest is not None and item.version >= newest) or (as_of is not None and item.as_of_us >= as_of)


def leased(item: Item, now_ms: int) -> bool:
    """Somebody holds the lease, as far as this clock can tell (I4: it only carries load)."""
    return item.lease != 0 and 0 < item.lease_until_ms - now_ms <= LEASE_MS_MAX


def refresh_due(item: Item, now_ms: int) -> bool:
    """The item still serves, but one reader should load it anew before it expires."""
    return item.soft_expire_ms != 0 and now_ms >= item.soft_expire_ms and not leased(item, now_ms)


def may_serve_stale(item: Item, now_ms: int) -> bool:
    """There is content that is no longer fresh, and it is not yet too old to fall back on."""
    return item.content.kind is not Kind.NONE and (item.fresh or now_ms < item.stale_until_ms)


def shown_while_held(item: Item, now_ms: int) -> bool:
    """It is no longer fresh, another holds the lease, and it may be fallen back on: `Get` would answer no better."""
    held = not item.fresh and now_ms < item.expires_ms and leased(item, now_ms)
    return held and may_serve_stale(item, now_ms)


# --- one function an operation ---------------------------------------------------------------


def _get(item: Item | None, op: Get, now_ms: int) -> State:
    if item is None:
        return _grant(NO_ITEM, op.token, op.hold_ms, now_ms), Leased(op.token, NO_ITEM)
    if serves(item, op.requirement) and not refresh_due(item, now_ms):
        return item, Hit(item)
    if leased(item, now_ms):
        return item, Held(item.lease_until_ms - now_ms, item)
    return _grant(item, op.token, op.hold_ms, now_ms), Leased(op.token, item)


def _fill(item: Item | None, op: Fill, now_ms: int) -> State:
    # I2, I4: a lease that ended and that nobody took since still counts: the item is the same.
    if item is None or op.token == 0 or item.lease != op.token:
        return item, LeaseLost()
    version = op.version
    if version == 0 and _may_claim_floor(item, op):
        version = item.floor
    if version < item.floor:  # I3; a token is used once: the next reader need not wait for this lease to end
        return item.but(lease=0, lease_until_ms=0), BelowFloor(item.floor)
    absent = op.content.kind is Kind.ABSENCE
    return Item(
        content=op.content,
        known=op.version != 0,
        version=version,
        floor=version,  # I1: at least the old one, which was just compared
        floor_gone=absent and item.floor_gone,
        soft_expire_ms=now_ms + op.soft_ttl_ms if op.soft_ttl_ms else 0,
        as_of_us=op.as_of_us,
        expires_ms=now_ms + op.ttl_ms,
    ), Stored()


def _may_claim_floor(item: Item, op: Fill) -> bool:
    """I5: absence that came without a version may not hide a row that an upsert announced."""
    return op.content.kind is Kind.ABSENCE and item.floor_gone


def _put(item: Item | None, op: Put, now_ms: int) -> State:
    if item is not None and _put_has_ground(item, op) and op.version >= item.floor:
        return Item(
            content=op.content,
            known=True,
            version=op.version,
            floor=op.version,
            floor_gone=op.content.kind is Kind.ABSENCE,
            soft_expire_ms=now_ms + op.soft_ttl_ms if op.soft_ttl_ms else 0,
            as_of_us=op.as_of_us,
            expires_ms=now_ms + op.ttl_ms,
        ), Stored()
    # A put that may not store still knows that everything older is stale.
    state, answer = _raise_floor(item, RaiseFloor(op.version, op.change, op.stale_ttl_ms), now_ms)
    return state, Superseded() if isinstance(answer, NoOp) and item is not None else answer


def _put_has_ground(item: Item, op: Put) -> bool:
    """I2: a put stores over content whose version it can compare, or under a lease it claimed."""
    compared = item.known and not item.void and item.content.kind is not Kind.NONE
    if compared and op.version <= item.version:
        return False
    return compared or (op.token != 0 and item.lease == op.token)


def _raise_floor(item: Item | None, op: RaiseFloor, now_ms: int) -> State:
    if item is None:
        if not op.tombstone_ttl_ms:
            return None, NoOp()
        gone = op.change == "delete"
        return Item(floor=op.version, floor_gone=gone, expires_ms=now_ms + op.tombstone_ttl_ms), Tombstone()
    if op.version > item.floor:  # I1
        floored = _stale(item, op.stale_ttl_ms, now_ms).but(floor=op.version, floor_gone=op.change == "delete")
        return _live(floored, op.tombstone_ttl_ms, now_ms), Raised()
    if _hides_a_create(item, op.change):
        return _revoke(item, Revoke(op.stale_ttl_ms), now_ms)
    return item, NoOp()


def _hides_a_create(item: Item, change: RowOp) -> bool:
    """A row came (back) with a version no higher than what its delete left behind.

    So it is with an insert that drew its version before the delete did, and with a counter
    that restarts after delete and re-insert: no comparison helps, so the item is voided.
    """
    return change == "create" and (item.content.kind is Kind.ABSENCE or item.floor_gone)


def _revoke(item: Item | None, op: Revoke, now_ms: int) -> State:
    if item is None or (op.create and not _may_hide_a_create(item)):
        return item, NoOp()
    void = _stale(item, op.stale_ttl_ms, now_ms)
    return void.but(void=True, floor=0, floor_gone=False, lease=0, lease_until_ms=0), Revoked()  # I1: as if evicted


def _may_hide_a_create(item: Item) -> bool:
    """A create without a version raises no floor against a load that saw no row yet, so its lease has to go:
    lease, load (no row), create, revoke, fill (absence)."""
    return item.lease != 0 or _hides_a_create(item, "create")


def _release(item: Item | None, op: Release) -> State:
    if item is None or op.token == 0 or item.lease != op.token:
        return item, NoOp()
    return item.but(lease=0, lease_until_ms=0), Released()


# --- shared steps ----------------------------------------------------------------------------


def _grant(item: Item, token: int, hold_ms: int, now_ms: int) -> Item:
    until_ms = now_ms + min(hold_ms, LEASE_MS_MAX)
    # What is fresh keeps its end: else refreshes that fail, one after another, would serve it for ever.
    ends_ms = item.expires_ms if item.fresh else max(item.expires_ms, now_ms + LEASE_LIVES * hold_ms)
    return item.but(lease=token, lease_until_ms=until_ms, expires_ms=ends_ms)


def _stale(item: Item, stale_ttl_ms: int, now_ms: int) -> Item:
    """The content is about to lose its freshness: note until when it may still be shown as stale."""
    since = item.but(stale_until_ms=now_ms + stale_ttl_ms) if item.fresh else item
    return _live(since, stale_ttl_ms, now_ms)


def _live(item: Item, life_ms: int, now_ms: int) -> Item:
    """Extend the item's life to at least `life_ms` from now."""
    return item.but(expires_ms=max(item.expires_ms, now_ms + life_ms))
