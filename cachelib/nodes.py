"""A cache node as the core sees it: a backend behind a breaker. Several are a pool (`pool.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from cachelib.backends.base import AsyncBackend, Backend, Batch, Results, Wire
from cachelib.breaker import Breaker
from cachelib.errors import CacheUnavailable
from cachelib.model import Answer, Name, Op
from cachelib.standing import Standing


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


class Guard:
    """`with guard:` around each call of a node: refuses at once while the node does not answer."""

    __slots__ = ("_node", "breaker")

    def __init__(self, node: str, breaker: Breaker) -> None:
        self._node = node
        self.breaker = breaker

    def __enter__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise `CacheUnavailable` where the node is not to be asked now."""
        if self.breaker.failed and not self.breaker.lets_through(now_ms()):
            raise CacheUnavailable(
                f"the {self._node} failed several calls in a row and is left alone for a moment;"
                " reads ask the store meanwhile, within the store budget"
            )

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.breaker.succeeded()
        elif isinstance(error, CacheUnavailable):
            self.breaker.failed_at(now_ms())


class Node:
    """A backend that fails at once while its server does not answer."""

    def __init__(self, backend: AsyncBackend, breaker: Breaker | None = None, name: str = "") -> None:
        self.name = name
        """What the layout calls it; "" for the one that a layout without names means."""
        self.backend = backend
        self.capability = backend.capability
        self.direct_get: Callable[[Name], Any] = getattr(backend, "direct_get", backend.get)
        """The hit path's own way to the backend's `get`, past the guard."""
        through = getattr(backend, "eventual_get", None)
        self.asks_replicas = through is not None
        self.eventual_get: Callable[[Name], Any] = through or self.direct_get
        """`direct_get` of an eventual read: replicas may answer, later than their master."""
        self._blocking: Backend | None = getattr(backend, "blocking", None)
        self.wire: Wire | None = getattr(backend, "wire", None)
        """The hit path's way without any `get`, where there is one."""
        self.breaker = breaker or Breaker()
        self.guard = Guard(f"{self.capability.kind} node{name and f' {name}'}", self.breaker)
        self.standing = Standing(backend, self.guard)

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        with self.guard:
            return await self.backend.get(name)

    async def get_many(self, names: Sequence[Name], *, alone: bool = False) -> list[bytes | None]:
        """See `Backend.get_many`. `alone`: no other node is asked beside it, so a call may block."""
        self.guard.check()
        blocking = self._blocking if alone else None
        try:
            raws = await self.backend.get_many(names) if blocking is None else blocking.get_many(names)
        except CacheUnavailable:
            self.breaker.failed_at(now_ms())
            raise
        self.breaker.failed = 0
        return raws

    async def execute(self, name: Name, op: Op) -> Answer:
        """See `Backend.execute`."""
        breaker = self.breaker
        if breaker.failed:
            self.guard.check()
        try:  # what the guard does, without being called twice for each operation
            answer = await self.backend.execute(name, op, now_ms())
        except CacheUnavailable:
            breaker.failed_at(now_ms())
            raise
        breaker.failed = 0
        return answer

    async def execute_many(self, batch: Batch) -> Results:
        """See `Backend.execute_many`."""
        self.guard.check()
        try:
            results = await self.backend.execute_many(batch, now_ms())
        except CacheUnavailable:
            self.breaker.failed_at(now_ms())
            raise
        if any(isinstance(result, CacheUnavailable) for result in results):  # an error may stand in its place
            self.breaker.failed_at(now_ms())
        else:
            self.breaker.succeeded()
        return results

    async def close(self) -> None:
        """See `Backend.close`."""
        await self.backend.close()
