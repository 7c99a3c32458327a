"""A thousand connections' worth of abuse by threads, forks and cancellations leaves nothing open.

Descriptors of this process and connections of the server are counted before and after; a
`ResourceWarning` is an error here, and everything is collected before the count.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from cachelib.backends import AsyncMemcached, AsyncRedis, Memcached, Redis
from cachelib.backends.base import AsyncBackend, Backend
from cachelib.errors import CacheUnavailable
from cachelib.model import Get
from tests.servers.memcached import MemcachedServer
from tests.servers.process import ask
from tests.servers.redis import RedisServer

OPEN = Path("/proc/self/fd")
NOW_MS = 1_700_000_000_000
ROUNDS, AT_ONCE = 25, 40
"""Together a thousand connections."""
FORKS = 10
SETTLE_S = 30.0
PATIENT = {"timeout_ms": 20_000, "connect_timeout_ms": 20_000}
"""The machine may be busy: what is slow here is not what is tested."""

Server = RedisServer | MemcachedServer


@pytest.fixture(params=[RedisServer, MemcachedServer], ids=["redis", "memcached"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param() as server:
        yield server


def sync_backend(server: Server, **settings: int) -> Backend:
    if isinstance(server, RedisServer):
        return Redis(server.url, wait_ms=20_000, **PATIENT, **settings)
    return Memcached(server.url, **PATIENT, **settings)


def async_backend(server: Server, **settings: int) -> AsyncBackend:
    if isinstance(server, RedisServer):
        return AsyncRedis(server.url, wait_ms=20_000, **PATIENT, **settings)
    return AsyncMemcached(server.url, **PATIENT, **settings)


def descriptors() -> int:
    gc.collect()
    return len(list(OPEN.iterdir()))


def told(server: Server, number: bytes) -> int:
    """A number that the server tells of its connections; the one that asks counts, too."""
    answer = ask(server.port, b"INFO\r\n" if isinstance(server, RedisServer) else b"stats\r\n", timeout_s=10)
    line = next(line for line in answer.splitlines() if line.split(b":")[0].removeprefix(b"STAT ").startswith(number))
    return int(line.replace(b":", b" ").split()[-1])


def connections(server: Server) -> int:
    return told(server, b"connected_clients" if isinstance(server, RedisServer) else b"curr_connections")


def received(server: Server) -> int:
    redis = isinstance(server, RedisServer)
    return told(server, b"total_connections_received" if redis else b"total_connections")


def settles(holds: Callable[[], bool]) -> bool:
    """It comes true: the server takes a moment to notice that a connection is gone."""
    until = time.monotonic() + SETTLE_S
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_threads_that_come_and_go(server: Server) -> None:
    sync_backend(server).close()
    open_before, connected_before, received_before = descriptors(), connections(server), received(server)
    for _ in range(ROUNDS):
        backend, server_stands = sync_backend(server, connections_max=AT_ONCE), descriptors() + AT_ONCE
        server.pause()  # so that all need a connection at once

        def work(number: int, backend: Backend = backend) -> None:
            backend.get(b"k%d" % number)
            backend.execute(b"k%d" % number, Get(7, 1000), NOW_MS)
            if number % 8 == 0:
                backend.close()  # under the others' feet
            backend.get_many([b"k", b"l"])

        threads = [Thread(target=work, args=(number,)) for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        assert settles(lambda most=server_stands: len(list(OPEN.iterdir())) >= most)  # type: ignore[misc]
        server.resume()
        for thread in threads:
            thread.join()
        backend.close()
    assert received(server) - received_before >= ROUNDS * AT_ONCE
    assert settles(lambda: connections(server) <= connected_before)
    assert descriptors() == open_before


def test_forks_in_the_middle_of_use(server: Server) -> None:
    backend, stop = sync_backend(server, connections_max=8), []
    backend.get(b"k")
    connected_before = connections(server) - 1

    def busy() -> None:
        while not stop:
            backend.get(b"k")
            backend.execute(b"k", Get(7, 1000), NOW_MS)

    open_before = descriptors()
    threads = [Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    ended = []
    for _ in range(FORKS):
        child = os.fork()
        if child == 0:  # no pytest in here
            code = 1
            with suppress(BaseException):
                for turn in range(10):
                    backend.get(b"k%d" % turn)
                    backend.execute(b"c%d" % turn, Get(7, 1000), NOW_MS)
                backend.close()
                gc.collect()
                code = 0
            os._exit(code)
        ended.append(os.waitpid(child, 0)[1])
    stop.append(True)
    for thread in threads:
        thread.join()
    assert ended == [0] * FORKS
    assert isinstance(backend.get_many([b"k"]), list)
    assert descriptors() <= open_before + 4  # the threads' own, and still open
    backend.close()
    assert settles(lambda: connections(server) <= connected_before)
    assert descriptors() <= open_before - 1


def test_tasks_cancelled_at_any_moment_on_loops_that_come_and_go(server: Server) -> None:
    open_before, connected_before = descriptors(), connections(server)
    rng = random.Random(7)

    async def call(backend: AsyncBackend, number: int) -> None:
        with suppress(CacheUnavailable):
            match number % 3:
                case 0:
                    await backend.get(b"k%d" % number)
                case 1:
                    await backend.execute(b"k%d" % number, Get(7, 1000), NOW_MS)
                case _:
                    await backend.get_many([b"k", b"l"])

    async def main() -> None:
        backend = async_backend(server, in_flight_max=rng.choice((1, 4, 1000)))
        for _ in range(3):
            tasks = [asyncio.create_task(call(backend, number)) for number in range(AT_ONCE)]
            for task in tasks:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if rng.random() < 0.5:
                closing = asyncio.create_task(backend.close())
                await call(backend, 0)  # while it closes
                await closing
        assert await backend.get(b"never") is None
        await backend.close()

    for _ in range(ROUNDS):
        asyncio.run(main())
    assert settles(lambda: connections(server) <= connected_before)
    assert descriptors() == open_before


def test_a_child_does_not_hold_the_parents_connection_of_a_loop_open(server: Server) -> None:
    connected_before = connections(server)
    go_on, gone = os.pipe()

    async def main() -> int:
        backend = async_backend(server)
        assert await backend.get(b"k") is None
        child = os.fork()
        if child == 0:  # no pytest in here
            os.close(gone)
            os.read(go_on, 1)  # until the parent has looked
            os._exit(0)
        await asyncio.gather(*(backend.get(b"k") for _ in range(20)))  # it still works here
        await backend.close()
        return child

    child = asyncio.run(main())
    try:
        assert settles(lambda: connections(server) <= connected_before)
    finally:
        os.close(gone)
        os.close(go_on)
        os.waitpid(child, 0)
