"""Memcached's replies as they come over a connection: bytes in, whole replies out. What they mean is in `wire.py`."""

from __future__ import annotations

from typing import NamedTuple

from cachelib.errors import ProtocolError

LINE_BYTES_MAX = 2048
"""A reply's line holds at most a name and a few flags; a longer one is no memcached's."""
VALUE_BYTES_MAX = 1 << 30
"""The most that a server can be told to accept (`-I`)."""
STATS_MAX = 1000
REPLIES_MAX = 1 << 30

_CODES = frozenset((b"HD", b"VA", b"EN", b"NS", b"EX", b"NF", b"MN"))


class Reply(NamedTuple):
    """One reply: its two letters, its flags, and the value where it has one."""

    code: bytes
    flags: list[bytes]
    value: bytes | None = None


class ReplyStream:
    """Takes bytes as they come, and gives the replies that they make whole."""

    __slots__ = ("_at", "_buffer", "_parts", "_stats", "missing", "replies")

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.missing = 0
        """At least so many bytes more are sure to come."""
        self._buffer = b""
        self._at = 0
        self._parts: list[bytes] = []
        self._stats: list[bytes] | None = None

    def feed(self, data: bytes) -> list[Reply]:
        """Take what was received. Raises `ProtocolError`."""
        if self._taken(data):
            self._values(REPLIES_MAX)
            while self._next():
                pass
        replies, self.replies = self.replies, []
        return replies

    def has_rest(self) -> bool:
        """The beginning of another reply was received."""
        return self._at < len(self._buffer) or self._stats is not None

    def _taken(self, data: bytes) -> bool:
        """False: in the middle of a large value, which is joined once, at its end."""
        if len(data) < self.missing:
            self._parts.append(data)
            self.missing -= len(data)
            return False
        if self._at < len(self._buffer) or self._parts:
            data = b"".join((self._buffer[self._at :], *self._parts, data))
            self._parts.clear()
        self._buffer = data
        self._at = self.missing = 0
        return True

    def _values(self, wanted: int) -> None:
        """The values that stand one behind the other: what a batch of hits is. Anything else is left to `_next`."""
        buffer, at, replies, make = self._buffer, self._at, self.replies, tuple.__new__
        while len(replies) < wanted and buffer.startswith(b"VA ", at) and self._stats is None:
            end = buffer.find(b"\r\n", at, at + LINE_BYTES_MAX)
            size, _, flags = buffer[at + 3 : end].partition(b" ")
            if end < 0 or not flags or not size.isdigit() or len(size) > 9:
                break
            start = end + 2
            stop = start + int(size)
            if buffer[stop : stop + 2] != b"\r\n":
                break
            replies.append(make(Reply, (b"VA", flags.split(b" "), buffer[start:stop])))
            at = stop + 2
        self._at = at

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


class ReplyReader(ReplyStream):
    """The replies to one pipeline: exactly `wanted`, then silence."""

    __slots__ = ("_wanted",)

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._wanted = wanted

    def whole(self, data: bytes) -> bool:
        """Take what was received. True: all replies are there. Raises `ProtocolError`."""
        if not self._taken(data):
            return False
        self._values(self._wanted)
        while len(self.replies) < self._wanted and self._next():
            pass
        if len(self.replies) < self._wanted:
            return False
        if self._at < len(self._buffer):
            raise unexpected(self._buffer[self._at :], "behind the last reply")
        return True


def unexpected(data: bytes, where: str) -> ProtocolError:
    """The error for bytes that nobody asked for."""
    return ProtocolError(f"memcached sent {data[:80]!r} {where}; the connection was dropped")
