"""The two wire protocols, as far as a load needs them: requests as bytes, replies as outcomes.

Redis speaks RESP2, memcached its meta commands (1.6 and later). Replies come in the order of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from cachelib.errors import MissingExtra
from loadgen.engine.lane import Outcome

HIT, MISS, WRITTEN = int(Outcome.HIT), int(Outcome.MISS), int(Outcome.WRITTEN)
Reply = int | list[int] | str
"""An outcome; for a request of several keys one for each; or the name of an error."""


class Replies(Protocol):
    """One connection's incoming stream."""

    def feed(self, data: bytes) -> Iterator[Reply]:
        """What is complete now."""


class Dialect(Protocol):
    """A protocol."""

    def get(self, name: bytes) -> bytes:
        """The request for one key."""

    def many(self, names: Sequence[bytes]) -> tuple[bytes, int]:
        """The request for several keys, and how many replies it gets."""

    def set(self, name: bytes, value: bytes, ttl_s: int) -> bytes:
        """The request that stores a value."""

    def delete(self, name: bytes) -> bytes:
        """The request that removes one."""

    def replies(self) -> Replies:
        """For a new connection."""


class RedisDialect:
    """See `Dialect`."""

    def __init__(self) -> None:
        try:
            import hiredis
        except ImportError as error:
            raise MissingExtra("the wire target on Redis needs hiredis: pip install 'leasecache[redis]'") from error
        self._reader = hiredis.Reader

    def get(self, name: bytes) -> bytes:
        """See `Dialect.get`."""
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(name), name)

    def many(self, names: Sequence[bytes]) -> tuple[bytes, int]:
        """See `Dialect.many`."""
        body = b"".join(b"$%d\r\n%s\r\n" % (len(name), name) for name in names)
        return b"*%d\r\n$4\r\nMGET\r\n%s" % (len(names) + 1, body), 1

    def set(self, name: bytes, value: bytes, ttl_s: int) -> bytes:
        """See `Dialect.set`."""
        life = b"%d" % ttl_s
        return b"*5\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n$2\r\nEX\r\n$%d\r\n%s\r\n" % (
            *(len(name), name),
            *(len(value), value),
            *(len(life), life),
        )

    def delete(self, name: bytes) -> bytes:
        """See `Dialect.delete`."""
        return b"*2\r\n$3\r\nDEL\r\n$%d\r\n%s\r\n" % (len(name), name)

    def replies(self) -> Replies:
        """See `Dialect.replies`."""
        return RedisReplies(self._reader())


class RedisReplies:
    """hiredis parses; a reply of text or a number is that of a write."""

    def __init__(self, reader: object) -> None:
        self._reader = reader
        self._gets = reader.gets  # type: ignore[attr-defined]  # hiredis.Reader, which is an extra
        self._feed = reader.feed  # type: ignore[attr-defined]

    def feed(self, data: bytes) -> Iterator[Reply]:
        """See `Replies.feed`."""
        self._feed(data)
        gets = self._gets
        while (reply := gets()) is not False:
            if reply is None:
                yield MISS
            elif reply.__class__ is bytes:
                yield WRITTEN if reply == b"OK" else HIT
            elif reply.__class__ is int:
                yield WRITTEN
            elif reply.__class__ is list:
                yield [MISS if one is None else HIT for one in reply]
            else:
                yield type(reply).__name__


class MemcachedDialect:
    """See `Dialect`."""

    def get(self, name: bytes) -> bytes:
        """See `Dialect.get`."""
        return b"mg %s v\r\n" % name

    def many(self, names: Sequence[bytes]) -> tuple[bytes, int]:
        """See `Dialect.many`."""
        return b"".join(b"mg %s v\r\n" % name for name in names), len(names)

    def set(self, name: bytes, value: bytes, ttl_s: int) -> bytes:
        """See `Dialect.set`."""
        return b"ms %s %d T%d\r\n%s\r\n" % (name, len(value), ttl_s, value)

    def delete(self, name: bytes) -> bytes:
        """See `Dialect.delete`."""
        return b"md %s\r\n" % name

    def replies(self) -> Replies:
        """See `Dialect.replies`."""
        return MemcachedReplies()


class MemcachedReplies:
    """`VA size`, then so many bytes; `EN` miss; `HD` done; `NF` and `NS` nothing to do; else an error."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterator[Reply]:
        """See `Replies.feed`."""
        data = self._left + data if self._left else data
        at, size = 0, len(data)
        while (line := data.find(b"\r\n", at)) >= 0:
            kind = data[at : at + 2]
            if kind == b"VA":
                # The size ends at the line's end, or where flags follow.
                after = line + 2 + int(data[at + 3 : line].split(b" ", 1)[0]) + 2
                if after > size:
                    break
                at = after
                yield HIT
                continue
            first, at = data[at:line].split(b" ", 1)[0], line + 2
            if kind == b"EN":
                yield MISS
            elif kind in (b"HD", b"NF", b"NS"):
                yield WRITTEN
            else:
                yield first.decode(errors="replace") or "BadReply"
        self._left = data[at:]


def dialect_of(url: str) -> Dialect:
    """By the URL's scheme."""
    return MemcachedDialect() if url.startswith("memcached") else RedisDialect()
