"""A node that read the log by itself went past changes that it had not been told of, or stopped for ever.

Order of events, of the first: the node is behind, and its own reader gives a batch · the layout cannot be read (the
store is away for longer than the lease, while Kafka answers) · the batch is not told, and the reader stands behind it ·
the store is back · what comes next is told, and the node's position claims the batch as well.

Of the second: the log has a gap, which a reader tells once · the new epochs cannot be published, since the store is
away · the store is back · the partition is silent, the node is behind for ever, and so is the committed offset.

Of their class: tests/unit/test_invalidator_chaos.py, with a store that fails for the layout alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from cachelib.errors import LogGap, StoreError
from invalidator.sources.base import Polled
from invalidator.sources.outbox import Outbox
from tests.unit.invalidator_world import World, at

CHANGES = 3000


class GapToldOnce(Outbox):
    """Tells a gap as Kafka's clients do: once, and after that the partition is silent until it is sought."""

    silent = False

    def reader(self, positions: Any) -> GapToldOnce:
        return GapToldOnce(self._log, self._consumer, positions["log"])

    def seek(self, positions: Any) -> None:
        super().seek(positions)
        self.silent = False

    def poll(self, limit: int, timeout_s: float) -> Polled:
        if self.silent:
            return Polled((), {"log": self._at}, {"log": self._at})
        try:
            return super().poll(limit, timeout_s)
        except LogGap:
            self.silent = True
            raise


def behind(source: type[Outbox] = Outbox) -> World:
    """The node b was away, and reads the log by itself."""
    world = World("a", "b", window="1000", source=source)
    world.go()
    world.node("b").down = True
    for number in range(CHANGES):
        world.store.change(key={"id": number})
        if number % 100 == 0:
            world.go(1, every_s=0.1)
    world.node("b").down = False
    return world


def test_batch_whose_layout_could_not_be_read_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = behind()
    world.go(1)
    worker = world.worker("b")
    assert not worker.in_window

    def away() -> bytes | None:
        raise StoreError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "read_layout", away)
        world.clock.now_s += 5  # the layout's lease is over
        with pytest.raises(StoreError) as caught:
            worker.step()
        worker.failed(caught.value)
    world.go(30)
    assert worker.in_window
    assert {name for batch in world.node("b").applied for name, _ in batch} == {
        world.name_of(f"customers:{number}") for number in range(CHANGES)
    }


def test_gap_that_could_not_be_answered_at_once_is_asked_for_again() -> None:
    world = behind(GapToldOnce)
    world.store.purged = 2500
    fail_to_publish_once(world)
    worker = world.worker("b")
    world.go(1)
    assert not worker.in_window
    world.go(40)
    assert worker.in_window
    assert worker.confirmed == {"log": at(CHANGES)}


def fail_to_publish_once(world: World) -> None:
    """The first new layout finds the store away."""
    write, tries = world.store.write_layout, []

    def away(document: bytes, expected: bytes | None) -> None:
        tries.append(document)
        if len(tries) == 1:
            raise StoreError("the store is away")
        write(document, expected)

    world.store.write_layout = away  # type: ignore[method-assign]
