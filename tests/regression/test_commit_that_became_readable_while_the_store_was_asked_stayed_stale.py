"""What a log shows early is told at once, and then the store is asked what can be read. What it showed then counted as
told for good; but it says nothing of the moment of the telling.

The order of events: a commit is told that nobody can read yet; the node keeps nothing of its key · a reader misses,
loads the old row and fills it in · the commit becomes readable · the store is asked, and shows it: no second look · the
old row stays. The simulation had it, in a moment of a millisecond that no seed met.
"""

from __future__ import annotations

from cachelib.stores.base import Snapshot
from tests.unit.invalidator_world import EarlyOutbox, World, at, fresh


def told_then_readable() -> tuple[World, list[bytes]]:
    """The commit can be read when the store is asked, and could not when the node was told."""
    world = World(source=EarlyOutbox, settle_delay="1h")
    filled: list[bytes] = []

    def snapshot() -> Snapshot:
        if not filled:
            world.worker().step()  # its thread does not wait for the store
            filled.append(world.cache(version=0))
        return Snapshot(1000, 1000)

    world.store.snapshot = lambda: Snapshot(1, 1)  # type: ignore[attr-defined]
    world.start()
    world.go()
    world.service._feed._looks.visibility._ask = snapshot  # type: ignore[union-attr]
    return world, filled


def test_what_was_filled_between_the_telling_and_the_question_is_voided() -> None:
    world, filled = told_then_readable()
    world.store.change(tx=5)
    world.go()
    assert filled
    assert not fresh(world.node(), filled[0])
    assert world.store.consumers["invalidator"] == at(1)


def test_what_the_store_showed_before_the_telling_is_told_once() -> None:
    world, _ = told_then_readable()
    world.store.change(tx=5)
    world.go()
    told = len(world.node().applied)
    world.store.change(tx=6)
    world.go()
    assert len(world.node().applied) == told + 1
    assert world.store.consumers["invalidator"] == at(2)
