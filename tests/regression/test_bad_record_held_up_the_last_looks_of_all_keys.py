"""A record that could not be read waited for its dead letter to be kept, and behind it, in the log's order, waited the
last looks of every other key: what a load had filled in before the commit was visible stayed, as long as the place for
dead letters was full or gone. Only the committed offset has to wait for it.

`test_offset_waits_for_dead_letters_and_invalidations_do_not` should have caught it, with a source that shows early.
"""

from __future__ import annotations

from collections.abc import Iterable

from cachelib.stores.base import Snapshot
from invalidator.formats.base import doubtful_row
from tests.unit.invalidator_world import World, at, fresh
from tests.unit.test_invalidator_poison import EarlyPoisoned, Kept, go, poisoned, spoil


def show(world: World, hidden: Iterable[int]) -> None:
    """Every transaction is visible but these."""
    snapshot = Snapshot(min(hidden, default=1000), 1000, frozenset(hidden))
    world.service._feed._looks.visibility._ask = lambda: snapshot  # type: ignore[union-attr]


def test_last_look_comes_though_a_dead_letter_before_it_is_not_kept() -> None:
    kept = Kept()
    world = poisoned(kept, source=EarlyPoisoned)
    world.store.snapshot = lambda: None  # type: ignore[attr-defined]
    world.start()
    kept.refuses = True
    spoil(world, doubtful_row("customers", {"id": 8}))
    go(world, 20)
    assert kept.refused
    show(world, [5])
    world.store.change(tx=5)
    go(world, 2)
    name = world.cache(version=0)  # evicted, and filled by a load that saw the old row
    show(world, [])
    go(world, 2)
    assert not fresh(world.node(), name)
    assert world.store.consumers["invalidator"] < at(1)
    kept.refuses = False
    go(world, 2)
    assert world.store.consumers["invalidator"] == at(2)
