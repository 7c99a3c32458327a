"""Checks of what the state machine cannot see or would take long to find: lives, sizes, names, numbers."""

from __future__ import annotations

from collections.abc import Iterable

from cachelib.backends.base import VOIDING, Batch
from cachelib.envelope import encode
from cachelib.item import LEASE_LIVES, apply
from cachelib.model import (
    ABSENCE,
    NOTHING,
    U64_MAX,
    Answer,
    BelowFloor,
    Claim,
    Content,
    Fill,
    Get,
    Hit,
    Item,
    Leased,
    Name,
    Op,
    Put,
    Raised,
    RaiseFloor,
    Release,
    Revoke,
    RowOp,
    Stored,
    Tombstone,
    value_of,
)
from cachelib.testing.conformance_subject import Subject, must, readable

NOW_MS = 1_700_000_000_000
TTL_MS = 3_600_000
HOLD_MS = 30_000
SLACK_MS = 5_000
"""How long a slow machine may take between an operation and the look at what is left of the life."""

TOKEN = 2**63 + 12345
UPDATE: RowOp = "update"


def fill(content: Content, version: int, token: int = TOKEN, ttl_ms: int = TTL_MS) -> Fill:
    """A fill with the usual lives."""
    return Fill(token, content, version, ttl_ms)


def put(content: Content, version: int, *, token: int = 0, ttl_ms: int = TTL_MS, stale_ttl_ms: int = TTL_MS) -> Put:
    """A put with the usual lives."""
    return Put(content, version, UPDATE, ttl_ms, stale_ttl_ms, token=token)


def step(subject: Subject, name: Name, op: Op, now_ms: int = NOW_MS) -> Answer:
    """Apply one operation and compare answer and item with `item.apply` on what was there before."""
    after, expected = apply(subject.item(name), op, now_ms)
    answer = subject.backend.execute(name, op, now_ms)
    must(answer == expected, f"{short(op)} on {name!r}: answered {short(answer)} and not {short(expected)}")
    seen = subject.item(name)
    must(seen == after, f"{short(op)} on {name!r}: there is {short(seen)} and not {short(after)}")
    return answer


def short(thing: object) -> str:
    """A repr that a megabyte does not flood."""
    text = repr(thing)
    return text if len(text) < 600 else f"{text[:300]} … {text[-250:]}"


# --- lives -----------------------------------------------------------------------------------


def check_ttls(subject: Subject) -> None:
    """The server keeps an item for as long as the item says, from the operation that said it."""
    name = subject.name(b"ttls")
    longest = subject.backend.capability.life_ms_max
    lives: Iterable[tuple[Op, int]] = (
        (Get(TOKEN, HOLD_MS), LEASE_LIVES * HOLD_MS),
        (fill(value_of(b"v"), 5), TTL_MS),
        (RaiseFloor(6, UPDATE, stale_ttl_ms=60_000), TTL_MS),  # never shortens
        (RaiseFloor(7, UPDATE, stale_ttl_ms=2 * TTL_MS), 2 * TTL_MS),  # extends
        (Get(TOKEN, HOLD_MS), 2 * TTL_MS),
        (Release(TOKEN), 2 * TTL_MS),
        (Get(TOKEN, HOLD_MS), 2 * TTL_MS),
        (fill(ABSENCE, 8, ttl_ms=120_000), 120_000),  # new content, a new life
        (put(value_of(b"w"), 9, ttl_ms=40 * 86_400_000), min(40 * 86_400_000, longest)),
        (put(value_of(b"w"), 10, ttl_ms=4_000 * 86_400_000), longest),  # cut, and not to nothing
        (put(value_of(b"w"), 11, ttl_ms=60_000), 60_000),
        (Claim(TOKEN, 59_000), 60_000),  # what is fresh keeps its end
        (Revoke(stale_ttl_ms=TTL_MS), TTL_MS),
    )
    for op, life_ms in lives:
        step(subject, name, op)
        _expect_life(subject, name, life_ms, op)
    _check_other_lives(subject)


def _check_other_lives(subject: Subject) -> None:
    name = subject.name(b"tombstone")
    tombstone = RaiseFloor(5, "delete", stale_ttl_ms=TTL_MS, tombstone_ttl_ms=90_000)
    must(isinstance(step(subject, name, tombstone), Tombstone), "a tombstone is left where it is asked for")
    _expect_life(subject, name, 90_000, tombstone)
    step(subject, name, Claim(TOKEN, HOLD_MS))
    _expect_life(subject, name, LEASE_LIVES * HOLD_MS, Claim(TOKEN, HOLD_MS))


def _expect_life(subject: Subject, name: Name, life_ms: int, op: Op) -> None:
    left, step_ms = subject.life_ms(name), subject.backend.capability.ttl_step_ms
    kept = left is not None and life_ms - SLACK_MS - step_ms <= left <= life_ms + step_ms
    must(kept, f"after {op} the server counts {left} ms, not {life_ms}")


