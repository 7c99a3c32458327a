"""The faulty proxy, ended while a connection through it was just ending, left its writer to the server open.

A cancellation, in the moment in which the two directions were awaited, went past the close. Whichever test
ran then was failed by a ResourceWarning that was not its own.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator

import pytest

from tests.servers.ports import HOST
from tests.servers.proxy import FaultyProxy

TURNS = range(12)
"""Of the proxy's loop, between the client's end and the proxy's: more than a connection takes to end."""


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(30)
        yield listening


async def end_after(proxy: FaultyProxy, turns: int) -> None:
    """In the proxy's loop: a client comes, goes, and so many turns later the proxy is ended."""
    _, writer = await asyncio.open_connection(HOST, proxy.port)
    while len(asyncio.all_tasks()) < 4:
        await asyncio.sleep(0.001)  # the connection's task, and one for each direction
    writer.close()
    await writer.wait_closed()
    for _ in range(turns):
        await asyncio.sleep(0)
    await proxy._end()


@pytest.mark.parametrize("turns", TURNS)
def test_whenever_it_is_ended_the_proxy_leaves_nothing_open(upstream: socket.socket, turns: int) -> None:
    proxy = FaultyProxy(upstream.getsockname()[1])
    try:
        proxy._run(end_after(proxy, turns))
        gc.collect()  # a writer that was left open says so while the loop runs, and fails this test
    finally:
        proxy.close()
