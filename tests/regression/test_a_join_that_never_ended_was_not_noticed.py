"""A daemon read nothing for minutes, was ready all the while, and said nothing.

Order of events, on a busy machine: a member has its partitions · the group rebalances, and takes them · the client
joins again, and that join never ends, without an error · two seconds later the daemon goes on with no partitions,
which looks as if it were a member too many. Only an answer with nothing in it was watched, and there was no answer.

Of its class: what a client library does not say. `tests/integration/test_chain.py` met it; the clients' fakes in
`tests/unit/test_kafka_source.py` should have had a join that hangs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from cachelib.errors import StoreError
from invalidator.config import load
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.settings import LogSettings
from invalidator.sources.kafka_places import Mark, Part
from invalidator.sources.kafka_puller import Puller

PART = Part("t", 0)


class Nothing:
    def marks(self, parts: Collection[Part]) -> Mapping[Part, Mark]:
        return {}

    def settled(self, parts: Collection[Part]) -> bool:
        return True


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def puller(clock: list[float]) -> Puller:
    source = load(None, {}, {"kafka_source": {"topics": ["t"]}}).kafka_source

    def build(group: str = "") -> Any:
        raise AssertionError("no client is needed")

    return Puller(build, "g", source, Nothing(), Metrics(), open_log(LogSettings(level="error")), lambda: clock[0])


def test_a_join_that_does_not_end_is_given_up(puller: Puller, clock: list[float]) -> None:
    client: Any = None
    puller.member.given([PART])
    puller.member.taken([PART], lost=False)
    puller._mind_emptiness(client, puller.member)
    clock[0] += 60
    with pytest.raises(StoreError, match="has not ended"):
        puller._mind_emptiness(client, puller.member)


def test_a_member_whose_join_does_not_end_is_not_ready(puller: Puller, clock: list[float]) -> None:
    member = puller.member
    member.given([PART])
    before = member.number
    assert member.joined
    member.taken([PART], lost=False)
    clock[0] += 5
    assert member.number > before
    assert not member.joined
