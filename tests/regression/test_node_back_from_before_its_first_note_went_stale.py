"""A node came back with a snapshot from before the invalidator's first note, and was believed to be up to date.

The order of events: a snapshot is taken (items, no note yet) · the invalidator connects, a change is applied and
committed · the server restarts with the snapshot · no note is found, the node counted, so it went on from the committed
offset: the change was never told again, and the item was stale for its life, with a proof for strong reads beside it.
Where the restart went unnoticed the next batch left one note, which was believed alone.

Only the simulation could have met it, and it took no snapshot so early: now it does (`log_of_an_old_node`).
"""

from __future__ import annotations

from tests.unit.invalidator_world import World, fresh


def test_snapshot_from_before_the_first_note() -> None:
    world = World()
    name = world.cache(version=0)
    old = world.node().snapshot()
    world.go()
    world.store.change()
    world.go()
    world.node().restart_from(old)
    world.go(8, every_s=2)
    assert fresh(world.node(), name)  # there it is, under a name that nobody asks for any more
    assert world.name_of("customers:7") != name


def test_snapshot_from_before_the_first_note_that_nobody_noticed() -> None:
    world = World(positions="5s")
    name = world.cache(version=0)
    old = world.node().snapshot()
    world.go(1)
    world.store.change()
    world.go(1)
    world.node().restart_from(old)
    world.store.change(key={"id": 8})
    world.go(1)  # applied as if nothing had happened
    world.go(4, every_s=6)
    assert world.name_of("customers:7") != name
