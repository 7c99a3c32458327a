"""The relay: at least once, a row in one partition, and no claim of freshness before what it is about is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cachelib.errors import ConfigError
from cachelib.layout import decode_layout
from cachelib.model import RowChange
from invalidator.config import load
from invalidator.formats.base import Changes, Heartbeat
from invalidator.formats.relay import Relay
from invalidator.logs import open_log
from invalidator.producer import NotSent, Outgoing
from invalidator.relay import RelayService
from invalidator.relay_daemon import RelayDaemon
from invalidator.sources.outbox import Outbox
from tests.unit.invalidator_world import Clock, FakeStore, at

DECODE = Relay()


class Topic:
    """Partitions in memory; it may refuse, or take a part and then fail."""

    topic = "changes"

    def __init__(self, partitions: int = 3) -> None:
        self.logs: list[list[Outgoing]] = [[] for _ in range(partitions)]
        self.takes: int | None = None

    def partitions(self) -> int:
        return len(self.logs)

    def place(self, key: bytes, partitions: int) -> int:
        return sum(key) % partitions

    def send(self, records: Sequence[Outgoing]) -> None:
        for number, record in enumerate(records):
            if self.takes is not None and number >= self.takes:
                raise NotSent("the broker is gone")
            assert record.partition is not None
            self.logs[record.partition].append(record)

    def decoded(self, partition: int) -> list[Any]:
        return [DECODE("changes", record.key, record.value) for record in self.logs[partition]]

    def changes(self) -> list[tuple[int, RowChange]]:
        return [
            (number, found.changes[0])
            for number in range(len(self.logs))
            for found in self.decoded(number)
            if isinstance(found, Changes)
        ]

    def beats(self, partition: int = 0) -> list[Heartbeat]:
        return [found for found in self.decoded(partition) if isinstance(found, Heartbeat)]


class World:
    """A relay that is turned by hand."""

    def __init__(self, partitions: int = 3) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock)
        self.topic = Topic(partitions)
        self.settings = load(None, {}, {"relay": {"topic": "changes"}, "log": {"level": "error"}})
        self.settings = replace(self.settings, log=replace(self.settings.log, level="critical"))
        self.start()

    def start(self) -> None:
        self.relay = RelayService(
            self.settings,
            store=self.store,  # type: ignore[arg-type]
            source=Outbox(self.store, "relay"),
            topic=self.topic,
            log=open_log(self.settings.log),
            clock_s=self.clock,
        )
        self.relay.begin()

    def go(self, turns: int = 4, every_s: float = 0.6) -> None:
        for _ in range(turns):
            self.clock.now_s += every_s
            self.relay.turn()


def test_change_arrives_as_it_was() -> None:
    world = World()
    change = world.store.change(before={"id": 7, "tier": "plain"}, after={"id": 7, "tier": "gold"}, tx=12)
    world.go()
    assert [found for _, found in world.topic.changes()] == [change]


def test_changes_of_a_row_share_a_partition_in_their_order() -> None:
    world = World()
    for number in range(30):
        world.store.change(key={"id": number % 5})
    world.go()
    by_row: dict[int, list[tuple[int, int | None]]] = {}
    for partition, change in world.topic.changes():
        by_row.setdefault(change.key["id"], []).append((partition, change.version))
    for seen in by_row.values():
        assert len({partition for partition, _ in seen}) == 1
        assert [version for _, version in seen] == sorted(version or 0 for _, version in seen)


def test_position_is_saved_behind_what_is_acknowledged() -> None:
    world = World()
    world.store.change()
    world.topic.takes = 0
    world.go()
    assert world.store.consumers.get("relay", "") == ""
    assert world.relay.last_error == "the broker is gone"
    world.topic.takes = None
    world.go()
    assert world.store.consumers["relay"] == at(1)
    assert world.relay.last_error == ""


def test_batch_of_which_a_part_arrived_is_sent_again() -> None:
    world = World(partitions=1)
    for number in range(5):
        world.store.change(key={"id": number})
    world.topic.takes = 3
    world.go(1)
    world.topic.takes = None
    world.go()
    assert [change.key["id"] for _, change in world.topic.changes()] == [0, 1, 2, 0, 1, 2, 3, 4]


def test_killed_relay_goes_on_from_the_saved_position() -> None:
    world = World(partitions=1)
    world.store.change(key={"id": 1})
    world.go()
    world.store.change(key={"id": 2})
    world.relay.turn()  # sent, and killed before the position is saved
    world.start()
    world.go()
    assert [change.key["id"] for _, change in world.topic.changes()] in ([1, 2], [1, 2, 2])
    assert world.store.consumers["relay"] == at(2)


# --- heartbeats ----------------------------------------------------------------------------------


def test_every_partition_hears_up_to_when_everything_is_there() -> None:
    world = World()
    world.store.change()
    world.go()
    for partition in range(3):
        beat = world.topic.beats(partition)[-1]
        assert beat.watermark_us == world.clock.us()
        assert beat.partitions == 3
        assert beat.position == at(1)


def test_nothing_is_claimed_before_the_changes_are_acknowledged() -> None:
    world = World()
    world.go()
    before = world.topic.beats()[-1]
    world.store.change()
    world.topic.takes = 0
    world.go()
    world.topic.takes = None
    assert world.topic.beats()[-1] == before


def test_heartbeat_claims_no_more_than_what_was_sent() -> None:
    """The log is cut off: the watermark of a poll that left changes unread is not known."""
    world = World()
    world.settings = replace(world.settings, relay=replace(world.settings.relay, batch=1))
    world.start()
    world.go(1)
    known = world.topic.beats()[-1].watermark_us
    for number in range(3):
        world.store.change(key={"id": number})
    world.go(2)
    assert world.topic.beats()[-1].watermark_us == known


def test_partitions_that_were_added_hear_too_and_are_counted() -> None:
    world = World(partitions=2)
    world.go()
    world.topic.logs.append([])
    world.go(20)
    assert world.topic.beats(2)[-1].partitions == 3
    assert world.topic.beats(0)[-1].partitions == 3


# --- what was lost -------------------------------------------------------------------------------


def test_lost_changes_give_everything_new_epochs_and_nothing_is_claimed_until_they_are_current() -> None:
    world = World()
    for _ in range(5):
        world.store.change()
    world.go()
    layout = world.store.layout
    for _ in range(5):
        world.store.change()
    world.store.purged = 8  # in front of the relay, which stood for too long
    seen = len(world.topic.beats())
    world.go(3)
    assert world.store.layout.next is not None
    assert all(beat.watermark_us is None for beat in world.topic.beats()[seen + 1 :])
    world.go(20)
    assert world.store.layout.next is None
    assert world.store.layout.now.base != layout.now.base
    assert world.topic.beats()[-1].watermark_us == world.clock.us()
    assert world.store.consumers["relay"] == at(10)


def test_relay_that_dies_meanwhile_claims_nothing_either() -> None:
    world = World()
    world.store.change()
    world.go()
    world.store.who = "store-2"
    world.go(3)
    assert decode_layout(world.store.document or b"").next is not None
    world.start()
    seen = len(world.topic.beats())
    world.go(2)
    assert world.topic.beats()[seen:]
    assert all(beat.watermark_us is None for beat in world.topic.beats()[seen:])


# --- how it stands -------------------------------------------------------------------------------


def test_store_that_fails_is_asked_again() -> None:
    world = World()
    world.store.broken = True
    world.go()
    assert world.relay.status()["problems"] == ["the store is down"]
    world.store.broken = False
    world.store.change()
    world.go()
    assert len(world.topic.changes()) == 1
    assert world.relay.status()["problems"] == []


def test_relay_is_ready_while_its_records_are_acknowledged() -> None:
    world = World()
    assert not world.relay.ready()
    world.go()
    assert world.relay.ready()
    world.topic.takes = 0
    world.go(10, every_s=5)
    assert not world.relay.ready()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "no topic is given"),
        ({"relay": {"topic": "t"}}, "no broker is given"),
        ({"relay": {"topic": "t"}, "kafka": {"bootstrap": ["127.0.0.1:1"]}}, "no store is given"),
    ],
)
def test_what_is_missing_is_said(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RelayDaemon(load(None, {}, given))
