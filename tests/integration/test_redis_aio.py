"""What the Redis backend does when servers and connections break, and calls are cancelled. Async."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cachelib.backends.redis import AsyncRedis
from cachelib.envelope import HEADER_BYTES
from cachelib.errors import CacheUnavailable
from cachelib.model import Fill, Get, Hit, Item, Leased, Revoke, Stored, value_of
from tests.integration.test_redis_transport import kill_connections, open_connections
from tests.servers.certificates import self_signed
from tests.servers.ports import free_port
from tests.servers.redis import RedisServer

NOW_MS = 1_700_000_000_000
GET = Get(7, 30_000)


def over(url: str, test: Callable[[AsyncRedis], Awaitable[None]], **settings: int) -> None:
    async def main() -> None:
        backend = AsyncRedis(url, **settings)
        try:
            await test(backend)
        finally:
            await backend.close()

    asyncio.run(main())


async def cached(backend: AsyncRedis, name: bytes, payload: bytes = b"v") -> None:
    await backend.execute(name, GET, NOW_MS)
    assert await backend.execute(name, Fill(7, value_of(payload), 5, 3_600_000), NOW_MS) == Stored()


def test_cancelled_calls_leave_no_reply_behind(redis_url: str) -> None:
    async def test(backend: AsyncRedis) -> None:
        for number in range(20):
            await cached(backend, b"%d" % number, b"payload %d" % number)
        for turns in range(12):  # cancelled after so many turns of the loop: at each await in between
            for call in (backend.get(b"1"), backend.execute(b"2", GET, NOW_MS), backend.get_many([b"3", b"4"])):
                task = asyncio.ensure_future(call)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                for number in (5, 6):
                    raw = await backend.get(b"%d" % number)
                    assert (raw or b"").endswith(b"payload %d" % number)

    over(redis_url, test)


def test_cancelled_calls_give_their_places_back(redis_url: str) -> None:
    async def test(backend: AsyncRedis) -> None:
        for _ in range(20):
            task = asyncio.ensure_future(backend.get(b"k"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await backend.get(b"k") is None

    over(redis_url, test, in_flight_max=2, wait_ms=5000)


def test_idle_connections_that_the_server_closed_are_replaced(redis_url: str) -> None:
    async def test(backend: AsyncRedis) -> None:
        await cached(backend, b"k")
        kill_connections(redis_url)
        assert await backend.get(b"k") is not None
        kill_connections(redis_url)
        for _ in range(10):  # the loop hears of it
            await asyncio.sleep(0)
        assert isinstance(await backend.execute(b"k", GET, NOW_MS), Hit)

    over(redis_url, test)


def test_dead_and_silent_servers_are_unavailable() -> None:
    with RedisServer() as server:

        async def test(backend: AsyncRedis) -> None:
            await cached(backend, b"k")
            server.pause()
            with pytest.raises(CacheUnavailable):
                await backend.get(b"k")
            with pytest.raises(CacheUnavailable):
                await backend.execute(b"k", Revoke(1000), NOW_MS)
            server.resume()
            server.kill()
            with pytest.raises(CacheUnavailable):
                await backend.get(b"k")
            with pytest.raises(CacheUnavailable):
                await backend.apply([], {b"n": b"1"}, NOW_MS)

        over(server.url, test, timeout_ms=100)


def test_all_tasks_share_one_connection(redis_url: str) -> None:
    async def test(backend: AsyncRedis) -> None:
        await cached(backend, b"k")
        assert None not in await asyncio.gather(*(backend.get(b"k") for _ in range(50)))
        assert open_connections(redis_url) == 1

    over(redis_url, test, in_flight_max=2)


def test_what_is_under_way_is_bounded_and_so_is_the_wait_for_a_place() -> None:
    with RedisServer() as server:

        async def test(backend: AsyncRedis) -> None:
            await cached(backend, b"k")
            server.pause()
            taken = [asyncio.ensure_future(backend.get(b"k")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(CacheUnavailable, match="in_flight_max"):
                await backend.get(b"k")
            server.resume()
            assert None not in await asyncio.gather(*taken)
            assert await backend.get(b"k") is not None

        over(server.url, test, in_flight_max=2, wait_ms=200, timeout_ms=30_000)


def test_one_backend_serves_one_loop_after_another(redis_url: str) -> None:
    backend = AsyncRedis(redis_url)

    async def use() -> object:
        try:
            return await backend.execute(b"k", Get(7, 1), NOW_MS)
        finally:
            await backend.close()

    assert asyncio.run(use()) == Leased(7, Item())
    assert not isinstance(asyncio.run(use()), Exception)
    assert open_connections(redis_url) == 0


def test_tls_and_login_are_as_redis_py_makes_them(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    secured = {"tls_cert_file": certificate, "tls_key_file": key, "tls_auth_clients": "no"}
    port = free_port()
    with RedisServer(requirepass="secret", tls_port=port, **{name: str(value) for name, value in secured.items()}):

        async def test(backend: AsyncRedis) -> None:
            await cached(backend, b"k", b"v" * 300_000)
            found = await asyncio.gather(*(backend.get(b"k") for _ in range(20)))
            assert [len(raw or b"") for raw in found] == [300_000 + HEADER_BYTES] * 20

        over(f"rediss://:secret@localhost:{port}/3?ssl_ca_certs={certificate}", test, timeout_ms=10_000)
        for wrong in (f"rediss://:other@localhost:{port}/3?ssl_ca_certs={certificate}", f"rediss://localhost:{port}"):
            with pytest.raises(CacheUnavailable):
                over(wrong, test)


def test_a_cancelled_waiter_does_not_take_the_next_ones_turn() -> None:
    with RedisServer() as server:

        async def test(backend: AsyncRedis) -> None:
            await cached(backend, b"k")
            server.pause()
            under_way, cancelled, patient = [asyncio.ensure_future(backend.get(b"k")) for _ in range(3)]
            await asyncio.sleep(0.05)  # one is under way, two wait for its place
            cancelled.cancel()
            await asyncio.sleep(0)
            server.resume()
            assert await under_way == await patient is not None

        over(server.url, test, in_flight_max=1, wait_ms=20_000, timeout_ms=60_000)
