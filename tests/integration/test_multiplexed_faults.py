"""One connection for many tasks, through a network that breaks: no task ever gets another's reply.

Each name holds a value that says which name it is, of a size of its own. Tasks read them in every
way that there is, some are cancelled at any moment, while the proxy follows a plan of faults.
Whatever is answered must be the asked name's; the rest must be `CacheUnavailable`, in bounded time;
and when the faults end, everything is answered again without help.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pymemcache
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachelib.backends.base import AsyncBackend
from cachelib.backends.memcached import AsyncMemcached
from cachelib.backends.redis import AsyncRedis
from cachelib.envelope import encode
from cachelib.errors import CacheUnavailable
from cachelib.model import Get, Hit, Item, value_of
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.proxy import Fault, FaultyProxy
from tests.servers.redis import RedisServer

NOW_MS = 1_700_000_000_000
SIZES = (0, 1, 40, 300, 5_000, 70_000)
NAMES = [b"n/%d" % number for number in range(12)]
TIMEOUT_MS = 150
BOUND_S = 60
"""Far above what any call may take: only a hang gets there."""


def payload(name: bytes) -> bytes:
    return name + b"\r\n$" * SIZES[NAMES.index(name) % len(SIZES)]


def raw(name: bytes) -> bytes:
    return encode(Item(value_of(payload(name)), known=True, version=7, expires_ms=NOW_MS + 10**9))


@pytest.fixture(params=["redis", "memcached"])
def server(request: pytest.FixtureRequest) -> RedisServer | MemcachedServer:
    request.getfixturevalue(f"{request.param}_url")  # up and empty
    made: RedisServer | MemcachedServer = request.getfixturevalue(f"{request.param}_server")
    if isinstance(made, RedisServer):
        with redis.Redis(port=made.port) as client:
            client.mset({name: raw(name) for name in NAMES})
    else:
        plain = pymemcache.Client((HOST, made.port))
        plain.set_many({name.decode(): raw(name) for name in NAMES})
        plain.close()
    return made


def backend_at(server: RedisServer | MemcachedServer, port: int) -> AsyncBackend:
    settings = {"timeout_ms": TIMEOUT_MS, "connect_timeout_ms": 500, "in_flight_max": 8}
    if isinstance(server, RedisServer):
        return AsyncRedis(f"redis://{HOST}:{port}", wait_ms=2000, **settings)
    return AsyncMemcached(f"{HOST}:{port}", **settings)


faults = st.one_of(
    st.just(("pass", 0)),
    st.tuples(st.just("pieces"), st.integers(1, 40)),
    st.tuples(st.just("delay"), st.integers(1, 20)),
    st.tuples(st.just("stall"), st.just(3 * TIMEOUT_MS)),
    st.tuples(st.just("cut"), st.integers(0, 200)),
    st.tuples(st.just("reset"), st.integers(0, 200)),
)
callers = st.tuples(
    st.sampled_from(("get", "many", "execute", "batch")),
    st.integers(0, len(NAMES) - 1),
    st.one_of(st.none(), st.integers(0, 12)),  # cancelled after so many turns of the loop
)


async def ask(backend: AsyncBackend, how: str, at: int) -> None:
    """One call; what it answers is about the names that it asked for."""
    name, other = NAMES[at], NAMES[at - 1]
    match how:
        case "get":
            assert await backend.get(name) == raw(name)
        case "many":
            assert await backend.get_many([name, b"none", other]) == [raw(name), None, raw(other)]
        case "execute":
            answer = await backend.execute(name, Get(1, 1000), NOW_MS)
            assert isinstance(answer, Hit)
            assert answer.item.content.payload == payload(name)
        case "batch":
            answers = await backend.execute_many([(name, Get(1, 1000)), (other, Get(2, 1000))], NOW_MS)
            for asked, one in zip((name, other), answers, strict=True):
                assert isinstance(one, CacheUnavailable) or one.item.content.payload == payload(asked)  # type: ignore[union-attr]


async def call(backend: AsyncBackend, how: str, at: int, turns: int | None) -> Any:
    """A task's call, cancelled or not; its wrong answers raise."""
    task = asyncio.create_task(ask(backend, how, at))
    if turns is not None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    try:
        await task
    except (CacheUnavailable, asyncio.CancelledError):
        pass


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    plan=st.lists(faults, max_size=25),
    rounds=st.lists(st.lists(callers, min_size=1, max_size=20), min_size=1, max_size=4),
)
def test_no_task_gets_anothers_reply(
    server: RedisServer | MemcachedServer, plan: list[Fault], rounds: list[list[tuple[str, int, int | None]]]
) -> None:
    async def scenario() -> None:
        backend = backend_at(server, proxy.port)
        async with asyncio.timeout(BOUND_S):
            for tasks in rounds:
                await asyncio.gather(*(call(backend, *task) for task in tasks))
            proxy.clear()
            for attempt in range(3):  # what was under way when the faults ended may still fail
                try:
                    for at in range(len(NAMES)):
                        await ask(backend, "get", at)
                    break
                except CacheUnavailable:
                    assert attempt < 2
            await backend.close()

    proxy = FaultyProxy(server.port, plan)
    try:
        asyncio.run(scenario())
    finally:
        proxy.close()


def test_a_silent_server_fails_all_who_wait_at_once_and_the_next_call_connects_anew(
    server: RedisServer | MemcachedServer,
) -> None:
    async def scenario() -> None:
        backend = backend_at(server, proxy.port)
        await ask(backend, "get", 0)
        proxy._plan = iter([("stall", 60_000)])
        ended = await asyncio.gather(*(ask(backend, "get", at) for at in range(6)), return_exceptions=True)
        assert {type(end) for end in ended} == {CacheUnavailable}
        assert len({id(end) for end in ended}) == 6  # each has an error of its own
        proxy.clear()
        await ask(backend, "get", 1)
        await backend.close()

    proxy = FaultyProxy(server.port)
    try:
        asyncio.run(scenario())
    finally:
        proxy.close()


def test_two_loops_at_once_have_a_connection_each(server: RedisServer | MemcachedServer) -> None:
    backend = backend_at(server, server.port)

    async def scenario(number: int) -> None:
        for turn in range(50):
            await asyncio.gather(*(ask(backend, how, (number + turn) % 12) for how in ("get", "many", "execute")))
        await backend.close()

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, scenario(number)) for number in range(3)))

    asyncio.run(main())
