"""A node that was given up stood among those that the committed offset had waited for.

Order of events: a node is dead and counts no longer · the offset is committed without it · taking its name from the
store's records fails, and is never tried again (or the process dies right there) · the next process finds the name, and
believes that the offset waited for the node · the node is back, and says that it began empty: it goes on from that
offset, and is never told what was changed since its clients filled it.

Of its class: tests/unit/test_invalidator_chaos.py, with a store that fails between two of its questions.
"""

from __future__ import annotations

import pytest

from cachelib.errors import StoreError
from tests.unit.invalidator_world import World

NODES = ["a", "b"]


def given_up(world: World) -> None:
    world.go()
    world.node("b").down = True
    world.store.change()
    world.go(6)


def test_store_that_fails_as_a_node_is_forgotten_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(*NODES, node_dead_after="1s")
    drop, tries = world.store.drop_consumer, []

    def away_once(consumer: str) -> None:
        tries.append(consumer)
        if len(tries) == 1:
            raise StoreError("the store is away")
        drop(consumer)

    monkeypatch.setattr(world.store, "drop_consumer", away_once)
    given_up(world)
    world.go(40)
    assert len(tries) == 2
    committed = world.source(world.store, "invalidator").committed(NODES)  # type: ignore[arg-type]
    assert committed is not None
    assert committed.counted == {"a"}


def test_process_that_dies_as_a_node_is_forgotten_has_committed_nothing_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(*NODES, node_dead_after="1s")
    source = world.source(world.store, "invalidator")  # type: ignore[arg-type]
    found = []

    def dies(consumer: str) -> None:
        found.append(source.committed(NODES))
        world.store.consumers.pop(consumer, None)

    monkeypatch.setattr(world.store, "drop_consumer", dies)
    given_up(world)
    before = source.committed(NODES)
    assert before is not None
    assert before.counted == set(NODES)
    world.go(40)
    assert found == [before]
