"""What `/status` says, back-pressure in small, and what is not kept in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cachelib.errors import StoreError
from cachelib.model import RowChange
from invalidator.overview import Overview
from invalidator.rules import Rules
from invalidator.sources.base import Event, Poison, Polled, Record
from invalidator.sources.outbox import Outbox
from invalidator.tally import Rate, Tally
from tests.integration.test_invalidator_page import GOOD
from tests.unit.invalidator_world import CUSTOMERS, Clock, World, at


def status(world: World) -> dict[str, Any]:
    said = Overview(world.service, world.clock.us).status()
    return dict(json.loads(json.dumps(said)))


def test_page_and_status_have_the_same_fields() -> None:
    world = World()
    world.store.change()
    world.go()
    said = status(world)
    assert set(said) == set(GOOD)
    (node,), (partition,) = said["nodes"].values(), said["partitions"].values()
    assert set(node) == set(next(iter(GOOD["nodes"].values())))
    assert set(partition) == set(next(iter(GOOD["partitions"].values())))
    assert set(said["waiting"]) == set(GOOD["waiting"])


def test_all_is_well() -> None:
    world = World()
    world.store.change()
    world.go()
    said = status(world)
    assert said["problems"] == []
    assert said["nodes"]["a"]["per_s"] > 0
    assert said["partitions"]["log"]["read"] == said["partitions"]["log"]["committed"] == at(1)
    assert said["partitions"]["log"]["last_change_s"] < 5


def test_problems_are_sentences() -> None:
    world = World("a", "b")
    world.go()
    world.node("b").down = True
    world.store.change()
    world.go()
    assert status(world)["problems"] == ["Node b does not answer: the node is down"]
    world.node("b").down = False
    world.store.broken = True
    assert status(world)["last_store_error_at"] == ""
    world.go()
    failed_ms = world.clock.ms()
    assert "Store or log does not answer: the store is down" in status(world)["problems"]
    world.store.broken = False
    world.go()
    assert status(world)["problems"] == []
    assert status(world)["store_error"] == ""
    assert status(world)["last_store_error"] == "the store is down"
    assert status(world)["last_store_error_at"].endswith("Z")
    assert datetime.fromisoformat(status(world)["last_store_error_at"]) == datetime.fromtimestamp(failed_ms / 1000, UTC)
    assert status(world)["nodes"]["b"]["last_error"] == "the node is down"


def test_an_offset_that_is_not_saved_is_a_problem_and_the_store_s_words_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(consumer: str, position: str) -> None:
        raise StoreError("permission denied for table leasecache_consumers")

    world = World()
    world.go()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "save_consumer", refuse)
        world.store.change()
        world.go()
        said = "The committed offset is not saved: permission denied for table leasecache_consumers"
        assert status(world)["problems"] == [said]
    world.go()
    assert status(world)["problems"] == []


def test_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    rate = Rate(clock)
    for _ in range(600):
        clock.now_s += 0.1
        rate.add(10)
    assert rate.per_s() == pytest.approx(100, rel=0.02)
    clock.now_s += 60
    assert rate.per_s() < 1


def test_rate_is_right_from_the_first_second_on() -> None:
    clock = Clock()
    rate = Rate(clock)
    for _ in range(10):
        clock.now_s += 0.1
        rate.add(10)
    assert rate.per_s() == pytest.approx(100, rel=0.1)


def test_tally_keeps_the_last_change_and_the_last_error_of_each_partition() -> None:
    clock = Clock()
    tally = Tally(clock)
    change = RowChange("customers", "update", {"id": 1}, at_us=clock.us() - 2_000_000)
    polled = Polled((Event("p", at(1), change),), {}, {}, poison=(Poison("q", at(2), "no JSON"),))
    tally.saw(polled)
    assert tally.of("p", clock.us())["last_change_s"] == 2.0
    assert tally.of("q", clock.us())["last_error"].endswith("no JSON")
    assert tally.of("unknown", clock.us()) == {"last_change_s": None, "per_s": 0.0, "last_error": ""}


# --- back-pressure -------------------------------------------------------------------------------


class Resting(Outbox):
    """Counts what it is asked."""

    polled = rested = 0

    def poll(self, limit: int, timeout_s: float) -> Polled:
        type(self).polled += 1
        return super().poll(limit, timeout_s)

    def rest(self) -> None:
        type(self).rested += 1


def test_reading_rests_while_every_node_is_behind_and_goes_on_when_one_is_told() -> None:
    world = World(source=Resting, window=1000)
    world.settings = replace(world.settings, source=replace(world.settings.source, batch_max=200))
    world.start()
    world.go()
    Resting.rested = 0
    for number in range(5000):
        world.store.change(key={"id": number})
    for _ in range(8):  # the node is slow: only the reading goes on
        world.clock.now_s += 0.1
        world.service.turn()
    assert Resting.rested > 0
    assert world.service._window.behind(0) <= 1000
    world.go(60)
    assert world.store.consumers["invalidator"] == at(5000)


def test_what_waits_for_nodes_does_not_hold_the_rows_of_large_records() -> None:
    record = Record("t", 0, 1, 0, b"", b"x" * 2000)
    row = {"id": 7, "text": "x" * 2000}
    change = RowChange("customers", "update", {"id": 7}, 3, row, row)
    (effect,) = Rules([CUSTOMERS]).read([Event("t-0", at(1), change, record)]).effects
    assert effect.change == RowChange("customers", "update")
    (plain,) = Rules([CUSTOMERS]).read([Event("t-0", at(1), change)]).effects
    assert effect.op() == plain.op()
