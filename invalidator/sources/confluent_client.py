"""`KafkaClient` on confluent-kafka (librdkafka), the client that the extra `confluent` brings.

It is faster, and knows the newer group protocol; what was seen of it on real brokers stands beside the lines
that heed it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from cachelib.errors import ConfigError, StoreError
from invalidator.settings import KafkaSettings, KafkaSourceSettings
from invalidator.sources.base import Record
from invalidator.sources.confluent_library import confluent, described, reading, said
from invalidator.sources.kafka_client import Done, Membership, OutOfRange, Topic
from invalidator.sources.kafka_login import for_librdkafka, token
from invalidator.sources.kafka_logs import ClientLogs, blames_settings
from invalidator.sources.kafka_places import Mark, Part, encode_mark

T = TypeVar("T")
_LOOK_S = 0.01
_TOKEN_S = 300.0


class ConfluentClient:
    """See `KafkaClient`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        source: KafkaSourceSettings,
        logs: ClientLogs,
        logger: logging.Logger,
        group: str = "",
    ) -> None:
        self._lib = confluent()
        self._source = source
        self._logs = logs
        self._login = for_librdkafka(kafka, source)
        if self._login.get("sasl.mechanism") == "OAUTHBEARER":
            self._login["oauth_cb"] = lambda _: (token(source), time.time() + _TOKEN_S)
        self._sasl = kafka.security.startswith("SASL")
        self._admin: Any = None
        self._sought: dict[Part, int] = {}
        self._paused = False
        self._assigned: set[Part] = set()
        self._waiting: deque[Done] = deque()
        self._logger = logger
        logs.forget()
        self._consumer = self._made(lambda: self._lib.Consumer(self._options(group), logger=logger))
        self._wait_for_a_broker()

    def _made(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except self._lib.KafkaException as error:
            raise ConfigError(f"confluent-kafka does not take these settings: {said(error)}") from error

    def _options(self, group: str) -> dict[str, Any]:
        return {**self._login, **reading(self._source, group), "error_cb": self._heard, "on_commit": self._saved}

    def _heard(self, error: Any) -> None:
        self._logs.keep(f"{error.name()}: {error.str()}")

    def _wait_for_a_broker(self) -> None:
        """Connecting raises nothing; a wrong password shows only in the callback, which a call serves."""
        deadline_s = time.monotonic() + self._source.connect_s
        while True:
            try:
                self._consumer.list_topics(topic=self._source.topics[0], timeout=0.5)
                return
            except self._lib.KafkaException as error:
                self._consumer.poll(0)  # serves the callback
                reason = self._logs.reason(login=self._sasl)
                if blames_settings(reason) or time.monotonic() >= deadline_s:
                    self._consumer.close()
                    kind = ConfigError if blames_settings(reason) else StoreError
                    where = self._login["bootstrap.servers"]
                    raise kind(f"no Kafka broker answers at {where}: {reason or said(error)}") from error

    # --- the group ---------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], membership: Membership) -> None:
        """See `KafkaClient.subscribe`."""
        self._subscription = list(topics), membership
        self._subscribe()

    def _subscribe(self) -> None:
        topics, membership = self._subscription

        def assigned(_: Any, parts: Sequence[Any]) -> None:
            self._hold(_plain(parts), incremental=self._source.assignment == "cooperative")
            membership.given(_plain(parts))

        def revoked(_: Any, parts: Sequence[Any]) -> None:
            self._flush(membership, _plain(parts))
            marks = membership.taken(_plain(parts), lost=False)
            if marks:
                # Asynchronously: the other way has no limit, and took eleven seconds while a broker was down.
                self.commit(marks, lambda _: None)
            self._let_go(parts)

        def lost(_: Any, parts: Sequence[Any]) -> None:
            membership.taken(_plain(parts), lost=True)
            self._let_go(parts)

        self._consumer.subscribe(topics, on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def _flush(self, membership: Membership, parts: Sequence[Part]) -> None:
        # librdkafka sends heartbeats from a thread of its own, so waiting here starves nobody.
        for _ in range(int(self._source.flush_s / _LOOK_S)):
            if membership.settled(parts):
                return
            time.sleep(_LOOK_S)

    def _hold(self, parts: Collection[Part], *, incremental: bool) -> None:
        """Take partitions, and fetch nothing of them before somebody says from where."""
        named = [self._lib.TopicPartition(*part, 0) for part in parts]
        if incremental:
            self._consumer.incremental_assign(named)
        else:
            self._consumer.assign(named)
            self._assigned.clear()
        if named:
            self._consumer.pause(named)
        self._assigned |= set(parts)

    def _let_go(self, parts: Sequence[Any]) -> None:
        if self._source.assignment == "cooperative":
            self._consumer.incremental_unassign(parts)
        else:
            self._consumer.unassign()
        for part in _plain(parts):
            self._assigned.discard(part)
            self._sought.pop(part, None)

    def rejoin(self) -> None:
        """See `KafkaClient.rejoin`."""
        self._consumer.unsubscribe()
        self._subscribe()

    def assign(self, parts: Collection[Part]) -> None:
        """See `KafkaClient.assign`."""
        self._sought = {}
        self._hold(parts, incremental=False)

    # --- reading -----------------------------------------------------------------------------

    def poll(self, records_max: int, timeout_s: float) -> Sequence[Record]:
        """See `KafkaClient.poll`."""
        # `consume` with a timeout waits until it is full: one message is waited for, the others are taken as they are.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return ()
        messages = [first, *self._consumer.consume(records_max - 1, 0)]
        found: list[Record] = []
        missed: dict[Part, str] = {}
        for message in messages:
            part = Part(message.topic(), message.partition())
            if message.error() is not None:
                self._complained(part, message, missed)
            elif part in self._sought and message.offset() >= self._sought[part]:
                self._sought[part] = message.offset() + 1
                found.append(_record(message))
        if missed:
            # Records of other partitions that came with it are asked for again by whoever answers the gap.
            raise OutOfRange(missed.keys(), "; ".join(missed.values()))
        return found

    def _complained(self, part: Part, message: Any, missed: dict[Part, str]) -> None:
        error, codes = message.error(), self._lib.KafkaError
        if error.code() == codes._PARTITION_EOF:
            if part in self._sought:
                self._sought[part] = max(self._sought[part], message.offset())
        elif error.code() in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE, codes._LOG_TRUNCATION):
            missed[part] = f"{part.topic}-{part.number}: {error.str()}"
        elif error.fatal() or not error.retriable():
            raise StoreError(f"Kafka fails: {error.name()}: {error.str()}")

    def positions(self) -> Mapping[Part, int]:
        """See `KafkaClient.positions`."""
        return dict(self._sought)

    def seek(self, offsets: Mapping[Part, int]) -> None:
        """See `KafkaClient.seek`."""
        mine = {part: offset for part, offset in offsets.items() if part in self._assigned}
        if not mine:
            return
        named = [self._lib.TopicPartition(*part, offset) for part, offset in mine.items()]
        # Not `seek`, which fails in a partition that has reported an error, or whose fetching has not begun.
        if self._source.assignment == "cooperative":
            self._consumer.incremental_unassign(named)
            self._consumer.incremental_assign(named)
        else:
            others = [self._lib.TopicPartition(*part, self._sought.get(part, 0)) for part in self._assigned - set(mine)]
            self._consumer.assign([*named, *others])
            self._consumer.pause([one for one in others if Part(one.topic, one.partition) not in self._sought])
        self._sought |= mine
        if self._paused:
            self._consumer.pause(self._named(self._assigned))
        else:
            self._consumer.resume(self._named(mine))

    def _named(self, parts: Collection[Part]) -> list[Any]:
        return [self._lib.TopicPartition(*part) for part in parts]

    def pause(self) -> None:
        """See `KafkaClient.pause`."""
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._named(self._assigned))

    def resume(self) -> None:
        """See `KafkaClient.resume`."""
        if self._paused:
            self._paused = False
            self._consumer.resume(self._named(self._sought))

    # --- offsets -----------------------------------------------------------------------------

    def commit(self, marks: Mapping[Part, Mark], done: Done) -> None:
        """See `KafkaClient.commit`."""
        self._consumer.commit(offsets=self._offsets(marks), asynchronous=True)
        self._waiting.append(done)  # one that raises gets no answer; the others' come in a poll, never in this call

    def _saved(self, error: Any, parts: Sequence[Any]) -> None:
        """Answers come in the order of the requests."""
        if self._waiting:
            done = self._waiting.popleft()
            worst = error or next((one.error for one in parts if one.error is not None), None)
            done("" if worst is None or worst.code() == self._lib.KafkaError._NO_OFFSET else worst.str())

    def _offsets(self, marks: Mapping[Part, Mark]) -> list[Any]:
        return [
            self._lib.TopicPartition(part.topic, part.number, at.offset, encode_mark(at)) for part, at in marks.items()
        ]

    def committed(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, tuple[int, str]]:
        """See `KafkaClient.committed`."""
        found = self._consumer.committed(self._named(parts), timeout=timeout_s) if parts else []
        return {Part(at.topic, at.partition): (at.offset, at.metadata or "") for at in found if at.offset >= 0}

    def begins(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        """See `KafkaClient.begins`."""
        return {part: self._watermarks(part, timeout_s)[0] for part in parts}

    def _watermarks(self, part: Part, timeout_s: float) -> tuple[int, int]:
        found = self._consumer.get_watermark_offsets(self._lib.TopicPartition(*part), timeout=timeout_s)
        if found is None:
            raise StoreError(f"Kafka did not say where {part.topic}-{part.number} ends")
        return int(found[0]), int(found[1])

    def ends(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        """See `KafkaClient.ends`."""
        return {part: self._watermarks(part, timeout_s)[1] for part in parts}

    def at(self, parts: Collection[Part], time_ms: int, timeout_s: float) -> Mapping[Part, int]:
        """See `KafkaClient.at`."""
        asked = [self._lib.TopicPartition(*part, time_ms) for part in parts]
        found = self._consumer.offsets_for_times(asked, timeout=timeout_s) if asked else []
        late = [Part(at.topic, at.partition) for at in found if at.offset < 0]
        known = {Part(at.topic, at.partition): int(at.offset) for at in found if at.offset >= 0}
        return known | dict(self.ends(late, timeout_s))

    def topics(self, names: Collection[str], timeout_s: float) -> Mapping[str, Topic]:
        """See `KafkaClient.topics`."""
        if self._admin is None:
            self._admin = self._lib.admin.AdminClient({**self._login, "error_cb": self._heard}, logger=self._logger)
        return described(self._admin, names, timeout_s)

    def close(self, timeout_s: float) -> None:
        """See `KafkaClient.close`."""
        self._consumer.close()


def _record(message: Any) -> Record:
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers() or (),
    )


def _plain(parts: Sequence[Any]) -> list[Part]:
    return [Part(at.topic, at.partition) for at in parts]
