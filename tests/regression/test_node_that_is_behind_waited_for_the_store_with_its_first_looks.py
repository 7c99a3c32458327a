"""What a source shows early is given to the nodes before the store is asked what can be read in it. A node that reads
the log by itself, as it is behind, collected all that a poll gave first: while the store did not answer, it was told
nothing.

`test_change_is_applied_before_the_store_is_asked_what_is_visible` should have had a node that is behind.
"""

from __future__ import annotations

from cachelib.errors import StoreError
from cachelib.stores.base import Snapshot
from tests.unit.invalidator_world import at, fresh
from tests.unit.test_invalidator_looks import early, hide


def no_answer() -> Snapshot:
    raise StoreError("gone")


def test_node_that_is_behind_is_told_though_the_store_cannot_be_asked() -> None:
    world = early()
    old = world.node().snapshot()
    world.store.change(tx=5)
    world.go()
    world.service._window.restart()  # what it needs has long left the window
    world.node().restart_from(old)
    name = world.cache(version=0)
    feed = world.worker()._feed
    feed._looks.visibility._ask = no_answer  # type: ignore[union-attr]
    world.go(4)
    assert world.worker()._number is None
    assert not fresh(world.node(), name)
    hide(world, [])
    world.go()
    assert world.worker().confirmed == {"log": at(1)}
