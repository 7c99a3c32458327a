"""Memcached's meta commands as bytes: requests are built and replies parsed here, and nothing is sent.

Only what 1.6.18 has is used: `mg`, `ms`, `md` with the flags k v c C T ME. Three habits come from it:

- Every command asks for its key back (`k`), and every reply must name it. A connection that lost
  count of its replies can so never pass one key's bytes off as another's (I12).
- No TTL of 1 s (it may end at once), none above 30 days (it would be read as a point in time).
- A reply that is not expected is a `ProtocolError`: the caller must drop the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from cachelib.backends.memcached.replies import Reply
from cachelib.errors import BadKey, ProtocolError
from cachelib.model import Name

NAME_BYTES_MAX = 250
TTL_S_MIN = 2
TTL_S_MAX = 30 * 24 * 3600

_FORBIDDEN = bytes(range(0x21)) + b"\x7f"
_STALE = frozenset((b"W", b"X", b"Z"))


class Found(NamedTuple):
    """An item as it was read, and the CAS id that a write over it must name."""

    raw: bytes
    cas: bytes


class Wrote(Enum):
    """What became of a write."""

    DONE = "done"
    LOST = "cas_lost"
    """Somebody else was faster: read again."""
    TOO_LARGE = "too_large"
    OUT_OF_MEMORY = "out_of_memory"


VALUES_MAX = 4096
"""Longer replies are read in the usual way: there it does not show."""


def _value_heads() -> tuple[bytes, ...]:
    heads = {}
    for length in range(VALUES_MAX):
        head = b"VA %d k" % length
        heads[len(head) + len(b"\r\n") + length + len(b"\r\n")] = head
    return tuple(heads.get(size) or b"-" * (size + 1) for size in range(VALUES_MAX))


VALUE_HEADS = _value_heads()
"""By the length of a whole reply to `value_request`, without the name in it: what stands before the name if it is a
value. It can be one only, so nothing is searched for and no length read. Where none is so long, more than it all."""

_REFUSED = {
    b"object too large for cache": Wrote.TOO_LARGE,
    b"out of memory storing object": Wrote.OUT_OF_MEMORY,
}
_LOST = frozenset((b"NS", b"EX", b"NF"))

# --- requests --------------------------------------------------------------------------------


def check_name(name: Name) -> None:
    """Raise `BadKey` for a name that would break the framing. A space in a name is a new argument."""
    if not 0 < len(name) <= NAME_BYTES_MAX or len(name.translate(None, _FORBIDDEN)) != len(name):
        raise BadKey(
            f"{name[:300]!r} cannot name an item on memcached: 1 to {NAME_BYTES_MAX} bytes without spaces "
            f"and control characters are allowed, this has {len(name)}; nothing was sent"
        )


def check_names(names: Sequence[Name]) -> None:
    """`check_name` for all of them."""
    together, sizes = b"".join(names), {*map(len, names)}
    plain = len(together.translate(None, _FORBIDDEN)) == len(together)
    if not plain or 0 in sizes or max(sizes, default=0) > NAME_BYTES_MAX:
        for name in names:
            check_name(name)


def values_request(names: Sequence[Name]) -> bytes:
    """`value_request` for each of them, at least one."""
    return b"mg " + b" k v\r\nmg ".join(names) + b" k v\r\n"


def value_request(name: Name) -> bytes:
    """Read the value alone: the hit path."""
    return b"mg %b k v\r\n" % name


def read_request(name: Name) -> bytes:
    """Read the value and its CAS id."""
    return b"mg %b k v c\r\n" % name


def write_request(name: Name, raw: bytes, ttl_s: int, cas: bytes | None) -> bytes:
    """Store over exactly what had this CAS id, or (None) where there is nothing."""
    condition = b"C%b" % cas if cas is not None else b"ME"
    return b"ms %b %d k %b T%d\r\n%b\r\n" % (name, len(raw), condition, ttl_s, raw)


def note_request(name: Name, raw: bytes) -> bytes:
    """Store whatever is there, for ever."""
    return b"ms %b %d k T0\r\n%b\r\n" % (name, len(raw), raw)


def delete_request(name: Name, cas: bytes | None = None) -> bytes:
    """Delete, where given only what has this CAS id."""
    return b"md %b k C%b\r\n" % (name, cas) if cas is not None else b"md %b k\r\n" % name


STATS_REQUEST = b"stats\r\n"


def ttl_seconds(life_ms: int) -> int:
    """A life in the server's unit, rounded up and kept within what it counts rightly."""
    return min(max(-(-life_ms // 1000), TTL_S_MIN), TTL_S_MAX)


# --- replies ---------------------------------------------------------------------------------


def value(reply: Reply, name: Name) -> bytes | None:
    """The value in a reply to `value_request`. None: there is none, or it is marked as stale."""
    if reply.code == b"VA" and reply.flags == [b"k" + name]:
        return reply.value
    if _is_miss(reply, name):
        return None
    _must_name(reply, name, b"VA")
    # Nobody marks items as stale (`md I`) but people by hand. They mean it.
    return None if _STALE.intersection(reply.flags) else reply.value


def found(reply: Reply, name: Name) -> Found | None:
    """What a reply to `read_request` holds; None where there is nothing."""
    if _is_miss(reply, name):
        return None
    _must_name(reply, name, b"VA")
    cas = reply.flags[1][1:] if len(reply.flags) > 1 and reply.flags[1][:1] == b"c" else b""
    if not cas.isdigit():
        raise _odd(reply, name)
    raw = b"" if _STALE.intersection(reply.flags) else reply.value
    return Found(raw or b"", cas)


def wrote(reply: Reply, name: Name) -> Wrote:
    """What became of a write or a delete."""
    if reply.code == b"SERVER_ERROR":
        refused = _REFUSED.get(reply.flags[0])
        if refused is None:
            raise _odd(reply, name)
        return refused
    _must_name(reply, name, b"HD", *_LOST)
    return Wrote.LOST if reply.code in _LOST else Wrote.DONE


def instance(reply: Reply) -> str:
    """Which start of the server answered `stats`: its process id and when it started."""
    stats = _stats(reply)
    try:
        return f"memcached-{int(stats[b'pid'])}-{int(stats[b'time']) - int(stats[b'uptime'])}"
    except (KeyError, ValueError) as cause:
        raise ProtocolError(
            "memcached did not tell its process id and its start; the connection was dropped"
        ) from cause


def is_empty(reply: Reply) -> bool:
    """Whether the server that answered `stats` surely keeps nothing. A proxy tells of itself only."""
    stats = _stats(reply)
    return stats.get(b"curr_items") == b"0" and not any(name.startswith(b"proxy") for name in stats)


def _stats(reply: Reply) -> dict[bytes, bytes]:
    lines = (line.split(b" ", 2) for line in reply.flags if line.count(b" ") >= 2)
    return {name: told for _, name, told in lines}


def _is_miss(reply: Reply, name: Name) -> bool:
    # 1.6.18 names the key of a miss, the documentation says that it does not.
    return reply.code == b"EN" and (not reply.flags or reply.flags == [b"k" + name])


def _must_name(reply: Reply, name: Name, *codes: bytes) -> None:
    if reply.code not in codes or not reply.flags or reply.flags[0] != b"k" + name:
        raise _odd(reply, name)


def _odd(reply: Reply, name: Name) -> ProtocolError:
    head = b" ".join((reply.code, *reply.flags))[:200]
    return ProtocolError(f"memcached answered {head!r} about {name!r}; the connection was dropped")
