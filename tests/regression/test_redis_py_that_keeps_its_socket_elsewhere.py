"""The fast transports take over the socket that redis-py has opened, from attributes that redis-py promises nobody: a
version without them would have failed at every call. Now that is said once, and the public methods do.

Nothing could have caught it but a redis-py of the future.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cachelib import CacheUnavailable
from cachelib.backends.redis import AsyncRedis, Redis, public_way
from cachelib.model import RaiseFloor
from cachelib.testing.conformance import CHECKS, Subject, on_a_loop, run_refinement
from tests.conformance.test_fakeredis import subject_over
from tests.servers.redis import RedisServer


@pytest.fixture(autouse=True)
def another_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_way, "SOCKET", "_no_longer_there")
    monkeypatch.setattr(public_way, "WRITER", "_no_longer_there")
    monkeypatch.setattr(public_way, "_told", {"_no_longer_there"})


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as made:
        yield made


def backend_of(face: str, url: str, **settings: Any) -> Any:
    return Redis(url, **settings) if face == "sync" else on_a_loop(AsyncRedis(url, **settings))


both_faces = pytest.mark.parametrize("face", ["sync", "async"])


@both_faces
def test_it_passes_what_every_backend_has_to(face: str, server: RedisServer) -> None:
    behind = redis.Redis.from_url(server.url)
    subject: Subject = subject_over(backend_of(face, server.url), behind)
    for check in CHECKS:
        check(subject)
    run_refinement(subject, examples=10)
    subject.backend.close()
    behind.close()


@both_faces
def test_it_is_said_once_with_the_version(face: str, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_way, "_told", set())
    first, second = backend_of(face, server.url), backend_of(face, server.url)
    with pytest.warns(RuntimeWarning, match=rf"redis-py {redis.__version__} has no _no_longer_there"):
        assert first.get(b"lc/e.t/none") is None
    assert second.get(b"lc/e.t/none") is None  # a warning would be an error here
    for backend in (first, second):
        backend.close()


@both_faces
def test_it_fails_and_comes_back_as_the_server_does(face: str, server: RedisServer) -> None:
    backend = backend_of(face, server.url, timeout_ms=200)
    name = b"lc/e.t/name"
    backend.execute(name, RaiseFloor(5, "update", 1000, tombstone_ttl_ms=60_000), 1_000)
    assert backend.get(name) is not None
    server.pause()
    with pytest.raises(CacheUnavailable, match="in time"):
        backend.get(name)
    server.resume()
    assert backend.get(name) is not None  # not the reply to what was asked before
    server.kill()
    with pytest.raises(CacheUnavailable):
        backend.get(name)
    server.start()
    assert backend.get(name) is None
    backend.close()
