"""One connection for each event loop, shared by all of its tasks. See `multiplexed.py`."""

from __future__ import annotations

import asyncio

from cachelib.backends.base import ConnectionLost
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.connect import where
from cachelib.backends.memcached.links import Counts, instance_behind
from cachelib.backends.memcached.replies import Reply, ReplyStream
from cachelib.backends.memcached.settings import Address, Settings
from cachelib.backends.multiplexed import Multiplexed
from cachelib.backends.per_loop import PerLoop
from cachelib.errors import CacheUnavailable
from cachelib.model import Name
from cachelib.proof import Seen

Line = Multiplexed[Reply]


class Meta:
    """The meta commands. See `Dialect`."""

    def __init__(self) -> None:
        stream = ReplyStream()
        self.feed = stream.feed
        """See `Dialect.feed`."""
        self.has_rest = stream.has_rest
        """See `Dialect.has_rest`."""

    request = staticmethod(wire.value_request)
    value = staticmethod(wire.value)


class AsyncLinks:
    """The connection to one server, as the `Links` that `node.py` works over."""

    def __init__(self, address: Address, settings: Settings, counts: Counts) -> None:
        self._address = address
        self._settings = settings
        self._counts = counts
        self.place = f"memcached at {where(address)}"
        self.lines: PerLoop[Reply] = PerLoop(self._dial, self.place, wait_ms=settings.timeout_ms)

    async def get(self, name: Name) -> bytes | None:
        """The hit path; asked once more where the connection broke."""
        wire.check_name(name)
        line = self.lines.now() or await self.lines.ready()
        try:
            return await line.ask_value(name)
        except ConnectionLost:
            self._counts.add("reconnected")
            return await (await self.lines.ready()).ask_value(name)

    async def take(self, *, fresh: bool = False) -> Line:
        """See `Links.take`. One that broke is not handed out again, so what is there is always fresh enough."""
        return self.lines.now() or await self.lines.ready()

    def give_back(self, link: Line) -> None:
        """See `Links.give_back`. It is everybody's."""

    def drop(self, link: Line, error: BaseException) -> None:
        """See `Links.drop`. Who is cancelled leaves a place in the row behind, and nothing else."""
        if isinstance(error, CacheUnavailable):
            link.end(error)  # I12: a reply that cannot be is not the only one

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self.lines.watch(instance_behind, seen)

    async def close(self) -> None:
        """Close the running loop's connection; the next call opens a new one."""
        await self.lines.close()

    async def _dial(self) -> Line:
        settings, address = self._settings, self._address
        loop = asyncio.get_running_loop()

        def line() -> Line:
            return Line(Meta(), self.place, timeout_s=settings.timeout_s, in_flight_max=settings.in_flight_max)

        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                if isinstance(address, str):
                    return (await loop.create_unix_connection(line, address, ssl=settings.tls))[1]
                host, port = address
                return (await loop.create_connection(line, host, port, ssl=settings.tls))[1]
        except OSError as error:  # TimeoutError is one
            raise CacheUnavailable(f"{self.place} cannot be reached: {error!r}") from error
