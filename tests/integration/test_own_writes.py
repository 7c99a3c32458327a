"""What a process has changed itself its own eventual reads are not shown from before, though another of its calls is
still loading that. What other processes change may be seen later: that is `Eventual`."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cachelib import Entity
from cachelib import flights as flights_module
from tests.integration.client_world import WAIT_S, Held, World, sqlite_template, until

SELECT = "select id, name, tier, row_version from customers where id in :keys"
SECOND = {"name": "second", "tier": "gold"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, redis_url: str, template: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copy(template, tmp_path / "store.db")
    made = World(request.param, redis_url, f"sqlite:///{tmp_path / 'store.db'}")
    made.customer(1, "first")
    yield made
    made.close()


class LateLoads:
    """A loader whose rows come home late: it has read them, and then waits, if it is told to."""

    def __init__(self, world: World, entity: Entity) -> None:
        self._inner = entity.load
        self.hold: Callable[[Sequence[Any]], None] = lambda keys: None
        self.load: Any = self._load if world.loop is None else self._load_async

    def _load(self, tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        rows: Mapping[Any, Any] = self._inner(tx, keys)  # type: ignore[misc, operator]
        self.hold(keys)
        return rows

    async def _load_async(self, tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        rows: Mapping[Any, Any] = await self._inner(tx, keys)  # type: ignore[misc, operator]
        await asyncio.to_thread(self.hold, keys)
        return rows


def put(world: World, cache: Any, entity: Entity) -> None:
    cache.put(entity, 1, SECOND)


def put_in_a_session(world: World, cache: Any, entity: Entity) -> None:
    session = cache.session()
    (session if world.loop is None else type(cache)(session, world.loop)).put(entity, 1, SECOND)


def sql(world: World, cache: Any, entity: Entity) -> None:
    with cache.transaction() as tx:
        tx.execute("update customers set name = 'second', tier = 'gold' where id = 1")


def delete(world: World, cache: Any, entity: Entity) -> None:
    cache.delete(entity, 1)


def invalidate(world: World, cache: Any, entity: Entity) -> None:
    world.customer(1, "second", "gold")
    cache.invalidate(entity, 1)


CHANGES = [put, put_in_a_session, sql, delete, invalidate]


@pytest.mark.parametrize("write", ["through", "populate", "invalidate"])
@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_a_read_is_not_shown_what_a_load_found_before_its_process_wrote(
    world: World, write: Any, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load, which reads the old row · commit, cache step · read · the load comes home with the old row."""
    monkeypatch.setattr(flights_module, "YOUNG_S", 60.0)  # a thread joins before it asks, a task after
    late = LateLoads(world, world.customers())
    entity = world.customers(load=late.load, write=write)
    cache = world.cache(entity)
    cache.get(entity, 2)
    held = late.hold = Held()
    with world.meanwhile(lambda: cache.get(entity, 1)) as before:
        until(held.begun.is_set, "the load")
        late.hold = lambda keys: None
        change(world, cache, entity)
        with world.meanwhile(lambda: cache.get(entity, 1)) as after:
            try:
                until(lambda: after or waits(cache, entity), "a read that found it itself, or waits for the lease")
            finally:
                held.go_on.set()
    assert before == [{"name": "first", "tier": "iron"}], "it had begun before the change ended"
    assert after == [None if change is delete else SECOND]


def waits(cache: Any, entity: Entity) -> float:
    found: float = cache.metrics.values().get(("leasecache_events_total", entity.name, "wait"), 0)
    return found


WRITERS, WRITES = 4, 15


@pytest.mark.parametrize("write", ["through", "invalidate"])
def test_writers_of_one_process_read_at_least_what_they_have_just_written(
    world: World, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once, while the item is evicted again and again, so that loads are under way all the time."""
    monkeypatch.setattr(flights_module, "YOUNG_S", 60.0)
    late = LateLoads(world, world.customers())
    late.hold = lambda keys: time.sleep(random.random() * 0.004)
    entity = world.customers(load=late.load, write=write, stale_ttl="0s")
    cache, evicting = world.cache(entity), world.cache(entity)
    world.customer(1, "0")
    assert cache.get(entity, 1)["name"] == "0"
    behind: list[tuple[int, int]] = []

    def writes() -> None:
        for _ in range(WRITES):
            with cache.transaction() as tx:
                tx.execute("update customers set name = cast(name as integer) + 1 where id = 1")
                mine = int(tx.get(entity, 1)["name"])
            for _ in range(3):
                seen = int(cache.get(entity, 1)["name"])
                if seen < mine:
                    behind.append((seen, mine))
            evicting.invalidate(entity, 1)  # another process's, as far as this one knows

    with ThreadPoolExecutor(WRITERS) as pool:
        for one in [pool.submit(writes) for _ in range(WRITERS)]:
            one.result(WAIT_S * 2)
    assert behind == []
    assert int(cache.get(entity, 1)["name"]) == WRITERS * WRITES
