"""A lane: what the hit path of one entity needs, ready made for as long as the layout stands.

With one node, a name is `prefix` and the key's text, and `get` is the backend's own. In a pool the prefix is
empty and `get` finds the way by the key's slot; it answers None where the steps have to be asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from cachelib.backends.base import Wire
from cachelib.breaker import Breaker
from cachelib.comparing import Comparer
from cachelib.entity import Entity
from cachelib.envelope import DOUBT, HEADER_BYTES, decode, plain_reader, seen
from cachelib.errors import CacheError, CacheUnavailable, DecodeError
from cachelib.item import shown_while_held
from cachelib.keys import Key
from cachelib.l1 import PLAIN_KEYS, Copy, Shelf
from cachelib.layout import Layout
from cachelib.metrics import HIT_SAMPLE, READS, Tally
from cachelib.model import Kind, Name
from cachelib.nodes import Node, now_ms
from cachelib.pool import Pool
from cachelib.port import Found
from cachelib.readplan import ReadPlan
from cachelib.shown import taken
from cachelib.standing import Standing, Trust
from cachelib.straight import NOTHING, UNASKED, Anybody, Ask, Trusted, Unserved, straight
from cachelib.world import Flights

Get: TypeAlias = Callable[[bytes], Any]
Trusts: TypeAlias = tuple[Trust | None, ...]


class Route(NamedTuple):
    """How the hit path comes to a node. `wire`: the straight way, where there is one; what it is told counts while
    `trust` is the one of `standing`."""

    prefix: bytes
    get: Get
    breaker: Breaker
    wire: Wire | None = None
    standing: Trusted = Anybody()
    trust: Trust | None = None


@dataclass(frozen=True, slots=True)
class Faces:
    """What differs between threads and asyncio: `routed` finds the node of a key, `trusting` asks one server start."""

    routed: Callable[[Sequence[Route | None]], Get]
    trusting: Callable[[Get, Standing, Trust], Get]


JOIN_SHARE = 4
"""Of `wait_max` a lane waits for a flight no longer than this part: the steps do so again, and then wait themselves."""
NEVER = Breaker()
"""For a pool's lane: its routes have a breaker for each node."""


class Lane:
    """See the module."""

    __slots__ = (
        *("ask", "breaker", "comparer", "entity", "flights", "get", "hit", "local", "name", "near", "packer", "plain"),
        *("prefix", "render", "shelf", "shows_stale", "skew_ms", "tally", "trusts", "under_way", "value"),
    )

    def __init__(self, entity: Entity, route: Route, tally: Tally, shelf: Shelf | None, trusts: Trusts = ()) -> None:
        self.comparer: Comparer | None = None
        self.plain: ReadPlan | None = None
        self.flights: Flights | None = None
        """See `joins`; None where a read has to be thought about."""
        self.under_way: Collection[Name] = ()
        """Theirs; nothing where there are none."""
        self.shows_stale = False
        self.prefix, self.get, self.breaker = route.prefix, route.get, route.breaker
        self.trusts = trusts
        """Of a strong entity: what was known of each node when this was made."""
        self.render = entity.template.render
        self.name = entity.template.namer(self.prefix)
        """What `get` is asked for."""
        self.skew_ms = _skew_ms()
        """What to add to the monotonic clock: a hit asks one clock only. Looked at again with each sample."""
        self.entity = entity
        self.packer = packer = entity.packer
        self.value = plain_reader(packer.prefix, packer.decode, packer.unpack)
        """The value in what `get` answered, at a time (ms), or `DOUBT`."""
        self.tally = tally
        self.hit = tally.hit
        self.local = tally.locals.step
        self.shelf = shelf
        self.near = None if shelf is None else shelf.look
        """Looks a copy up in the process; None without L1."""
        self.ask: Ask = self.look
        """For threads: from a key, and when the read began, to its value or to `Unserved`."""
        if route.wire is not None and shelf is None:
            self.ask = straight(self, route.wire, route.standing, route.trust)

    def look(self, key: Key, began: float) -> Any:
        """`ask` by way of `get`, whatever that goes through."""
        if self.breaker.failed:
            return UNASKED
        return self.through(key, began, 0 if self.shelf is None else self.shelf.stamp, self.get, self.name(key))

    def through(self, key: Key, began: float, stamp: int, ask: Callable[..., bytes | None], *args: Any) -> Any:
        """What `look` makes of what this answers. `stamp`: the shelf's."""
        try:
            raw = ask(*args)
        except CacheUnavailable:
            self.breaker.failed_at(now_ms())
            return NOTHING
        if raw is None:
            return NOTHING
        value = self.value(raw, began * 1000 + self.skew_ms)
        if value is DOUBT:
            return Unserved(raw)
        if not self.hit() & HIT_SAMPLE:
            self.sampled(key, raw, time.monotonic() - began)
        if self.near is not None:
            self.keep(key, raw, value, began, stamp)
        return value

    def copy(self, key: Key, text: bytes) -> Copy | None:
        """The copy of a key that still may be served."""
        if self.near is None:
            return None
        copy = self.near(key if key.__class__ in PLAIN_KEYS else text)
        return copy if copy is not None and time.monotonic() < copy.until else None

    def sampled(self, key: Key, raw: bytes, seconds: float) -> None:
        """A hit whose number has none of the bits of `HIT_SAMPLE`."""
        self.tally.read_seconds.add(seconds)
        self.skew_ms = _skew_ms()
        if self.comparer is not None:
            self.comparer.offer(self.entity, key, raw, self.entity.consistency, HIT_SAMPLE + 1)

    def joins(self, plain: ReadPlan, flights: Flights) -> None:
        """From now on a read that does not hit looks whether another call of the process is at it, before it is
        thought about. `plain`: how each read of this lane is planned, but for its key."""
        self.plain, self.shows_stale = plain, plain.shows_stale
        if self.prefix:  # in a pool the name is not known here
            self.flights, self.under_way = flights, flights.under_way

    async def joined(self, key: Key, flights: Flights, began: float) -> Found | None:
        """What another call of this process finds, as the steps would take it; None: ask them."""
        plain = self.plain
        assert plain is not None
        landing = await flights.join(self.name(key), plain.pace.wait_ms_max / JOIN_SHARE / 1000)
        try:
            found = taken(plain, landing)
        except CacheError:
            self._missed("error", began)
            raise
        if found is not None:
            self._missed(found.source, began)
        return found

    def stale(self, raw: bytes, began: float) -> Any:
        """What `get` answered, where the steps would show it as stale because another loads it; or `DOUBT`."""
        try:
            item = decode(raw)
            if item.content.kind is not Kind.VALUE or not shown_while_held(item, now_ms()):
                return DOUBT
            value = self.packer.unpack(raw, HEADER_BYTES)
        except DecodeError:
            return DOUBT
        self._missed("stale", began)
        return value

    def _missed(self, source: str, began: float) -> None:
        self.tally.note("miss")
        self.tally.add(READS, "source", source)
        self.tally.read_seconds.add(time.monotonic() - began)

    def keep(self, key: Key, raw: bytes, value: Any, began: float, stamp: int) -> None:
        """Keep the value of a plain hit near. `stamp`: the shelf's, from before the node was asked at `began`."""
        if self.shelf is not None:
            text = self.render(key)
            at = key if key.__class__ in PLAIN_KEYS else text
            version, as_of_us = seen(raw)
            self.shelf.keep(at, text, stamp, Copy(value, began + self.shelf.ttl_s, text, len(raw), version, as_of_us))


