"""What differs between threads and asyncio in a lane: how a key's node is found, and one start of a server trusted."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from cachelib.errors import CacheUnavailable
from cachelib.lane import Faces, Get, Route
from cachelib.nodes import now_ms
from cachelib.slots import SLOTS
from cachelib.standing import Standing, Trust

_MASK = SLOTS - 1


def routed(routes: Sequence[Route | None]) -> Get:
    """A `get` by the key's slot, for threads. None among the routes: that slot is moving, ask the steps."""

    def get(text: bytes) -> bytes | None:
        route = routes[crc32(text) & _MASK]
        if route is None or route.breaker.failed:
            return None
        try:
            raw: bytes | None = route.get(route.prefix + text)
        except CacheUnavailable:
            route.breaker.failed_at(now_ms())
            return None
        return raw

    return get


def routed_async(routes: Sequence[Route | None]) -> Get:
    """`routed`, awaited."""

    async def get(text: bytes) -> bytes | None:
        route = routes[crc32(text) & _MASK]
        if route is None or route.breaker.failed:
            return None
        try:
            raw: bytes | None = await route.get(route.prefix + text)
        except CacheUnavailable:
            route.breaker.failed_at(now_ms())
            return None
        return raw

    return get


def trusting(ask: Get, standing: Standing, trust: Trust) -> Get:
    """A `get` for strong reads, for threads: what another start of the server answered counts for nothing."""

    def get(name: bytes) -> bytes | None:
        raw: bytes | None = ask(name)
        return raw if standing.trust is trust else None  # a new connection tells before it is used

    return get


def trusting_async(ask: Get, standing: Standing, trust: Trust) -> Get:
    """`trusting`, awaited."""

    async def get(name: bytes) -> bytes | None:
        raw: bytes | None = await ask(name)
        return raw if standing.trust is trust else None

    return get


THREADS = Faces(routed, trusting)
LOOP = Faces(routed_async, trusting_async)
