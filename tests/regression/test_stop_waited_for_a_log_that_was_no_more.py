"""A stop waited out its whole `drain` for positions of a log that was no more.

Order of events: the log is read up to 5 · the store is restored, and its log ends at 0; everything gets new epochs ·
the daemon is stopped: it waits until every node was told all up to 5, which nobody can be.

Of its class: `test_store_that_went_back_makes_everything_void`, which did not stop the daemon.
"""

from __future__ import annotations

from tests.unit.invalidator_world import World


def test_stop_waits_for_no_position_of_a_log_that_is_no_more() -> None:
    world = World()
    for number in range(5):
        world.store.change(key={"id": number})
    world.go()
    world.store.log.clear()
    world.store.version = 0
    world.go(20)
    world.store.change()
    world.go()
    assert world.worker().in_window
    assert [
        worker.name for worker in world.service.fleet if world.service.fleet._owes(worker, world.service._given)
    ] == []
