"""Two things that a daemon said or forgot while its log answered and its store did not.

Order of events, of the first: changes come from Kafka, and the store is away · the chores fail, and say so · the next
poll of the log succeeds, and says that the store answers again, some times a second; most of the time the status and
the page say that nothing is wrong.

Of the second: SIGHUP brings a new entity while the store is away · its new epoch cannot be published, and is not tried
again: nobody told the caches of its changes before, so what they hold of it stays, and nothing of it is ever proven.

Of their class: `test_store_that_fails_for_a_while_costs_nothing_but_time`, with a log that is not the store's.
"""

from __future__ import annotations

from typing import Any

import pytest

from cachelib.errors import StoreError
from cachelib.layout import decode_layout
from invalidator.rules import Rules
from tests.unit.invalidator_world import CUSTOMERS, World


class Away:
    """The store's answers to everything but its log."""

    def __init__(self, world: World, patched: pytest.MonkeyPatch) -> None:
        for question in ("identity", "highest_version", "now_us", "read_layout", "write_layout"):
            patched.setattr(world.store, question, self._fail)

    def _fail(self, *_: Any) -> Any:
        raise StoreError("the store is away")


def test_poll_of_the_log_does_not_mean_that_the_store_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.go()
    with monkeypatch.context() as patched:
        Away(world, patched)
        world.go(4)  # until the lease is over, too
        for _ in range(12):
            world.go(1, every_s=0.1)
            assert world.service.trouble.error == "the store is away"
    world.go(8)
    assert world.service.trouble.error == ""


def test_entity_that_came_while_the_store_was_away_gets_its_epoch_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.rules = Rules([CUSTOMERS])
    world.start()
    world.go()
    with monkeypatch.context() as patched:
        Away(world, patched)
        world.new_rules = World().rules
        world.service.ask_to_reload()
        world.go(2)
    assert world.service.rules is world.new_rules
    world.go(4)
    coming = decode_layout(world.store.document or b"").next
    assert coming is not None
    assert set(coming.epochs) == {"orders-of"}
    assert world.worker().session is not None
    assert world.worker().session.entities() == {"customers", "orders-of"}  # type: ignore[union-attr]
