"""A cache with L1 over real servers and stores, both faces: what it spares, and what it is never behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachelib import L1, Strong
from cachelib.metrics import READS
from tests.integration.client_world import World, sqlite_template, until

PAUL, PETER = {"name": "Paul", "tier": "gold"}, {"name": "Peter", "tier": "iron"}
LONG = L1(ttl="60s")
"""Longer than any test: what is not dropped would be seen."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=["sync-redis", "async-redis", "sync-memcached", "async-memcached"])
def world(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[World]:
    face, server = request.param.split("-")
    shutil.copy(template, tmp_path / "store.db")
    made = World(face, request.getfixturevalue(f"{server}_url"), f"sqlite:///{tmp_path}/store.db")
    made.customer(1, "Peter")
    yield made
    made.close()


def local(cache: Any, entity: Any) -> int:
    return int(cache.metrics.values()[READS, entity.name, "local"])


def warm(cache: Any, entity: Any) -> None:
    """Read until the process itself has it: a miss, then a hit."""
    for _ in range(3):
        cache.get(entity, 1)
    assert cache.read(entity, 1).source == "local"


def test_a_copy_is_served_without_asking_anybody(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers, l1=LONG)
    warm(cache, customers)
    before = local(cache, customers)
    world.run(cache._core.node.close()) if world.loop else cache.backend.close()
    other = world.cache(customers)
    other.invalidate(customers, 1)
    world.customer(1, "Paul", "gold")
    assert cache.get(customers, 1) == PETER
    read = cache.read(customers, 1)
    assert (read.value, read.found, read.source) == (PETER, True, "local")
    assert read.version > 0
    assert local(cache, customers) == before + 2


def test_a_copy_is_behind_for_no_longer_than_its_ttl(world: World) -> None:
    customers = world.customers()
    cache, other = world.cache(customers, l1=L1(ttl="200ms")), world.cache(customers)
    for _ in range(3):
        cache.get(customers, 1)
    other.put(customers, 1, PAUL)
    until(lambda: cache.get(customers, 1) == PAUL)


def test_what_this_cache_wrote_is_seen_at_once(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers, l1=LONG)
    for key in (1, "1"):
        warm(cache, customers)
        cache.get(customers, "1")
        cache.put(customers, 1, PAUL)
        assert cache.get(customers, key) == PAUL
        cache.get(customers, key)
        with cache.transaction() as tx:
            tx.execute("update customers set name = 'Peter', tier = 'iron' where id > 0")
        assert cache.get(customers, key) == PETER
    cache.delete(customers, 1)
    assert cache.get(customers, 1) is None


def test_by_hand_it_is_dropped_too(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers, l1=LONG)
    warm(cache, customers)
    world.customer(1, "Paul", "gold")
    cache.invalidate(customers, 1)
    assert cache.get(customers, 1) == PAUL


@pytest.mark.parametrize("world", ["sync-redis"], indirect=True)  # it waits for two leases of the layout
def test_a_new_epoch_begins_with_nothing(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers, l1=LONG)
    warm(cache, customers)
    world.customer(1, "Paul", "gold")
    cache.clear(customers)
    assert cache.get(customers, 1) == PAUL


def _through(face: Any, get: Any) -> None:
    """Have the open hit paths ask by this function."""
    for lane in face._layout.view.lanes.values():
        lane.get = get


def test_a_value_that_was_read_before_the_write_is_not_kept_after_it(world: World) -> None:
    customers = world.customers()
    cache = world.cache(customers, l1=LONG)
    writer = world.cache(customers)
    for _ in range(2):
        writer.get(customers, 1)
    cache.get(customers, 2)  # the layout is read, the hit path is open
    face = cache if world.loop is None else cache.face
    asked = face.backend.get

    def write() -> None:
        world.customer(1, "Paul", "gold")

    if world.loop is None:

        def slow(name: bytes) -> Any:
            raw = asked(name)
            _through(face, asked)
            write()
            cache.invalidate(customers, 1)  # between this reader's answer and its keeping it
            return raw

        _through(face, slow)
    else:

        async def slow_async(name: bytes) -> Any:
            raw = await asked(name)
            _through(face, asked)
            write()
            await face.invalidate(customers, 1)
            return raw

        _through(face, slow_async)
    assert cache.get(customers, 1) == PETER
    assert cache.get(customers, 1) == PAUL


def test_a_strong_read_is_never_local(world: World) -> None:
    customers = world.customers(consistency=Strong())
    cache, other = world.cache(customers, l1=LONG), world.cache(customers)
    for _ in range(4):
        cache.get(customers, 1)
    other.put(customers, 1, PAUL)
    assert cache.get(customers, 1) == PAUL
    assert local(cache, customers) == 0
