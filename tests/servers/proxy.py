"""A TCP proxy that does to a connection what networks do: pieces, delays, silence, cuts, resets.

It follows a plan: one fault for each chunk that passes, requests and replies alike, until the plan
is used up; then everything passes. A fault never changes a byte: TCP does not either.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, TypeAlias, TypeVar

from tests.servers.ports import HOST

T = TypeVar("T")
Fault: TypeAlias = tuple[Literal["pass", "pieces", "delay", "stall", "cut", "reset"], int]
"""What is done to one chunk, and how much: bytes a piece, milliseconds, bytes that still pass."""


class FaultyProxy:
    """Between clients and the server on `port`."""

    def __init__(self, port: int, plan: Sequence[Fault] = ()) -> None:
        self._upstream = port
        self._plan: Iterator[Fault] = iter(plan)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def clear(self) -> None:
        """From now on everything passes."""
        self._plan = iter(())

    def always(self, fault: Fault) -> None:
        """From now on this is done to every chunk, until `clear`."""
        self._plan = repeat(fault)

    def close(self) -> None:
        """End everything."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(30)

    async def _end(self) -> None:
        """All connections' tasks run to their ends, those too that begin only now: each closes what it has."""
        self._server.close()
        while asyncio.all_tasks() - {asyncio.current_task()}:
            while self._tasks:
                self._tasks.pop().cancel()
            await asyncio.sleep(0.001)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            upstream, downstream = await asyncio.open_connection(HOST, self._upstream)
            writers.append(downstream)
            await self._until_one_ends((reader, downstream), (upstream, writer))
            await _close(writers)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in writers:  # a cancellation comes at any moment; what is closed already is let be
                one.transport.abort()
            self._tasks.discard(task)

    async def _until_one_ends(self, *pairs: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        both = {asyncio.create_task(self._pump(*pair)) for pair in pairs}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until either end or a fault ends it."""
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                kind, much = next(self._plan, ("pass", 0))
                if kind in ("delay", "stall"):
                    await asyncio.sleep(much / 1000)
                for piece in _pieces(chunk, kind, much):
                    writer.write(piece)
                    await writer.drain()
                if kind == "reset":
                    _reset(writer)
                if kind in ("cut", "reset"):
                    return


async def _close(writers: Sequence[asyncio.StreamWriter]) -> None:
    """What was written still goes out."""
    for one in writers:
        one.close()
    await asyncio.gather(*(one.wait_closed() for one in writers), return_exceptions=True)


def _pieces(chunk: bytes, kind: str, much: int) -> Iterator[bytes]:
    if kind in ("cut", "reset"):
        yield chunk[:much]
    elif kind == "pieces":
        size = max(1, much, len(chunk) // 50)
        yield from (chunk[at : at + size] for at in range(0, len(chunk), size))
    else:
        yield chunk


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closed with this set, a socket sends RST, and what was on its way is lost."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
