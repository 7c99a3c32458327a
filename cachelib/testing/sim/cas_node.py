"""A memcached under simulation: it speaks the protocol, so the rounds of `backends.memcached` run over it as they are.

Between the read of a round and its write there is time, and CAS ids begin again when it restarts (I14).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from cachelib.backends.base import Batch, Capability, Results
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.links import Counts
from cachelib.backends.memcached.node import Node as Rounds
from cachelib.backends.memcached.replies import Reply, ReplyReader
from cachelib.backends.memcached.settings import Settings
from cachelib.errors import CacheError, CacheUnavailable
from cachelib.model import Answer, Name, Op
from cachelib.proof import Seen
from cachelib.testing.sim.loop import Loop, Process
from cachelib.testing.sim.node import Network, Way


class CasNode:
    """A memcached of one thread: `mg`, `ms`, `md` and `stats`, as far as the backend speaks them."""

    def __init__(self, name: str, loop: Loop) -> None:
        self.name = name
        self.loop = loop
        self.down = False
        self.start = 1
        self.fuse = self.restarted_us = 0
        self._items: dict[Name, tuple[bytes, int, int]] = {}
        self._cas = 0
        self._since_s = 100
        """All begin in the same second, and with the same process id: what they tell of themselves is the same."""

    def evict(self, name: Name) -> None:
        """See `Server`."""
        self._items.pop(name, None)

    def restart(self) -> None:
        """See `Server`: CAS ids begin again, which is what I14 is about."""
        self._items, self._cas = {}, 0
        self.start += 1
        self.restarted_us = self.loop.now_us

    def forget_notes(self) -> None:
        """See `Server`."""
        for name in [name for name in self._items if b"." not in name.split(b"/")[1]]:
            del self._items[name]

    def keep(self) -> Any:
        """See `Server`."""
        return dict(self._items)

    def restart_from(self, kept: Any) -> None:
        """See `Server`; as with a memcached whose memory outlives it."""
        self.restart()
        for name, (raw, _, until_us) in kept.items():
            self._store(name, raw, until_us)

    def plant(self, name: Name, raw: bytes) -> None:
        """See `Server`."""
        self._store(name, raw, self.loop.now_us + 3_600_000_000)

    def peek(self, name: Name) -> bytes | None:
        """See `Server`."""
        found = self._alive(name)
        return found[0] if found else None

    def held(self) -> list[tuple[Name, bytes]]:
        """See `Server`."""
        return [(name, raw) for name, (raw, _, until_us) in self._items.items() if until_us > self.loop.now_us]

    def instance(self) -> str:
        """As the backend makes it from `stats`."""
        return f"memcached-{self.start}-{self._since_s}"

    def backend(self, process: Process, network: Network) -> CasBackend:
        """See `Server`."""
        return CasBackend(self, Way(self, process, network))

    def _store(self, name: Name, raw: bytes, until_us: int) -> None:
        self._cas += 1
        self._items[name] = raw, self._cas, until_us

    def _alive(self, name: Name) -> tuple[bytes, int, int] | None:
        found = self._items.get(name)
        if found is not None and found[2] <= self.loop.now_us:
            del self._items[name]
            return None
        return found

    def answer(self, request: bytes) -> bytes:
        """What it sends back."""
        said, at = [], 0
        while at < len(request):
            end = request.index(b"\r\n", at)
            verb, *words = request[at:end].split(b" ")
            at = end + 2
            if verb == b"stats":
                said.append(b"STAT pid %d\r\nSTAT time %d\r\nSTAT uptime 0\r\nEND\r\n" % (self.start, self._since_s))
                continue
            raw = b""
            if verb == b"ms":
                raw = request[at : at + int(words[1])]
                at += len(raw) + 2
            said.append(self._meta(verb, words, raw))
        return b"".join(said)

    def _meta(self, verb: bytes, words: list[bytes], raw: bytes) -> bytes:
        name, found = words[0], self._alive(words[0])
        if verb == b"mg":
            if found is None:
                return b"EN\r\n"
            cas = b" c%d" % found[1] if b"c" in words else b""
            return b"VA %d k%b%b\r\n%b\r\n" % (len(found[0]), name, cas, found[0])
        wanted = next((int(word[1:]) for word in words if word[:1] == b"C" and word[1:].isdigit()), None)
        refused = b"NF" if found is None else b"EX"
        if wanted is not None and (found is None or found[1] != wanted):
            return b"%b k%b\r\n" % (refused, name)
        if verb == b"md":
            self._items.pop(name, None)
            return b"%b k%b\r\n" % (b"HD" if found else b"NF", name)
        if b"ME" in words and found is not None:
            return b"NS k%b\r\n" % name
        ttl_s = next(int(word[1:]) for word in words if word[:1] == b"T")
        self._store(name, raw, self.loop.now_us + ttl_s * 1_000_000 if ttl_s else 1 << 62)
        return b"HD k%b\r\n" % name


class SimLink:
    """A connection to a `CasNode`."""

    def __init__(self, way: Way, line: int) -> None:
        self._way = way
        self.line = line

    async def roundtrip(self, request: bytes, replies: int) -> list[Reply]:
        """See `Link.roundtrip`."""
        reader = ReplyReader(replies)
        node: CasNode = self._way.node
        reader.whole(await self._way.ask(lambda: node.answer(request), self.line))
        return reader.replies


class SimLinks:
    """The one connection, shared by all calls of a process. That it is dead a pool only learns by using it."""

    def __init__(self, way: Way) -> None:
        self._way = way

    async def take(self, *, fresh: bool = False) -> SimLink:
        """See `Links.take`."""
        return SimLink(self._way, await self._way.connected())

    def give_back(self, link: SimLink) -> None:
        """See `Links.give_back`."""

    def drop(self, link: SimLink, error: BaseException) -> None:
        """See `Links.drop`."""
        if isinstance(error, CacheUnavailable):
            self._way.drop(link.line)


SETTINGS = Settings.of({})


class CasBackend:
    """`AsyncMemcached` over simulated connections."""

    def __init__(self, node: CasNode, way: Way) -> None:
        self.address = node.name
        self.capability = Capability("memcached", wire.NAME_BYTES_MAX, 1 << 20, 1000, wire.TTL_S_MAX * 1000, True, True)
        self._way = way
        self._rounds: Rounds[SimLink] = Rounds(SimLinks(way), SETTINGS, Counts())
        self.get_many = self.read_notes = self._rounds.get_many
        self.instance = self._rounds.instance

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return (await self._rounds.get_many([name]))[0]

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return await self._told(name, op, self._rounds.execute(name, op, now_ms))

    async def _told(self, name: Name, op: Op, answer: Awaitable[Answer]) -> Answer:
        try:
            said = await answer
        except CacheError as error:
            self._way.tell(name, op, error)
            raise
        self._way.tell(name, op, said)
        return said

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return self._all_told(batch, await self._rounds.execute_many(batch, now_ms))

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return self._all_told(batch, await self._rounds.apply(batch, notes, now_ms))

    def _all_told(self, batch: Batch, results: Results) -> Results:
        for (name, op), answer in zip(batch, results, strict=True):
            self._way.tell(name, op, answer)
        return results

    async def began_empty(self) -> bool:
        """Not as a memcached does, whose file is of the moment of its stop: here old ones come back, too."""
        return False

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._way.watch(seen)

    async def close(self) -> None:
        """Nothing stays open."""
