"""The daemon as a process over Kafka and Redis: killed, frozen, its broker restarted, its topic created again."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.invalidator_daemon import tier, until
from tests.integration.kafka_town import LIBRARIES, Town

pytestmark = pytest.mark.slow
IDS = range(20)


@pytest.mark.parametrize("library", LIBRARIES)
def test_killed_member_is_replaced_by_the_other(town: Town, library: str) -> None:
    first, second = town.daemon(library, 0), town.daemon(library, 1)
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    town.warm(IDS)
    town.change(IDS, "silver")
    town.agrees(IDS, "silver")
    town.warm(IDS)
    first.kill()
    town.change(IDS, "gold")
    town.agrees(IDS, "gold")
    assert second.metric("partitions") == 4


@pytest.mark.parametrize("library", LIBRARIES)
def test_topic_created_again_while_the_daemon_was_frozen(town: Town, library: str) -> None:
    """Past the position it had: no client notices, only the topic's identity tells."""
    daemon = town.daemon(library)
    epochs = daemon.metric("epochs_total")
    town.warm(IDS)
    town.change(IDS, "silver")
    town.agrees(IDS, "silver")
    town.warm(IDS)
    daemon.signal(signal.SIGSTOP)
    try:
        town.kafka.delete_topic(town.topic)
        town.shop.sql("update customers set tier = 'gold'")  # what told of this is lost with the topic
        until(lambda: _created(town))
        town.send(range(1000, 1400))  # of nobody who is cached, and in every partition beyond where it was
    finally:
        daemon.signal(signal.SIGCONT)
    # Alone it proves nothing: what was told twice, as the log may be, is loaded anew without any epoch.
    town.agrees(IDS, "gold")
    until(lambda: daemon.metric("epochs_total") > epochs)
    until(lambda: town.settled() and daemon.get("/readyz")[0] == 200)
    town.warm(IDS)
    town.change(IDS, "platinum")
    town.agrees(IDS, "platinum")


def _created(town: Town) -> bool:
    from kafka.errors import KafkaError

    try:
        town.kafka.create_topic(town.topic, 4)
    except KafkaError:
        return False
    return True


@pytest.mark.parametrize("library", LIBRARIES)
def test_member_that_slept_longer_than_its_session_comes_back(town: Town, library: str) -> None:
    first, second = town.daemon(library, 0), town.daemon(library, 1)
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    epochs = first.metric("epochs_total"), second.metric("epochs_total")
    town.warm(IDS)
    first.signal(signal.SIGSTOP)
    try:
        until(lambda: second.metric("partitions") == 4)
        town.change(IDS, "silver")
        town.agrees(IDS, "silver")
    finally:
        first.signal(signal.SIGCONT)
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    town.warm(IDS)
    town.change(IDS, "gold")
    town.agrees(IDS, "gold")
    assert (first.metric("epochs_total"), second.metric("epochs_total")) == epochs  # nothing was lost


@pytest.mark.parametrize("library", LIBRARIES)
def test_broker_that_restarts_is_waited_for(town: Town, library: str) -> None:
    daemon = town.daemon(library)
    town.warm(IDS)
    town.kafka.kill()
    time.sleep(1.0)  # let the clients notice
    town.kafka.start()
    town.change(IDS, "silver")
    until(lambda: all(tier(town.cache, one) == "silver" for one in IDS), 60)
    until(lambda: daemon.get("/readyz")[0] == 200)


@pytest.mark.parametrize("library", LIBRARIES)
def test_static_member_is_back_without_a_rebalance(town: Town, library: str) -> None:
    """The other one keeps its partitions, and so is not placed anew; the one that was killed goes on with its own."""
    named = {"session": "45s", "group": town.topic}  # a killed one stays in its group so long
    first, second = (town.daemon(library, number, instance=f"pod-{number}", **named) for number in range(2))
    until(lambda: [first.metric("partitions"), second.metric("partitions")] == [2, 2])
    town.warm(IDS)
    placed = [line["event"] for line in second.log()].count("placed anew")
    first.kill()
    town.change(IDS, "silver")
    first.start().ready()
    town.agrees(IDS, "silver")
    assert [line["event"] for line in second.log()].count("placed anew") == placed
    assert [first.metric("partitions"), second.metric("partitions")] == [2, 2]
