"""One change that the topic did not take, for its size or its partition, stopped the relay and all caches behind it.

Order of events, of the first: a watched column holds more than the topic's `max.message.bytes` · the broker refuses the
record, at each try · no later change is ever sent.

Of the second: the topic is deleted, and created again with fewer partitions · the relay places by the number it knew
for ten seconds yet · kafka-python raises a ValueError, none of its own errors, and the process ends.

Of their class: tests/unit/test_invalidator_relay.py, with a topic that refuses one record alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cachelib.entity import Entity
from invalidator.config import load
from invalidator.logs import open_log
from invalidator.producer import NotSent, Outgoing, Producer, TooLarge
from invalidator.relay import RelayService
from invalidator.rules import Rules
from invalidator.settings import LogSettings
from invalidator.sources.base import Event
from invalidator.sources.outbox import Outbox
from tests.unit.invalidator_world import ORDERS_OF, Clock, FakeStore
from tests.unit.test_invalidator_relay import Topic

ORDERS = Entity.from_table("orders", key="id")
LARGE = "x" * 5000


class SmallTopic(Topic):
    """Takes no record of more than a kilobyte."""

    def send(self, records: Sequence[Outgoing]) -> None:
        for number, record in enumerate(records):
            if len(record.value or b"") > 1000:
                raise TooLarge("the record is too large", number)
        super().send(records)


def relay(store: FakeStore, topic: Topic, clock: Clock) -> RelayService:
    settings = load(None, {}, {"relay": {"topic": "changes"}})
    log = open_log(replace(LogSettings(), level="critical"))
    made = RelayService(
        settings,
        store=store,  # type: ignore[arg-type]
        source=Outbox(store, "relay"),  # type: ignore[arg-type]
        topic=topic,
        log=log,
        clock_s=clock,
    )
    made.begin()
    return made


def test_change_that_is_too_large_goes_without_its_columns_and_the_others_go_on() -> None:
    clock, topic = Clock(), SmallTopic()
    store = FakeStore(clock)
    service = relay(store, topic, clock)
    small = {"customer_id": 3}
    store.change(table="orders", key={"id": 1}, before={"id": 1, **small}, after={"id": 1, **small})
    large = {"id": 9, "note": LARGE, **small}
    store.change(table="orders", key={"id": 9}, before=large, after=large)
    store.change(table="orders", key={"id": 3}, before={"id": 3, **small}, after={"id": 3, **small})
    service.turn()
    assert service.last_error == ""
    sent = {change.version: change for _, change in topic.changes()}
    assert sent.keys() == {1, 2, 3}
    assert sent[1].after == {"id": 1, **small}
    assert (sent[2].before, sent[2].after) == ({"id": 9}, {"id": 9})
    reading = Rules([ORDERS, ORDERS_OF]).read([Event("p", "1", sent[2])])
    assert {effect.text for effect in reading.effects} == {b"orders:9"}
    assert [entity for _, entity, _ in reading.renew] == ["orders-of"]


class FewerPartitions:
    """A client of kafka-python, as it answers for a partition that is no more."""

    def send(self, *_: Any) -> Any:
        raise ValueError("Unrecognized partition 5 for topic changes")

    def close(self, timeout_s: float) -> None: ...


def test_partition_that_is_no_more_is_tried_again() -> None:
    settings = load(None, {}, {"kafka": {"bootstrap": ["here:9092"]}})
    log = open_log(replace(LogSettings(), level="critical"))
    producer = Producer(settings.kafka, settings.kafka_source, "changes", log)
    producer._client = FewerPartitions()
    with pytest.raises(NotSent, match="Unrecognized partition 5"):
        producer.send([Outgoing(b"x", partition=5)])
    assert producer._client is None  # and asks anew for how many there are
