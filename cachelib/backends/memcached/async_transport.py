"""Connections for one event loop, used by one caller at a time, the last used first."""

from __future__ import annotations

import asyncio
import contextlib
import os

from cachelib.backends.memcached.connect import all_busy, late, where
from cachelib.backends.memcached.links import ConnectionLost
from cachelib.backends.memcached.settings import Address, Settings
from cachelib.backends.memcached.wire import Reply, ReplyReader, unexpected
from cachelib.errors import CacheUnavailable, ProtocolError


class AsyncLink(asyncio.Protocol):
    """One connection."""

    def __init__(self, address: Address, timeout_s: float, slots: asyncio.Semaphore) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self.slots = slots
        """What bounds the connections of the opening of the pool that it belongs to."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: ReplyReader | None = None
        self._done: asyncio.Future[list[Reply]] | None = None
        self._error: CacheUnavailable | None = None

    async def roundtrip(self, request: bytes, replies: int) -> list[Reply]:
        """See `Link.roundtrip`."""
        if self._error is not None or self._transport is None:
            raise self._error or ConnectionLost(f"not connected to memcached at {where(self._address)}")
        self._reader = ReplyReader(replies)
        self._done = self._loop.create_future()
        timer = self._loop.call_later(self._timeout_s, self._late)
        self._transport.write(request)
        try:
            return await self._done
        finally:
            timer.cancel()
            self._reader = self._done = None

    @property
    def alive(self) -> bool:
        """As far as the loop has noticed."""
        return self._error is None

    def close(self) -> None:
        """Close it at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _late(self) -> None:
        self._fail(late(self._address, self._timeout_s))

    def _fail(self, error: CacheUnavailable) -> None:
        self._error = self._error or error
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    # --- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        reader, done = self._reader, self._done
        if reader is None or done is None:
            self._fail(unexpected(data, "though nothing was asked"))
            return self.close()
        try:
            complete = reader.feed(data)
        except ProtocolError as error:
            return self._fail(error)
        if complete and not done.done():
            done.set_result(reader.replies)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        what = "broke: " + str(exc) if exc else "was closed"
        self._fail(ConnectionLost(f"the connection to memcached at {where(self._address)} {what}"))


class AsyncLinks:
    """Links to one server, for one event loop at a time."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start(None)

    def _start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self._idle: list[AsyncLink] = []
        # Of the links in use. One is opened only where none is idle, so it bounds all.
        self._slots = asyncio.Semaphore(self._settings.connections_max)

    async def take(self, *, fresh: bool = False) -> AsyncLink:
        """See `Links.take`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._leave_loop()
            self._start(loop)
        slots = self._slots
        await self._acquire(slots)
        try:
            while self._idle:
                link = self._idle.pop()
                if link.alive and not fresh:
                    return link
                link.close()  # where one was dead, so may be the others
            return await self._connect(loop, slots)
        except BaseException:  # a cancelled call, too, frees its slot
            slots.release()
            raise

    def give_back(self, link: AsyncLink) -> None:
        """See `Links.give_back`."""
        if link.slots is self._slots:
            self._idle.append(link)
        else:
            link.close()
        link.slots.release()

    def drop(self, link: AsyncLink) -> None:
        """See `Links.drop`."""
        link.close()
        link.slots.release()

    async def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        idle = self._idle
        self._start(self._loop)
        for link in idle:
            link.close()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    async def _acquire(self, slots: asyncio.Semaphore) -> None:
        if not slots.locked():
            await slots.acquire()
            return
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await slots.acquire()
        except TimeoutError as waited:
            raise all_busy(self._address, self._settings) from waited

    async def _connect(self, loop: asyncio.AbstractEventLoop, slots: asyncio.Semaphore) -> AsyncLink:
        settings, address = self._settings, self._address

        def link() -> AsyncLink:
            return AsyncLink(address, settings.timeout_s, slots)

        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                if isinstance(address, str):
                    return (await loop.create_unix_connection(link, address, ssl=settings.tls))[1]
                host, port = address
                return (await loop.create_connection(link, host, port, ssl=settings.tls))[1]
        except OSError as error:  # TimeoutError is one
            raise CacheUnavailable(f"memcached at {where(address)} cannot be reached: {error!r}") from error

    def _leave_loop(self) -> None:
        """The connections of another loop. After a fork they are the parent's: to close them here would
        take them out of the selector that we share with it."""
        if self._pid == os.getpid():
            for link in self._idle:
                with contextlib.suppress(RuntimeError):  # that loop is closed
                    link.close()
