"""A daemon that had read Kafka for days ended with "wrong settings", or gave its cache nodes up.

Order of events: a broker restarts, and closes connections before it answers, or does not know the password yet · the
client that answers questions about the log connects anew, and blames the settings, as it should at the start · the
main loop knows store errors only, and the process ends. In a node's thread the same error counted as the node's: after
`node_dead_after` it got new names, though it answered all the time.

Of its class: the contract of `ChangeSource`, by which every method but `open` raises `StoreError`.
"""

from __future__ import annotations

import pytest

from cachelib.errors import ConfigError, StoreError
from invalidator.metrics import Metrics
from invalidator.sources.kafka import KafkaSource
from invalidator.sources.kafka_client import KafkaClient
from tests.unit.test_kafka_source import LOG, P0, FakeKafka, settings


class Refuses(FakeKafka):
    """Brokers that may refuse a login, as the client libraries tell it."""

    refuses = False

    def build(self, group: str = "") -> KafkaClient:  # type: ignore[override]
        if self.refuses:
            raise ConfigError("no Kafka broker answers at here:9092: the broker refuses the login: see kafka.user")
        return super().build(group)


def test_login_refused_at_the_start_is_a_wrong_setting() -> None:
    kafka = Refuses()
    kafka.refuses = True
    with pytest.raises(ConfigError, match="refuses the login"):
        KafkaSource(settings(), kafka.build, Metrics(), LOG).open(lambda: None)


def test_login_refused_later_is_a_log_that_does_not_answer() -> None:
    kafka = Refuses()
    source = KafkaSource(settings(), kafka.build, Metrics(), LOG)
    source._side.check_topics()
    source._parts = frozenset([P0])
    reader = source.reader(source.start())
    kafka.down = True
    with pytest.raises(StoreError):
        source.end()
    kafka.down, kafka.refuses = False, True
    for ask in (source.end, source.start, source.elsewhere, lambda: reader.poll(1, 0.0)):
        with pytest.raises(StoreError, match="refuses the login"):
            ask()
    kafka.refuses = False
    assert source.end()
    assert reader.poll(1, 0.0).events == ()
