"""One item as bytes, the same on every server: a header of 68 bytes, then the payload.

    0  u16 magic and format    2  u8 zero    3  u8 flags
    4  version   12  floor   20  soft_expire_ms   28  as_of_us            what a hit looks at
    36 lease     44  lease_until_ms   52  stale_until_ms   60  expires_ms what the rest looks at
    68 payload (see `codecs.py`)

All numbers are unsigned and big-endian, so that a server without 64-bit integers (Lua has
doubles) compares versions as strings of eight bytes.

When a header is a plain hit: `item.serves` everybody, and it is not due. That is said in `plain_hit`, again in
`plain_reader` and `plain_values` (one by one and by columns), and in `straight.py`: a call to one rule would cost a hit
as much as a part of its work. tests/unit/test_plain_hits.py holds all of them to `item.py`, with every header at the
boundaries of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import lt
from struct import Struct, error
from typing import Any

from cachelib.errors import DecodeError
from cachelib.item import serves
from cachelib.model import ABSENCE, NOTHING, Content, Item, Kind, Requirement

MAGIC = 0xCA01
HEADER = Struct(">HBBQQQQQQQQ")
HEADER_BYTES = HEADER.size
OVERHEAD_BYTES = HEADER_BYTES
"""What an item adds to its payload."""

VOID, KNOWN, FLOOR_GONE = 4, 8, 16
_KIND = 3

_HIT = Struct(">IQQQ")
_SEEN = Struct(">4xQ16xQ")
_WITH_PREFIX = Struct(">IQQQ40x5s")
"""`_HIT`, and what every payload begins with (`codecs.py`)."""
_PLAIN_VALUE = MAGIC << 16 | Kind.VALUE
_FRESH_WORDS = {_PLAIN_VALUE | KNOWN, _PLAIN_VALUE}


def encode(item: Item) -> bytes:
    """The bytes that a server keeps for `item`."""
    return encode_header(item) + item.content.payload


def encode_header(item: Item) -> bytes:
    """The header alone, for a server that can rewrite it in place."""
    flags = item.content.kind | VOID * item.void | KNOWN * item.known | FLOOR_GONE * item.floor_gone
    return HEADER.pack(
        MAGIC,
        0,
        flags,
        item.version,
        item.floor,
        item.soft_expire_ms,
        item.as_of_us,
        item.lease,
        item.lease_until_ms,
        item.stale_until_ms,
        item.expires_ms,
    )


def decode(raw: bytes) -> Item:
    """The item in these bytes. Raises `DecodeError` where they are none of ours (I12)."""
    try:
        magic, zero, flags, version, floor, soft, as_of, lease, until, stale, expires = HEADER.unpack_from(raw)
    except error as cause:
        raise DecodeError(f"an item has a header of {HEADER_BYTES} bytes, these are {len(raw)} in all") from cause
    kind = flags & _KIND
    if magic != MAGIC or zero or kind > Kind.ABSENCE or flags > (_KIND | VOID | KNOWN | FLOOR_GONE):
        raise DecodeError(f"not an item of this format: it begins with {raw[:4].hex()}")
    return Item(
        content=_content(kind, raw),
        void=bool(flags & VOID),
        known=bool(flags & KNOWN),
        version=version,
        floor=floor,
        floor_gone=bool(flags & FLOOR_GONE),
        lease=lease,
        lease_until_ms=until,
        soft_expire_ms=soft,
        as_of_us=as_of,
        stale_until_ms=stale,
        expires_ms=expires,
    )


def _content(kind: int, raw: bytes) -> Content:
    if kind == Kind.VALUE:
        return Content(Kind.VALUE, raw[HEADER_BYTES:])
    if len(raw) != HEADER_BYTES:
        raise DecodeError(f"an item without a value has {len(raw) - HEADER_BYTES} bytes behind its header")
    return ABSENCE if kind == Kind.ABSENCE else NOTHING


def plain_hit(raw: bytes, now_ms: float) -> bool:
    """The short way to the answer that nearly every read gets: a fresh value, nothing asked, not due.

    False says nothing: decode the item and ask `serves`.
    """
    if len(raw) < HEADER_BYTES:
        return False
    word, version, floor, soft_expire_ms = _HIT.unpack_from(raw)
    return word in _FRESH_WORDS and version >= floor and (soft_expire_ms == 0 or now_ms < soft_expire_ms)


_IN_REPLY = {known: b"\r\n" + (_PLAIN_VALUE | KNOWN * known).to_bytes(4, "big") for known in (False, True)}
CRLF = int.from_bytes(b"\r\n", "big")


def fresh_line(*, known: bool) -> bytes:
    """The end of a reply's line, and how a fresh value behind it begins whose version is known or is not."""
    return _IN_REPLY[known]


