"""A Kafka client that hung, was replaced, and then raised, left the daemon reading nothing for ever.

Order of events: a poll hangs · another thread and client take its place, with a membership of their own, and are given
the partitions · the first poll comes back with an error · its thread puts a new, empty membership in the place of the
one that the second client fills. The second client turns, so nobody takes it for hung; nobody looks at what it reads.

Of its class: `test_client_that_hangs_while_it_is_built_is_replaced`, for a client that raises instead of going on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from invalidator.metrics import Metrics
from invalidator.sources.kafka_puller import Puller
from tests.integration.invalidator_daemon import until
from tests.unit.test_kafka_source import LOG, P0, Clock, FakeKafka, Progress, placed, record, settings, soon


class Hanging:
    """A poll that comes back when it is told to, with an error."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.go_on.wait(60)
        raise OSError("the connection is gone")


@pytest.fixture
def kafka() -> FakeKafka:
    return FakeKafka()


@pytest.fixture
def puller(kafka: FakeKafka) -> Iterator[Puller]:
    source = settings(request="1s", stalled="1s").kafka_source
    made = Puller(kafka.build, "group", source, Progress(), Metrics(), LOG)
    yield made
    made.stop()


def test_client_that_raises_after_it_was_replaced_changes_nothing(
    kafka: FakeKafka, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, clock = Hanging(), Clock()
    monkeypatch.setattr(puller, "_clock_s", clock)
    puller.start()
    first = puller._thread
    assert first is not None
    placed(puller)
    kafka.script.append(hangs)
    try:
        assert hangs.begun.wait(60)
        clock.now_s += 60
        puller.take(10, 0.0)  # asking is what finds out
        until(lambda: len(kafka.clients) == 2)
        placed(puller)
        second = puller.member
    finally:
        hangs.go_on.set()
    first.join(60)
    assert not first.is_alive()
    assert puller.member is second
    assert kafka.clients[0].closed
    kafka.script.append([record(0)])
    assert [batch.part for batch in soon(puller)] == [P0]
