"""A transport for threads, in the awaited form that is written for both faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cachelib.backends.redis.talks import Talk
from cachelib.backends.redis.transport import Transport
from cachelib.proof import Seen

T = TypeVar("T")


class Direct:
    """See the module. Its coroutines suspend only for a socket (`overlap.py`)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.get = transport.get
        """Blocks, and is no coroutine: for the hit path."""

    async def converse(self, talk: Talk[T]) -> T:
        """See `Shard.converse`."""
        return await self._transport.conversing(talk)

    def watch(self, ask: Callable[[], Talk[str]], seen: Seen) -> None:
        """See `Transport.watch`."""
        self._transport.watch(ask, seen)

    async def close(self) -> None:
        """See `Shard.close`."""
        self._transport.close()
