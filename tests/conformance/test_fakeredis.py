"""The Redis backend over fakeredis, which runs `item.lua` in a Lua of its own: sync and async."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest

from cachelib.backends.redis import AsyncRedis, Redis
from cachelib.testing.conformance import CHECKS, Subject, on_a_loop, run_refinement


class Fake(fakeredis.FakeRedis):
    """It has no INFO."""

    def execute_command(self, *args, **options):
        return {"run_id": "1", "master_replid": "2"} if args[0] == "INFO" else super().execute_command(*args, **options)


class AsyncFake(fakeredis.FakeAsyncRedis):
    async def execute_command(self, *args, **options):
        if args[0] == "INFO":
            return {"run_id": "1", "master_replid": "2"}
        return await super().execute_command(*args, **options)


@pytest.fixture(params=["sync", "async"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    server = fakeredis.FakeServer()
    behind = fakeredis.FakeRedis(server=server)
    if request.param == "sync":
        backend = Redis.from_client(Fake(server=server))
    else:
        backend = on_a_loop(AsyncRedis.from_client(AsyncFake(server=server)))
    yield subject_over(backend, behind)
    backend.close()
    behind.close()


def subject_over(backend, behind) -> Subject:
    def life_ms(name: bytes) -> int | None:
        left = behind.pttl(name)
        return left if left >= 0 else None

    return Subject(backend, behind.delete, lambda name, raw: behind.set(name, raw, px=3_600_000), life_ms)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_fakeredis_passes(subject: Subject, check) -> None:
    check(subject)


def test_fakeredis_refines_the_item_machine(subject: Subject) -> None:
    run_refinement(subject, examples=30)
