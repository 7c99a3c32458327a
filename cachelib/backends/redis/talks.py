"""What is said to a Redis, without a socket: each talk yields commands and is sent their replies.

A talk is a generator. It yields a list of commands (tuples of bytes), which go out together on one
connection; it is sent the list of their replies, an error reply being an exception among them; it
returns its result. Both faces drive the same talks. What a server cannot be asked (it is gone) never
gets here: the transport ends the talk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TypeAlias, TypeVar

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from cachelib.backends.base import Batch, Results
from cachelib.backends.redis.ops import answer, pack
from cachelib.envelope import decode, encode, encode_header
from cachelib.errors import CacheFull, CacheUnavailable, DecodeError, ProtocolError
from cachelib.item import apply
from cachelib.model import Answer, Fill, Get, Item, Name, Op, Stored, Token
from cachelib.policy import LIFE_MS_MAX

T = TypeVar("T")
Command: TypeAlias = tuple[bytes, ...]
Talk: TypeAlias = Generator[list[Command], list[object], T]


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name under which a server keeps it."""

    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        # Not for security: it is how Redis names scripts.
        object.__setattr__(self, "sha", hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode())


_STRINGS = frozenset((bytes, type(None)))
GRANTED_MAX = 1024
"""So many leases are remembered. One that is not costs its fill the longer way, and nothing else."""
ITEM = Script(files(__package__).joinpath("item.lua").read_bytes())


@dataclass(slots=True)
class Talks:
    """The talks of one backend."""

    names_per_call: int
    """How many names one call of the script carries; the server does nothing else meanwhile."""
    script: Script = ITEM
    refused_writes: int = 0
    """What the server refused to keep for want of memory, since the start. For alerts: two threads may count as one."""
    granted: dict[Token, Item] = field(default_factory=dict)
    """What `_leased_at_once` left there for its caller: then its fill can be judged here."""

    def execute(self, name: Name, op: Op, now_ms: int) -> Talk[Answer]:
        """One operation."""
        if isinstance(op, Get) and op.vacant:
            leased = yield from self._leased_at_once(name, op, now_ms)
            if leased is not None:
                return leased
        judged = self._judged(op, now_ms) if isinstance(op, Fill) else ()
        call = (b"EVALSHA", self.script.sha, b"1", name, b"%d" % now_ms, pack(op), *judged)
        (reply,) = yield [call]
        if isinstance(reply, NoScriptError):
            _, reply = yield [(b"SCRIPT", b"LOAD", self.script.text), call]
        if isinstance(reply, Exception):
            raise _unavailable(name, reply)
        if not isinstance(reply, list) or len(reply) != 1:
            raise unexpected(reply, "item.lua")
        said, refused = answer(name, op, reply[0], now_ms)
        self.refused_writes += refused
        return said

    def _leased_at_once(self, name: Name, op: Get, now_ms: int) -> Talk[Answer | None]:
        """Where there is nothing, what `item.apply` makes of it is just set: a tenth of what the script costs.

        Where there is something by now, it may be that nothing has to change (another holds the lease, or has
        filled). None: ask the script.
        """
        granted, leased = apply(None, op, now_ms)
        assert granted is not None
        life_ms = b"%d" % min(granted.expires_ms - now_ms, LIFE_MS_MAX)
        done, found = yield [(b"SET", name, encode(granted), b"NX", b"PX", life_ms), (b"GET", name)]
        if done in (b"OK", True):  # True: a client of redis-py has read it (`from_client`)
            if len(self.granted) >= GRANTED_MAX:  # of loads that failed, and of those that are under way
                self.granted.clear()
            self.granted[op.token] = granted
            return leased
        if done is not None or not isinstance(found, bytes):
            return None  # it was refused, or went again
        try:
            item = decode(found)
        except DecodeError:
            return None
        after, said = apply(item, op, now_ms)
        return said if after is item else None

    def _judged(self, op: Fill, now_ms: int) -> tuple[bytes, ...]:
        """For `item.lua`: what `item.apply` makes of a fill, if the item is still what was granted; it holds it against
        the item first. Its own rules, which take the server five times as long, are for all other cases."""
        granted = self.granted.pop(op.token, None)
        if granted is None:
            return ()
        item, said = apply(granted, op, now_ms)
        if item is None or not isinstance(said, Stored):
            return ()
        life_ms = max(1, min(item.expires_ms - now_ms, LIFE_MS_MAX))
        return encode(granted), encode_header(item), b"%d" % life_ms

    def execute_many(self, batch: Batch, now_ms: int) -> Talk[Results]:
        """All chunks in one round trip; those that met a server without the script go again, behind it."""
        chunks = [batch[start : start + self.names_per_call] for start in range(0, len(batch), self.names_per_call)]
        if not chunks:
            return []
        calls = [self._call(chunk, now_ms) for chunk in chunks]
        replies = yield calls
        again = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if again:
            loaded = yield [(b"SCRIPT", b"LOAD", self.script.text), *(calls[number] for number in again)]
            for number, reply in zip(again, loaded[1:], strict=True):
                replies[number] = reply
        results = [self._results(chunk, reply, now_ms) for chunk, reply in zip(chunks, replies, strict=True)]
        return [result for part in results for result in part]

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Talk[Results]:
        """The notes follow when every operation was answered, on the connection that carried them (I11)."""
        results = yield from self.execute_many(batch, now_ms)
        if notes and not any(isinstance(result, Exception) for result in results):
            replies = yield [(b"SET", name, text) for name, text in notes.items()]
            for name, reply in zip(notes, replies, strict=True):
                self._kept(name, reply)
        return results

    def get_many(self, names: Sequence[Name]) -> Talk[list[bytes | None]]:
        """The bytes kept for each name, items or notes."""
        if not names:
            return []
        (reply,) = yield [(b"MGET", *names)]
        return strings(reply, len(names))

    def began_empty(self) -> Talk[bool]:
        """No key was loaded from a file (told since Redis 7.0, for both kinds of file), and it was never promoted."""
        replies = yield [(b"INFO", b"persistence"), (b"INFO", b"replication")]
        try:
            loaded = told(replies[0], b"rdb_last_load_keys_loaded"), told(replies[0], b"aof_enabled")
            alone = told(replies[1], b"role"), told(replies[1], b"master_replid2").strip("0")
        except ProtocolError:
            return False  # an older one
        return loaded == ("0", "0") and alone == ("master", "")

    def instance(self) -> Talk[str]:
        """The run id and the replication id: a restart changes the first, a promotion the second."""
        replies = yield [(b"INFO", b"server"), (b"INFO", b"replication")]
        return "-".join([told(replies[0], b"run_id"), told(replies[1], b"master_replid")])

    def empty(self) -> Talk[bool]:
        """Whether the server surely keeps nothing in this database."""
        (reply,) = yield [(b"DBSIZE",)]
        return type(reply) is int and reply == 0  # it may not be asked: then nothing is sure

    # --- how -----------------------------------------------------------------------------------

    def _call(self, chunk: Batch, now_ms: int) -> Command:
        names = [name for name, _ in chunk]
        count = b"%d" % len(names)
        return (b"EVALSHA", self.script.sha, count, *names, b"%d" % now_ms, *(pack(op) for _, op in chunk))

    def _results(self, chunk: Batch, reply: object, now_ms: int) -> Results:
        if isinstance(reply, Exception):
            return [_unavailable(name, reply) for name, _ in chunk]
        if not isinstance(reply, list) or len(reply) != len(chunk):
            raise unexpected(reply, "item.lua")
        answers = [answer(name, op, part, now_ms) for (name, op), part in zip(chunk, reply, strict=True)]
        self.refused_writes += sum(refused for _, refused in answers)
        return [said for said, _ in answers]

    def _kept(self, name: Name, reply: object) -> None:
        if isinstance(reply, OutOfMemoryError):
            raise CacheFull(f"redis has no memory for the note {name!r}: give it more, or an eviction policy")
        if isinstance(reply, Exception):
            raise _unavailable(name, reply)
        if reply not in (b"OK", True):  # True: a client of redis-py has read it (`from_client`)
            raise unexpected(reply, "SET")


