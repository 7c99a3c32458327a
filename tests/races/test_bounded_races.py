"""What a bounded read must not be shown, as an order of events; a naive cache, which lives by its TTL, shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cachelib.levels import always, bounded_ground
from tests.races.naive import Naive
from tests.races.world import Ours

AGE_US = 2_000_000


@pytest.fixture(params=[Ours, Naive], ids=["ours", "naive"])
def world(request: pytest.FixtureRequest) -> Any:
    return request.param(writer="invalidate")


def read(world: Any, watermark_us: int | None = None, holds: Any = always) -> str | None:
    """At a bound of two seconds."""
    return world.read() if world.naive else reader(world, watermark_us, holds).fill()


def reader(world: Any, watermark_us: int | None = None, holds: Any = always) -> Any:
    ground = bounded_ground(world.clock.now_ms * 1000, AGE_US, watermark_us, holds)
    plan = replace(world.plan(strong=False), requirement=ground.requirement, holds=ground.holds)
    return world.reader_of(plan)


def passes(world: Any, ms: int) -> int:
    world.clock.now_ms += ms
    return int(world.clock.now_ms * 1000)


def test_event_that_nobody_applies(world: Any) -> None:
    read(world)
    world.store.commit("second")  # the invalidator stands still
    passes(world, 1_999)
    assert read(world) == "first", "within the bound it is a hit"
    passes(world, 2)
    assert (read(world) == "second") is not world.naive


def test_watermark_that_stands_still(world: Any) -> None:
    began = passes(world, 0)
    read(world)
    passes(world, 10_000)
    world.store.commit("second")
    passes(world, 2_001)
    assert (read(world, watermark_us=began + 10_000_000) == "second") is not world.naive


def test_watermark_of_a_server_that_was_replaced_meanwhile(world: Any) -> None:
    read(world)
    old = world.item
    commit = world.store.commit("second")
    now = passes(world, 10_000)
    world.apply_log(commit)
    start = getattr(world, "start", 0)
    planned = None if world.naive else reader(world, now, lambda: world.start == start)
    world.come_back_with(old)  # between the look at the note and the look at the item
    assert ((world.read() if planned is None else planned.fill()) == "second") is not world.naive


def test_what_the_watermark_proves_is_hit_however_old_it_is() -> None:
    world = Ours()
    read(world)
    loads = world.store.loads
    for _ in range(10):
        assert read(world, watermark_us=passes(world, 10_000)) == "first"
    assert world.store.loads == loads
