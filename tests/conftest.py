"""Fixtures for all tests: real servers, each started when the first test asks for it, and Hypothesis's profiles.

`redis_server`, `memcached_server` and `postgres_server` live for the session and are shared; a test that
breaks its server should start one of its own: `with RedisServer(maxmemory="4mb") as server:`. The `*_url`
fixtures give an empty place to work in, whatever the test before did to the server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.process import Server
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisClusterServers

SERVERS = {"redis_server", "memcached_server", "postgres_server", "kafka_server", "debezium"}

# No deadline: the machine's load is not a property of the code. In CI the examples are the same in every run.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark `server` whatever asks for a server's fixture, also through another fixture.

    Files that others published are not ours to bring along: their tests are there where `LOADGEN_TRACES` names them.
    """
    if not os.environ.get("LOADGEN_TRACES"):
        absent = [item for item in items if item.get_closest_marker("published")]
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]
    for item in items:
        if SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[MemcachedServer]:
    with MemcachedServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster_servers() -> Iterator[RedisClusterServers]:
    with RedisClusterServers() as servers:
        yield servers


@pytest.fixture
def redis_cluster(redis_cluster_servers: RedisClusterServers) -> RedisClusterServers:
    """The shared cluster, whole and empty, with every replica in step. A failover leaves its roles as they are then."""
    redis_cluster_servers.mend()
    redis_cluster_servers.flush()
    return redis_cluster_servers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture
def debezium(kafka_server: KafkaServer, postgres_server: PostgresServer) -> Iterator[Callable[..., Debezium]]:
    """`debezium(database, ["public.orders"], prefix="shop")`: captures until the test ends. See `Debezium`."""
    revive(kafka_server)
    with ExitStack() as started:
        yield lambda *args, **named: started.enter_context(Debezium(kafka_server, postgres_server, *args, **named))


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared Redis, up and empty."""
    revive(redis_server)
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def memcached_url(memcached_server: MemcachedServer) -> str:
    """The shared memcached, up and empty."""
    revive(memcached_server)
    memcached_server.flush()
    return memcached_server.url


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database in the shared cluster, dropped afterwards."""
    revive(postgres_server)
    name = postgres_server.create_database(request.node.name)
    yield postgres_server.url_of(name)
    revive(postgres_server)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


def revive(server: Server) -> None:
    """Undo what a test did to a shared server: paused, stopped or killed."""
    if server.running:
        server.resume()
    else:
        server.start()
