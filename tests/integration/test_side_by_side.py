"""A batch over several nodes asks all of them before it waits for any, and a node that hangs holds up nobody.

Of the masters of a Redis Cluster: `test_redis_cluster.py`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from cachelib.backends import Memcached, Redis
from cachelib.drivers import run_now
from cachelib.errors import CacheUnavailable
from cachelib.layout import first_layout
from cachelib.model import Get, Leased, Revoke, Revoked
from cachelib.places import Places
from cachelib.pool import Pool
from cachelib.threads import DirectBackend, ThreadWorld
from tests.integration.client_world import until
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.redis import RedisServer

TEXTS = [b"order:%d" % number for number in range(60)]
PATIENT = 60_000
"""A timeout that nobody is to meet, ms."""


def pool_of(backends: dict[str, Any]) -> tuple[Pool, list[bytes]]:
    """A pool of these, and names that fall to all of them."""
    pool = Pool(Places(backends, Redis), DirectBackend, None, ThreadWorld())
    layout = first_layout([*backends])
    pool.learn(layout)
    return pool, [layout.names("lc", "order", text)[0] for text in TEXTS]


def leases(pool: Pool, names: list[bytes]) -> list[Any]:
    return run_now(pool.execute_many([(name, Get(7, 1000)) for name in names]))


class Standing:
    """Servers that can be made to keep silent: what they are sent waits, and can be counted once they go on."""

    def __init__(self, servers: list[Any], run: Callable[[], list[Any]]) -> None:
        self.servers, self.run = servers, run

    def silence(self) -> None:
        for server in self.servers:
            if isinstance(server, MemcachedServer):
                server.pause()
            else:  # what writes waits; a cluster's bus goes on, so nobody is taken for dead
                self._ask(server, "CLIENT PAUSE", 60_000, "WRITE")

    def let_go(self, server: Any) -> None:
        if isinstance(server, MemcachedServer):
            server.resume()
        else:
            self._ask(server, "CLIENT UNPAUSE")

    def asked(self, server: Any) -> int:
        """What it has done for us so far."""
        if isinstance(server, MemcachedServer):
            with socket.create_connection((HOST, server.port), timeout=30) as plain:
                plain.sendall(b"stats\r\n")
                lines = plain.makefile("rb")
                said = dict(line.split()[1:3] for line in iter(lines.readline, b"END\r\n"))
            return int(said[b"cmd_get"])
        with redis.Redis(port=server.port) as client:
            return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    def _ask(self, server: Any, *command: Any) -> Any:
        with redis.Redis(port=server.port) as client:
            return client.execute_command(*command)


@pytest.fixture(params=[(RedisServer, Redis), (MemcachedServer, Memcached)], ids=["redis", "memcached"])
def standing(request: pytest.FixtureRequest) -> Iterator[Standing]:
    kind, made = request.param
    with ExitStack() as stack:
        servers = [stack.enter_context(kind()) for _ in range(3)]
        pool, own = pool_of({f"n{at}": made(one.url, timeout_ms=PATIENT) for at, one in enumerate(servers)})
        stack.callback(lambda: run_now(pool.close()))
        yield Standing(servers, lambda: leases(pool, own))


def test_every_node_is_asked_before_any_is_waited_for(standing: Standing) -> None:
    """Whichever is the only one that answers, it has been asked: one after the other, the last would not have been."""
    standing.run()  # the connections are open
    for only in standing.servers:
        while_only_one_answers(standing, only)


def while_only_one_answers(standing: Standing, only: Any) -> None:
    before = standing.asked(only)
    standing.silence()
    results: list[Any] = []
    batch = threading.Thread(target=lambda: results.extend(standing.run()), daemon=True)
    batch.start()
    try:
        standing.let_go(only)
        until(lambda: standing.asked(only) > before, "the one that answers was asked")
        assert not results
    finally:
        for server in standing.servers:
            standing.let_go(server)
        batch.join(60)
    assert len(results) == 60
    assert not any(isinstance(result, Exception) for result in results)


def test_nodes_that_hang_cost_one_timeout_and_their_own_places() -> None:
    """Four of five stand still, under connections that are open."""
    with ExitStack() as stack:
        servers = {f"n{at}": stack.enter_context(MemcachedServer()) for at in range(5)}
        pool, names = pool_of({name: Memcached(one.url, timeout_ms=1000) for name, one in servers.items()})
        stack.callback(lambda: run_now(pool.close()))
        assert {type(one) for one in leases(pool, names)} == {Leased}
        for at in range(4):
            servers[f"n{at}"].pause()
        began = time.monotonic()
        results = run_now(pool.execute_many([(name, Revoke(1000)) for name in names]))
        assert time.monotonic() - began < 3.5  # one after the other: 4 s at least
        for name, result in zip(names, results, strict=True):
            assert isinstance(result, Revoked if pool.of(name).name == "n4" else CacheUnavailable)
        assert {pool.of(name).name for name in names} == {*servers}


def test_two_threads_do_not_wait_for_each_others_last_connections() -> None:
    """One connection a node, and many batches at once: nobody holds one while he waits for another."""
    with ExitStack() as stack:
        servers = [stack.enter_context(MemcachedServer()) for _ in range(3)]
        backends = {
            f"n{at}": Memcached(one.url, connections_max=1, timeout_ms=PATIENT) for at, one in enumerate(servers)
        }
        pool, names = pool_of(backends)
        stack.callback(lambda: run_now(pool.close()))
        leases(pool, names)
        wrong: list[Any] = []

        def batches(share: list[bytes]) -> None:
            for _ in range(50):
                wrong.extend(one for one in leases(pool, share) if isinstance(one, Exception))

        threads = [threading.Thread(target=batches, args=(names[at::4],), daemon=True) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []
