"""One operation as bytes for `item.lua`, and what the script answers as an `Answer`.

The layout is fixed, whatever the operation; what it does not use is zero:

    0  u8 which operation       1  u8 content's kind, and flags
    2  token      10 version (Get: min_version)      18 as_of_us (Get: min_as_of_us)
    26 life_ms (Get, Claim: hold_ms; Fill, Put: ttl_ms)         34 soft_ttl_ms
    42 stale_ttl_ms             50 tombstone_ttl_ms             58 payload

All numbers are unsigned, 64 bits and big-endian, as in the envelope.

A reply is a number, or `[number, bytes]`: an item for Hit, Leased and Held, the floor for
BelowFloor. A negative number says that the server refused to keep what was asked for want of
memory, and what that means instead (see `item.lua`, `save`).
"""

from __future__ import annotations

from struct import Struct
from typing import assert_never

from cachelib.envelope import decode
from cachelib.errors import DecodeError, ProtocolError
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
    Leased,
    LeaseLost,
    Name,
    NoOp,
    Op,
    Put,
    Raised,
    RaiseFloor,
    Release,
    Released,
    Revoke,
    Revoked,
    RowOp,
    Stored,
    Superseded,
    Tombstone,
)

_GET, _FILL, _PUT, _RAISE_FLOOR, _REVOKE, _CLAIM, _RELEASE = range(1, 8)
_CREATE, _DELETE, _ASKS_VERSION, _ASKS_AS_OF = 4, 8, 16, 32
_CHANGES: dict[RowOp, int] = {"create": _CREATE, "update": 0, "delete": _DELETE}

_HEAD = Struct(">BBQQQQQQQ").pack

_HIT, _LEASED, _HELD, _BELOW_FLOOR = 1, 2, 3, 4
_PLAIN: dict[int, Answer] = {
    5: Stored(),
    6: LeaseLost(),
    7: Superseded(),
    8: Raised(),
    9: Tombstone(),
    10: Revoked(),
    11: Claimed(),
    12: Released(),
    13: NoOp(),
}


def pack(op: Op) -> bytes:
    """The operation as one argument of the script."""
    match op:
        case Get(token, hold_ms, asked):
            flags = _ASKS_VERSION * (asked.min_version is not None) | _ASKS_AS_OF * (asked.min_as_of_us is not None)
            return _HEAD(_GET, flags, token, asked.min_version or 0, asked.min_as_of_us or 0, hold_ms, 0, 0, 0)
        case Fill(token, content, version, ttl_ms, soft_ms, as_of_us):
            head = _HEAD(_FILL, content.kind, token, version, as_of_us, ttl_ms, soft_ms, 0, 0)
            return head + content.payload
        case Put(content, version, change, ttl_ms, stale_ms, soft_ms, as_of_us, token):
            flags = content.kind | _CHANGES[change]
            return _HEAD(_PUT, flags, token, version, as_of_us, ttl_ms, soft_ms, stale_ms, 0) + content.payload
        case RaiseFloor(version, change, stale_ms, tombstone_ms):
            return _HEAD(_RAISE_FLOOR, _CHANGES[change], 0, version, 0, 0, 0, stale_ms, tombstone_ms)
        case Revoke(stale_ms, create):
            return _HEAD(_REVOKE, _CREATE * create, 0, 0, 0, 0, 0, stale_ms, 0)
        case Claim(token, hold_ms):
            return _HEAD(_CLAIM, 0, token, 0, 0, hold_ms, 0, 0, 0)
        case Release(token):
            return _HEAD(_RELEASE, 0, token, 0, 0, 0, 0, 0, 0)
        case _:
            assert_never(op)


def answer(name: Name, op: Op, reply: object, now_ms: int) -> tuple[Answer, bool]:
    """What one reply of the script says, and whether it was refused for want of memory.

    Raises `ProtocolError` where it says nothing that we know (I12).
    """
    code, body = _parts(reply)
    try:
        return _answer(abs(code), body, op, now_ms), code < 0
    except (KeyError, DecodeError) as cause:
        raise ProtocolError(f"redis answered {_short(reply)} to {type(op).__name__} of {name!r}") from cause


def _parts(reply: object) -> tuple[int, bytes]:
    match reply:
        case int(code):
            return code, b""
        case [int(code), bytes(body)]:
            return code, body
        case _:
            raise ProtocolError(f"redis answered {_short(reply)}, which is no answer of item.lua")


def _answer(code: int, body: bytes, op: Op, now_ms: int) -> Answer:
    if code == _HIT:
        return Hit(decode(body))
    if code == _LEASED and isinstance(op, Get):
        return Leased(op.token, decode(body) if body else NO_ITEM)
    if code == _HELD:
        item = decode(body)
        return Held(item.lease_until_ms - now_ms, item)
    if code == _BELOW_FLOOR:
        return BelowFloor(int.from_bytes(body, "big"))
    return _PLAIN[code]


def _short(reply: object) -> str:
    text = repr(reply)
    return text if len(text) <= 80 else f"{text[:80]}…"
