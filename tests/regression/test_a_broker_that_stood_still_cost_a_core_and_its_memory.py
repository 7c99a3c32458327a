"""While the group's coordinator stood still, a member turned 3,500 times a second and grew by 100 MB in ten seconds.

Order of events: the broker is frozen (SIGSTOP, a dead network) · the heartbeat waits for its answer, for up to 30 s,
so the next one is overdue · kafka-python ends each wait of a poll at the time of the next heartbeat, which is now, so
it waits 0 s, again and again until the poll's time is over · each round leaves an error whose traceback holds its own
frame, which the daemon's rested collector frees late, and one more callback on the fetch that is under way, which
nobody frees before the broker is back.

Of its class: a wait whose length is computed from a time that has passed. The soak's limit for memory found it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from invalidator.logs import open_log
from invalidator.settings import KafkaSettings, KafkaSourceSettings, LogSettings
from invalidator.sources.kafka_client import HEARTBEAT_S
from invalidator.sources.kafka_logs import ClientLogs
from invalidator.sources.kafka_places import Mark, Part
from invalidator.sources.kafka_python_client import KafkaPythonClient
from tests.integration.invalidator_daemon import until
from tests.servers.kafka import KafkaServer

pytestmark = [pytest.mark.server, pytest.mark.slow]
POLL_S = 0.1
OVERDUE_S = HEARTBEAT_S + 1.0


class Member:
    """As far as the client asks."""

    def __init__(self) -> None:
        self.parts: set[Part] = set()

    def given(self, parts: Collection[Part]) -> None:
        self.parts |= set(parts)

    def settled(self, parts: Collection[Part]) -> bool:
        return True

    def taken(self, parts: Collection[Part], *, lost: bool) -> Mapping[Part, Mark]:
        return {}

    def waits(self) -> bool:
        return not self.parts


def test_a_member_waits_in_its_polls_while_its_coordinator_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    with KafkaServer() as kafka:
        kafka.create_topic("changes")
        source = KafkaSourceSettings(topics=("changes",), group="g")
        logs = ClientLogs(open_log(LogSettings()))
        client = KafkaPythonClient(KafkaSettings(bootstrap=(kafka.bootstrap,)), source, logs, "g")
        member = Member()
        try:
            client.subscribe(["changes"], member)
            until(lambda: client.poll(1, POLL_S) is not None and bool(member.parts), 60)
            client.seek(dict.fromkeys(member.parts, 0))
            client.poll(1, POLL_S)  # a fetch is under way
            kafka.pause()
            _poll_for(client, OVERDUE_S)
            fetcher, rounds = client._consumer._fetcher, 0
            fetch = fetcher.fetch_records

            def counted(*args: Any, **options: Any) -> Any:
                nonlocal rounds
                rounds += 1
                return fetch(*args, **options)

            monkeypatch.setattr(fetcher, "fetch_records", counted)
            polls = _poll_for(client, 1.0)
        finally:
            kafka.resume()
            client.close(1.0)
    assert 0 < rounds <= 3 * polls


def _poll_for(client: KafkaPythonClient, seconds: float) -> int:
    """How many polls that were."""
    end_s, polls = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        assert client.poll(1, POLL_S) == []
        polls += 1
    return polls