def _skew_ms() -> float:
    return (time.time() - time.monotonic()) * 1000


def trusts_of(pool: Pool, entity: Entity) -> Trusts:
    """What is known of each node, as far as it matters to the hit path of the entity."""
    return tuple(node.standing.told(entity.name) for node in pool.nodes) if entity.strong else ()


def way(
    pool: Pool, layout: Layout, namespace: str, entity: Entity, faces: Faces, told: Callable[[], None]
) -> Route | None:
    """Where the hit path of an entity asks. None: each read has to be thought about (I13). `told`: of each item that a
    replica answered with."""
    if layout.now.slots is not None:
        return Route(b"", faces.routed(_routes(pool, layout, namespace, entity, faces, told)), NEVER)
    prefixes = layout.prefixes(namespace, entity.name)
    return None if entity.strong and len(prefixes) > 1 else _through(pool.first, prefixes[0], entity, faces, told)


def _through(node: Node, prefix: bytes, entity: Entity, faces: Faces, told: Callable[[], None]) -> Route | None:
    """By way of this node. None: what it has may not be served as strong, as far as is known."""
    if not entity.strong:
        get: Any = node.eventual_get
        if node.asks_replicas:
            return Route(prefix, get.telling(told), node.breaker)
        return Route(prefix, get, node.breaker, node.wire)
    trust = node.standing.told(entity.name)
    if trust is None:
        return None
    get = faces.trusting(node.direct_get, node.standing, trust)
    return Route(prefix, get, node.breaker, node.wire, node.standing, trust)


def _routes(
    pool: Pool, layout: Layout, namespace: str, entity: Entity, faces: Faces, told: Callable[[], None]
) -> list[Route | None]:
    """The route of each slot. None where the steps have to be asked: its node is a stranger, or (I13) an entity that
    is read as strong is moving there."""
    made: dict[tuple[bytes, ...], Route | None] = {}
    routes = []
    for slot, owner in enumerate(layout.now.slots.owners if layout.now.slots is not None else ()):
        prefixes = layout.prefixes(namespace, entity.name, slot)
        if prefixes not in made:
            moving = entity.strong and len(prefixes) > 1
            made[prefixes] = None if moving else _route(pool, owner, prefixes[0], entity, faces, told)
        routes.append(made[prefixes])
    return routes


def _route(
    pool: Pool, owner: str, prefix: bytes, entity: Entity, faces: Faces, told: Callable[[], None]
) -> Route | None:
    try:
        node = pool.node(owner)
    except CacheUnavailable:
        return None  # the steps say so, or ask the store
    return _through(node, prefix, entity, faces, told)
