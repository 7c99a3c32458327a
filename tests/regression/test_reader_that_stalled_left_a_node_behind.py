"""A node that read the log by itself stayed behind for ever where its client stalled; and one gap was told twice.

Order of events, of the first: a node is behind, and has a reader of its own · its client stalls without an error, as
those of the group were seen to · only the group's client is looked after, so nobody builds another one.

Of the second: a topic is created again · the watch reads how far we are, and asks for the topics · meanwhile the
client has told the gap, everything has new epochs, and reading goes on in the new topic · the watch compares what it
read before, and tells the gap again: everything begins anew once more.

Of their class: `test_no_progress_though_there_is_more_means_another_client`, for readers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from invalidator.metrics import Metrics
from invalidator.sources.kafka import KafkaSource
from invalidator.sources.kafka_places import Part, place
from invalidator.sources.kafka_reader import KafkaReader
from invalidator.sources.kafka_watch import Watch
from tests.unit.test_kafka_source import LOG, P0, Clock, FakeKafka, settings


def test_reader_whose_client_stalls_builds_another_one() -> None:
    kafka, clock = FakeKafka(), Clock()
    source = KafkaSource(settings(), kafka.build, Metrics(), LOG)
    source._parts = frozenset([P0])
    reader = KafkaReader(source, kafka.build, source._new_records(), lambda: [P0], 10.0, clock)
    reader.seek(source.start())
    builds = []
    for more in (0, 5):  # an idle log, and one that has more
        kafka.end = more
        reader.poll(1, 0.0)
        builds.append(len(kafka.clients))
        for _ in range(3):
            clock.now_s += 5
            reader.poll(1, 0.0)
    reader.poll(1, 0.0)
    assert builds[0] == builds[1]
    assert len(kafka.clients) > builds[1]
    assert kafka.clients[-1].sought == {P0: 0}


class Member:
    def __init__(self) -> None:
        self.gaps: list[str] = []

    def missed(self, why: str) -> None:
        self.gaps.append(why)


class Replaced:
    """The topic is another one; `meanwhile` is what happens while that is asked for."""

    def __init__(self, at: dict[Part, str], meanwhile: Mapping[Part, str]) -> None:
        self.member, self._at, self._meanwhile = Member(), at, meanwhile

    def replaced(self, positions: Mapping[str, str], parts: Collection[Part]) -> str:
        self._at |= self._meanwhile
        return "t"


def looked(meanwhile: Mapping[Part, str]) -> int:
    """How many gaps the watch tells."""
    at = {P0: place(7, "old")}
    both = Replaced(at, meanwhile)
    watch = Watch(both, both, settings().kafka_source, lambda: dict(at), Metrics(), LOG)  # type: ignore[arg-type]
    watch.look()
    return len(both.member.gaps)


def test_gap_that_was_answered_while_the_watch_asked_is_not_told_again() -> None:
    assert looked({}) == 1
    assert looked({P0: place(0, "new")}) == 0
