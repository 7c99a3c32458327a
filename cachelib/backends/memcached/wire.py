"""Memcached's meta commands as bytes: requests are built and replies parsed here, and nothing is sent.

Only what 1.6.18 has is used: `mg`, `ms`, `md` with the flags k v c C T ME. Three habits come from it:

- Every command asks for its key back (`k`), and every reply must name it. A connection that lost
  count of its replies can so never pass one key's bytes off as another's (I12).
- No TTL of 1 s (it may end at once), none above 30 days (it would be read as a point in time).
- A reply that is not expected is a `ProtocolError`: the caller must drop the connection.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cachelib.errors import BadKey, ProtocolError
from cachelib.model import Name

NAME_BYTES_MAX = 250
TTL_S_MIN = 2
TTL_S_MAX = 30 * 24 * 3600
LINE_BYTES_MAX = 2048
"""A reply's line holds at most a name and a few flags; a longer one is no memcached's."""
VALUE_BYTES_MAX = 1 << 30
"""The most that a server can be told to accept (`-I`)."""
STATS_MAX = 1000

_FORBIDDEN = bytes(range(0x21)) + b"\x7f"
_CODES = frozenset((b"HD", b"VA", b"EN", b"NS", b"EX", b"NF", b"MN"))
_STALE = frozenset((b"W", b"X", b"Z"))


class Reply(NamedTuple):
    """One reply: its two letters, its flags, and the value where it has one."""

    code: bytes
    flags: list[bytes]
    value: bytes | None = None


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


class _More(Enum):
    MORE = "more"


MORE = _More.MORE
"""The answer of `whole_value` where it cannot tell: use a `ReplyReader`."""

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


class ReplyReader:
    """Takes bytes as they come, and gives the replies to one pipeline: exactly `wanted`, then silence."""

    __slots__ = ("_at", "_buffer", "_parts", "_stats", "_wanted", "missing", "replies")

    def __init__(self, wanted: int) -> None:
        self.replies: list[Reply] = []
        self.missing = 0
        """At least so many bytes more are sure to come."""
        self._wanted = wanted
        self._buffer = b""
        self._at = 0
        self._parts: list[bytes] = []
        self._stats: list[bytes] | None = None

    def feed(self, data: bytes) -> bool:
        """Take what was received. True: all replies are there. Raises `ProtocolError`."""
        if len(data) < self.missing:  # in the middle of a large value: joined once, at its end
            self._parts.append(data)
            self.missing -= len(data)
            return False
        self._buffer = b"".join((self._buffer[self._at :], *self._parts, data))
        self._parts.clear()
        self._at = self.missing = 0
        while len(self.replies) < self._wanted and self._next():
            pass
        if len(self.replies) < self._wanted:
            return False
        if self._at < len(self._buffer):
            raise unexpected(self._buffer[self._at :], "behind the last reply")
        return True

    def _next(self) -> bool:
        """Parse one line, and its value."""
        end = self._buffer.find(b"\r\n", self._at)
        length = (end if end >= 0 else len(self._buffer) - 1) - self._at
        if length > LINE_BYTES_MAX:
            raise unexpected(self._buffer[self._at :], "where a line of a reply was expected")
        if end < 0:
            return False
        line = self._buffer[self._at : end]
        code, *flags = line.split(b" ")
        if code == b"VA":
            return self._value(flags, end + 2)
        self._at = end + 2
        if code in _CODES and self._stats is None:
            self.replies.append(Reply(code, flags))
        else:
            self._uncommon(code, line)
        return True

    def _value(self, flags: list[bytes], start: int) -> bool:
        if not flags or not flags[0].isdigit() or len(flags[0]) > 10 or int(flags[0]) > VALUE_BYTES_MAX:
            raise unexpected(self._buffer[self._at :], "where a value's size was expected")
        if self._stats is not None:
            raise unexpected(self._buffer[self._at :], "between the lines of `stats`")
        end = start + int(flags[0])
        if len(self._buffer) < end + 2:
            self.missing = end + 2 - len(self._buffer)
            return False
        if self._buffer[end : end + 2] != b"\r\n":
            raise unexpected(self._buffer[end : end + 2], "behind a value")
        self.replies.append(Reply(b"VA", flags[1:], self._buffer[start:end]))
        self._at = end + 2
        return True

    def _uncommon(self, code: bytes, line: bytes) -> None:
        if code == b"STAT" and len(self._stats or ()) < STATS_MAX:
            self._stats = self._stats or []
            self._stats.append(line)
        elif code == b"END" and self._stats is not None:
            self.replies.append(Reply(b"END", self._stats))
            self._stats = None
        elif code == b"SERVER_ERROR" and self._stats is None:
            self.replies.append(Reply(code, [line[len(b"SERVER_ERROR ") :]]))
        else:
            raise unexpected(line, "as a reply; memcached 1.6 or newer is needed")


def whole_value(data: bytes, name: Name) -> bytes | _More | None:
    """The value in `data` if that is the whole reply to `value_request(name)` and nothing unusual."""
    end = data.find(b"\r\n")
    code, _, rest = data[:end].partition(b" ")
    size, _, flags = rest.partition(b" ")
    if flags == b"k" + name and code == b"VA" and size.isdigit():
        if len(data) == end + 4 + int(size) and data.endswith(b"\r\n"):
            return data[end + 2 : -2]
    elif code == b"EN" and len(data) == end + 2 and rest in (b"", b"k" + name):
        return None
    return MORE


def value(reply: Reply, name: Name) -> bytes | None:
    """The value in a reply to `value_request`. None: there is none, or it is marked as stale."""
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
    stats = dict(line.split(b" ", 2)[1:] for line in reply.flags if line.count(b" ") >= 2)
    try:
        return f"memcached-{int(stats[b'pid'])}-{int(stats[b'time']) - int(stats[b'uptime'])}"
    except (KeyError, ValueError) as cause:
        raise ProtocolError(
            "memcached did not tell its process id and its start; the connection was dropped"
        ) from cause


def _is_miss(reply: Reply, name: Name) -> bool:
    # 1.6.18 names the key of a miss, the documentation says that it does not.
    return reply.code == b"EN" and (not reply.flags or reply.flags == [b"k" + name])


def _must_name(reply: Reply, name: Name, *codes: bytes) -> None:
    if reply.code not in codes or not reply.flags or reply.flags[0] != b"k" + name:
        raise _odd(reply, name)


def _odd(reply: Reply, name: Name) -> ProtocolError:
    head = b" ".join((reply.code, *reply.flags))[:200]
    return ProtocolError(f"memcached answered {head!r} about {name!r}; the connection was dropped")


def unexpected(data: bytes, where: str) -> ProtocolError:
    """The error for bytes that nobody asked for."""
    return ProtocolError(f"memcached sent {data[:80]!r} {where}; the connection was dropped")