def spoils(reply: object) -> bool:
    """Whether the connection that this came over should not be used again: the server changed its role, or worse."""
    return isinstance(reply, ResponseError) and not isinstance(reply, NoScriptError | OutOfMemoryError)


def plain(reply: object) -> bytes | None:
    """A string reply, or `CacheUnavailable` (I12)."""
    if reply is None or isinstance(reply, bytes):
        return reply
    if isinstance(reply, Exception):
        raise CacheUnavailable(f"redis refused to read: {reply}") from reply
    raise unexpected(reply, "GET")


def strings(reply: object, count: int) -> list[bytes | None]:
    """What MGET of so many names answered. Raises `ProtocolError` (I12)."""
    if not isinstance(reply, list) or len(reply) != count or not _STRINGS.issuperset(map(type, reply)):
        raise unexpected(reply, "MGET")
    return reply


def unexpected(reply: object, command: str) -> ProtocolError:
    """A reply that is none to this command."""
    return ProtocolError(f"redis answered {command} with {repr(reply)[:80]}; the connection was dropped")


def _unavailable(name: Name, error: Exception) -> CacheUnavailable:
    unavailable = CacheUnavailable(f"redis refused an operation on {name!r}: {error}")
    unavailable.__cause__ = error
    return unavailable


def told(reply: object, field_name: bytes) -> str:
    """One field of INFO."""
    if isinstance(reply, dict):  # a client of redis-py has read it
        return str(reply.get(field_name.decode(), ""))
    if isinstance(reply, Exception):
        raise CacheUnavailable(f"redis refused to tell which instance it is: {reply}") from reply
    if isinstance(reply, bytes):
        for line in reply.splitlines():
            if line.startswith(field_name + b":"):
                return line[len(field_name) + 1 :].decode("ascii", "replace").strip()
    raise unexpected(reply, "INFO")