def check_early_refresh(subject: Subject) -> None:
    """Past soft_expire one reader is asked to refresh; the others, and those before it, are served."""
    name = subject.name(b"early")
    step(subject, name, Get(TOKEN, HOLD_MS))
    step(subject, name, Fill(TOKEN, value_of(b"v"), 1, TTL_MS, soft_ttl_ms=60_000))
    must(isinstance(step(subject, name, Get(2, HOLD_MS), NOW_MS + 59_999), Hit), "refreshed before its time")
    must(isinstance(step(subject, name, Get(3, HOLD_MS), NOW_MS + 60_000), Leased), "nobody was asked to refresh")
    must(isinstance(step(subject, name, Get(4, HOLD_MS), NOW_MS + 60_001), Hit), "two were asked to refresh")
    after_the_lease = NOW_MS + 60_000 + HOLD_MS
    must(isinstance(step(subject, name, Get(5, HOLD_MS), after_the_lease), Leased), "its refresher died")


# --- names and sizes -------------------------------------------------------------------------


def check_binary_names(subject: Subject) -> None:
    """Any bytes are a name, up to the longest that the capability declares, and no two are the same."""
    endings = [b"", b" ", b"\0", b"\0\0", b"a b\r\nc", b"%20", b"\xff\xfe", b"{a}b", b"$3\r\nGET", bytes(range(256))]
    longest = subject.backend.capability.name_bytes_max
    if subject.backend.capability.names_printable:
        endings = [bytes(byte for byte in ending if byte > 0x20 and byte != 0x7F) for ending in endings]
        endings = list(dict.fromkeys(endings))
    stem = subject.name(b"binary/")
    names = [(stem + ending)[: min(longest, 4096)] for ending in endings]
    names += [stem.ljust(min(longest, 4096), b"n"), stem.ljust(min(longest, 4096) - 1, b"n")]
    for number, name in enumerate(names, 1):
        step(subject, name, Get(number, HOLD_MS))
        step(subject, name, fill(value_of(name), number, token=number))
    for number, (name, raw) in enumerate(zip(names, subject.backend.get_many(names), strict=True), 1):
        item = readable(raw)
        kept = item is not None and item.content == value_of(name) and item.version == number
        must(kept, f"{name!r}: {short(item)}")