def reply_unpacker(start: int, item: int) -> Callable[[bytes], tuple[Any, ...]] | None:
    """How to take a whole reply apart: `start` bytes (with the `fresh_line`), version, floor, soft expiry (8 bytes),
    what the payload begins with, its body, and `CRLF`. `item`: its bytes in all; None where they are too few."""
    body = item - _WITH_PREFIX.size
    return None if body < 0 else Struct(f">{start}sQQ8s40x5s{body}sH").unpack


DOUBT: Any = object()
"""What a reader of `plain_reader` answers where it cannot tell: ask properly (I12)."""


def plain_reader(
    prefix: bytes, decode: Callable[[bytes], Any], unpack: Callable[[bytes, int], Any]
) -> Callable[[bytes, float], Any]:
    """A reader of plain hits: from an item's bytes and the time to its value, or `DOUBT`; made once for an entity.

    It says what `plain_hit` says. `decode` reads the body of a payload that begins with `prefix`, `unpack` any other.
    """
    words, fresh, start = _WITH_PREFIX.unpack_from, _FRESH_WORDS, _WITH_PREFIX.size

    def read(raw: bytes, now_ms: float) -> Any:
        try:
            word, version, floor, soft_expire_ms, begins = words(raw)
            if word in fresh and version >= floor and not 0 < soft_expire_ms <= now_ms:
                return decode(raw[start:]) if begins == prefix else unpack(raw, HEADER_BYTES)
        except Exception:  # noqa: BLE001 - I12: the steps find out which, and what to do about it
            pass
        return DOUBT

    return read


FEW = 4
"""So many are read sooner one by one."""


def plain_values(
    raws: Collection[bytes | None], now_ms: float, prefix: bytes, decode: Callable[[bytes], Any]
) -> tuple[list[Any], list[int]]:
    """The values of plain hits whose payload begins with `prefix`, and the places of all others: ask properly.

    It says what `plain_hit` says, in one go: for a batch to decode its values should be the only cost.
    """
    every = _plain_every(raws, now_ms, prefix, decode) if len(raws) > FEW else None
    if every is not None:
        return every, []
    values: list[Any] = []
    others: list[int] = []
    unpack, fresh, start = _WITH_PREFIX.unpack_from, _FRESH_WORDS, _WITH_PREFIX.size
    for at, raw in enumerate(raws):
        if raw is not None and len(raw) >= start:
            word, version, floor, soft_expire_ms, begins = unpack(raw)
            if begins == prefix and word in fresh and version >= floor and not 0 < soft_expire_ms <= now_ms:
                try:
                    values.append(decode(raw[start:]))
                    continue
                except Exception:  # noqa: BLE001 - I12: doubt is a miss; the steps find out which
                    pass
        values.append(None)
        others.append(at)
    return values, others


def _plain_every(
    raws: Collection[Any], now_ms: float, prefix: bytes, decode: Callable[[bytes], Any]
) -> list[Any] | None:
    """The values, where all are such plain hits. Column by column: only decoding is a line that runs for each."""
    try:
        words, versions, floors, softs, begins = zip(*map(_WITH_PREFIX.unpack_from, raws), strict=True)
        if {*begins} != {prefix} or not _FRESH_WORDS.issuperset(words) or any(map(lt, versions, floors)):
            return None
        if min(softs) <= now_ms and any(0 < soft <= now_ms for soft in softs):
            return None
        start = _WITH_PREFIX.size
        return [decode(raw[start:]) for raw in raws]
    except Exception:  # noqa: BLE001 - one is missing, or cannot be read (I12): then each by itself
        return None


def seen(raw: bytes) -> tuple[int, int]:
    """Version and `as_of_us` of a plain hit."""
    version, as_of_us = _SEEN.unpack_from(raw)
    return version, as_of_us


def decode_hit(raw: bytes, requirement: Requirement, now_ms: int) -> Item | None:
    """The item in `raw` if it serves as asked and no refresh is due, else None; the hit path of all faces."""
    item = decode(raw)
    if not serves(item, requirement):
        return None
    # Past soft_expire the server decides who refreshes: ask it properly.
    return None if item.soft_expire_ms and now_ms >= item.soft_expire_ms else item