def check_value_sizes(subject: Subject) -> None:
    """Every size up to the largest is kept and given back whole, also where only the header changes."""
    largest = min(subject.backend.capability.payload_bytes_max, subject.large_payload_bytes or U64_MAX)
    sizes = (0, 1, 67, 68, 69, 4096, 65_535, 65_536, largest - 1, largest)
    for size in sorted({size for size in sizes if size <= largest}):
        name, payload = subject.name(b"size"), (b"%d\r\n" % size * (size // 3 + 1))[:size]
        step(subject, name, Get(TOKEN, HOLD_MS))
        step(subject, name, fill(value_of(payload), 1))
        must(isinstance(step(subject, name, Get(TOKEN, HOLD_MS)), Hit), f"{size} bytes: no hit")
        step(subject, name, put(value_of(payload[::-1]), 2))
        step(subject, name, RaiseFloor(3, UPDATE, stale_ttl_ms=TTL_MS))
        stale = step(subject, name, Get(TOKEN, HOLD_MS))
        must(isinstance(stale, Leased), f"{size} bytes: {short(stale)}")
        must(subject.item(name) is not None, f"{size} bytes: gone")
        step(subject, name, fill(value_of(payload), 3))
        subject.evict(name)


# --- numbers ---------------------------------------------------------------------------------


def check_large_versions(subject: Subject) -> None:
    """Neighbours are told apart wherever in 64 bits they stand: no doubles, no signs, no text order."""
    for bit in range(64):
        lower, higher = max(1, 2**bit - 1), 2**bit
        if lower < higher:
            _check_neighbours(subject, lower, higher)
    _check_neighbours(subject, U64_MAX - 1, U64_MAX)
    _check_neighbours(subject, 0x00FF, 0x0100)
    _check_neighbours(subject, 0x7F_FF_00_FF, 0x80_00_FF_00)


def _check_neighbours(subject: Subject, lower: int, higher: int) -> None:
    name = subject.name(b"versions")
    step(subject, name, Get(higher, HOLD_MS))
    step(subject, name, RaiseFloor(higher, UPDATE, stale_ttl_ms=TTL_MS))
    refused = step(subject, name, fill(value_of(b"old"), lower, token=higher))
    must(refused == BelowFloor(higher), f"{lower} against {higher}: {refused}")
    step(subject, name, Get(lower, HOLD_MS))  # the refused fill has given its lease back
    step(subject, name, fill(value_of(b"new"), higher, token=lower))
    step(subject, name, put(value_of(b"older"), lower))
    step(subject, name, RaiseFloor(lower, UPDATE, stale_ttl_ms=TTL_MS))
    item = subject.item(name)
    must(item is not None and item.version == item.floor == higher and item.fresh, f"{lower}, {higher}: {item}")
    other = subject.name(b"versions")
    step(subject, other, Get(lower, HOLD_MS))
    step(subject, other, fill(value_of(b"v"), lower, token=lower))
    raised = step(subject, other, RaiseFloor(higher, UPDATE, stale_ttl_ms=TTL_MS))
    must(raised == Raised(), f"from {lower} to {higher}: {raised}")
    step(subject, other, Get(lower, HOLD_MS))


def check_many_names(subject: Subject) -> None:
    """A batch of hundreds is answered in its order; a name that is not there is None in its place."""
    names = [subject.name(b"many") for _ in range(450)]
    backend = subject.backend
    gets: Batch = [(name, Get(number, HOLD_MS)) for number, name in enumerate(names, 1)]
    must(not backend.execute_many([], NOW_MS) and not backend.get_many([]), "an empty batch has no answers")
    leased = backend.execute_many(gets, NOW_MS)
    must(leased == [Leased(number, Item()) for number in range(1, 451)], f"not one lease each: {short(leased)}")
    fills: Batch = [(n, fill(value_of(b"%d" % i), i, token=i)) for i, n in enumerate(names, 1) if i % 2]
    must(backend.execute_many(fills, NOW_MS) == [Stored()] * len(fills), "not all fills of a batch were stored")
    subject.evict(names[0])
    contents = [item and item.content for item in map(readable, backend.get_many(names))]
    expected = [value_of(b"%d" % i) if i % 2 else NOTHING for i in range(1, 451)]
    must(contents == [None, *expected[1:]], "get_many answered in another order")


def check_notes(subject: Subject) -> None:
    """Notes are kept as they are, also without a batch, also again; and `instance` stays the same meanwhile."""
    backend, before = subject.backend, subject.backend.instance()
    first, second = subject.name(b"note1"), subject.name(b"note2")
    must(bool(before), "an instance has a name")
    must(backend.read_notes([first, second]) == [None, None] and not backend.read_notes([]), "notes nobody wrote")
    backend.apply([], {first: b"1", second: b"\0\r\n"}, NOW_MS)
    backend.apply([(subject.name(b"x"), Get(TOKEN, HOLD_MS))], {first: b"2" * 5000}, NOW_MS)
    must(backend.read_notes([first, second]) == [b"2" * 5000, b"\0\r\n"], "notes came back changed")
    must(backend.instance() == before, "the instance changed its name by itself")


# --- doubt is a miss (I12) ---------------------------------------------------------------------


def check_unreadable_item_is_a_miss(subject: Subject) -> None:
    """Bytes that are no item are no item to any operation; the next fill replaces them."""
    good = encode(Item(value_of(b"v"), known=True, version=1, floor=1, expires_ms=NOW_MS + TTL_MS))
    absent = encode(Item(ABSENCE, known=True, version=1, floor=1, expires_ms=NOW_MS + TTL_MS))
    every_op: tuple[Op, ...] = (
        fill(value_of(b"w"), 9),
        put(value_of(b"w"), 9, token=TOKEN),
        RaiseFloor(9, UPDATE, stale_ttl_ms=TTL_MS),
        Revoke(stale_ttl_ms=TTL_MS),
        Release(TOKEN),
        RaiseFloor(9, UPDATE, stale_ttl_ms=TTL_MS, tombstone_ttl_ms=TTL_MS),
        Claim(TOKEN, HOLD_MS),
        Get(TOKEN, HOLD_MS),
    )
    for raw in (b"", good[:67], b"\xcb" + good[1:], good[:2] + b"\1" + good[3:], *_bad_flags(good), absent + b"x"):
        for op in every_op:
            name = subject.name(b"unreadable")
            subject.plant(name, raw)
            step(subject, name, op)
            left = subject.backend.get(name)
            dropped = not left or readable(left) is not None
            must(
                dropped or not isinstance(op, VOIDING), f"{short(op)} left {raw!r}, which somebody may be able to read"
            )
            step(subject, name, Claim(TOKEN, HOLD_MS))
            step(subject, name, fill(value_of(b"w"), 9))
            must(isinstance(step(subject, name, Get(TOKEN, HOLD_MS)), Hit), f"after {op} on {raw!r}: no hit")


def _bad_flags(good: bytes) -> list[bytes]:
    """A kind that does not exist, a bit that means nothing, and a value under a header that says there is none."""
    return [good[:3] + bytes([flags]) + good[4:] for flags in (3, 32, 128 + 9, 8)]
