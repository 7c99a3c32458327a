"""`KafkaClient` on kafka-python 3, the client that the extra `kafka` brings.

What was seen of it on real brokers stands beside the lines that heed it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from cachelib.errors import ConfigError, MissingExtra, StoreError
from invalidator.settings import KafkaSettings, KafkaSourceSettings
from invalidator.sources.base import Record
from invalidator.sources.kafka_client import HEARTBEAT_S, JOIN_S, Done, Membership, OutOfRange, Topic
from invalidator.sources.kafka_login import for_kafka_python, token
from invalidator.sources.kafka_logs import ClientLogs, blames_settings
from invalidator.sources.kafka_places import Mark, Part, encode_mark, identity
from invalidator.sources.kafka_python_connect import built, tries_s
from invalidator.sources.kafka_python_listener import LOOK_S, listener, mind_the_heartbeat, mind_the_join, parts_of

_FETCH_TOTAL = 8
"""All partitions together are fetched at most so many times `fetch_bytes` at once."""


def kafka_python() -> Any:
    """The library. Raises `MissingExtra`."""
    try:
        with warnings.catch_warnings():
            # It reads its own files by functions that Python 3.11 calls deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            import kafka
            import kafka.admin
            import kafka.coordinator.assignors.cooperative_sticky
            import kafka.net.sasl.oauth
    except ImportError as error:
        raise MissingExtra("the source kafka needs kafka-python: pip install 'leasecache[kafka]'") from error
    return kafka


def checksums_are_fast() -> bool:
    """Without crc32c, Python code computes them: a tenth of the throughput."""
    try:
        import crc32c  # noqa: F401 - asked for, not used
    except ImportError:
        return False
    return True


def options(kafka: KafkaSettings, source: KafkaSourceSettings) -> dict[str, Any]:
    """Of consumers and administrators alike."""
    found = for_kafka_python(kafka, source)
    if found.get("sasl_mechanism") == "OAUTHBEARER":
        found["sasl_oauth_token_provider"] = _token_provider(source)
    milliseconds = {"bootstrap_timeout_ms": source.connect_s, "request_timeout_ms": source.request_s}
    return found | {name: int(seconds * 1000) for name, seconds in milliseconds.items()}


def _token_provider(source: KafkaSourceSettings) -> Any:
    class FromFile(kafka_python().net.sasl.oauth.AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            return token(source)

    return FromFile()


class KafkaPythonClient:
    """See `KafkaClient`."""

    def __init__(self, kafka: KafkaSettings, source: KafkaSourceSettings, logs: ClientLogs, group: str = "") -> None:
        self._lib = kafka_python()
        self._source = source
        self._options = options(kafka, source)
        self._logs = logs
        self._login = kafka.security.startswith("SASL")
        self._admin: Any = None
        self._sought: dict[Part, int] = {}
        self._paused = False
        self._subscription: tuple[list[str], Membership] | None = None
        self._consumer = self._connected(self._lib.KafkaConsumer, **self._reading(group))
        mind_the_heartbeat(self._consumer._coordinator)

    def _connected(self, make: Callable[..., Any], **more: Any) -> Any:
        errors, reason = self._lib.errors, ""
        for seconds in tries_s(self._source.connect_s):
            self._logs.forget()
            try:
                return built(make, **self._options | {"bootstrap_timeout_ms": int(seconds * 1000)}, **more)
            except errors.KafkaConfigurationError as error:
                raise ConfigError(f"kafka-python does not take these settings: {error}") from error
            except (errors.KafkaError, OSError, ValueError) as error:  # OSError: a certificate's file
                reason = self._logs.reason(login=self._login) or type(error).__name__
                if blames_settings(reason):
                    break
        kind = ConfigError if blames_settings(reason) else StoreError
        raise kind(f"no Kafka broker answers at {', '.join(self._options['bootstrap_servers'])}: {reason}")

    def _reading(self, group: str) -> dict[str, Any]:
        source = self._source
        assignors = self._lib.coordinator.assignors
        cooperative = source.assignment == "cooperative"
        strategy = (
            assignors.cooperative_sticky.CooperativeStickyAssignor
            if cooperative
            else assignors.range.RangePartitionAssignor
        )
        found: dict[str, Any] = {
            "group_id": group or None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,  # or asking for a deleted topic creates it again
            "partition_assignment_strategy": [strategy],
            "session_timeout_ms": int(source.session_s * 1000),
            "heartbeat_interval_ms": int(min(HEARTBEAT_S, source.session_s / 4) * 1000),
            "max_poll_interval_ms": int(max(JOIN_S, source.session_s) * 1000),
            "metadata_max_age_ms": int(source.metadata_s * 1000),
            "fetch_max_wait_ms": 100,
            "max_partition_fetch_bytes": source.fetch_bytes,
            "fetch_max_bytes": source.fetch_bytes * _FETCH_TOTAL,
            "reconnect_backoff_max_ms": 2000,
            "metrics_enabled": False,
        }
        return found | ({"group_instance_id": source.instance} if group and source.instance else {})

    # --- the group ---------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], membership: Membership) -> None:
        """See `KafkaClient.subscribe`."""
        # Metadata first: a leader that knows none gives everybody nothing, and under load stays with that.
        for topic in topics:
            self._consumer.partitions_for_topic(topic)
        self._subscription = list(topics), membership
        self._subscribe()

    def _subscribe(self) -> None:
        assert self._subscription is not None, "subscribe() comes first"
        topics, membership = self._subscription
        self._consumer.subscribe(topics, listener=listener(self, membership, self._source.flush_s))

    def rejoin(self) -> None:
        """See `KafkaClient.rejoin`."""
        self._consumer.unsubscribe()
        self._subscribe()

    def given(self, parts: Collection[Part]) -> None:
        """Take what the group gives, and hold it: without a position it would raise, for all partitions."""
        for part in parts:
            at = self._lib.TopicPartition(*part)
            self._consumer.seek(at, 0)
            self._consumer.pause(at)

    def taken(self, parts: Collection[Part]) -> None:
        """Forget what the group takes."""
        for part in parts:
            self._sought.pop(part, None)

    async def saved(self, marks: Mapping[Part, Mark]) -> None:
        """Commit from within a rebalance, where nothing may block, and nothing may be raised: a listener that
        raises leaves the client half open. Without the commit, more is read again by whoever comes next.
        """
        try:
            if marks:
                await self._consumer.commit_async(self._offsets(marks))
        except Exception as error:  # noqa: BLE001 - see above; the topic may be gone
            self._logs.keep(f"a commit in a rebalance failed: {error}")

    async def pause_briefly(self) -> None:
        """Let the loop go on with its heartbeats."""
        await self._consumer._net.sleep(LOOK_S)

    def assign(self, parts: Collection[Part]) -> None:
        """See `KafkaClient.assign`."""
        self._sought = {}
        self._consumer.assign([self._lib.TopicPartition(*part) for part in parts])
        self.given(parts)

    # --- reading -----------------------------------------------------------------------------

    def poll(self, records_max: int, timeout_s: float) -> Sequence[Record]:
        """See `KafkaClient.poll`."""
        errors = self._lib.errors
        mind_the_join(self._consumer._coordinator)
        self._mind_silence()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=records_max)
        except (errors.OffsetOutOfRangeError, errors.NoOffsetForPartitionError, errors.LogTruncationError) as error:
            parts = parts_of(error) or frozenset(self._sought)
            # It raises again at each poll, and delivers nothing of others, until these are no longer asked for.
            self._consumer.pause(*(self._lib.TopicPartition(*part) for part in parts if part in self._sought))
            raise OutOfRange(parts, f"{type(error).__name__}: {error}") from error
        return [record for records in found.values() for record in records]

    def _mind_silence(self) -> None:
        """A cooperative member that is given nothing is not told so; that it has joined, its state tells."""
        if self._subscription is None or self._source.assignment != "cooperative":
            return
        membership = self._subscription[1]
        if membership.waits() and "stable" in str(self._consumer.group_metadata().state):
            membership.given(())

    def positions(self) -> Mapping[Part, int]:
        """See `KafkaClient.positions`."""
        assigned = self._consumer._subscription.assignment  # `position()` would look for truncation each time
        found = {}
        for part in list(self._sought):
            state = assigned.get(self._lib.TopicPartition(*part))
            if state is not None and state.position is not None:
                found[part] = state.position.offset
        return found

    def seek(self, offsets: Mapping[Part, int]) -> None:
        """See `KafkaClient.seek`."""
        for part, offset in offsets.items():
            at = self._lib.TopicPartition(*part)
            if at in self._consumer.assignment():
                self._consumer.seek(at, offset)
                self._sought[part] = offset
                if not self._paused:
                    self._consumer.resume(at)

    def pause(self) -> None:
        """See `KafkaClient.pause`."""
        if not self._paused:
            self._paused = True
            self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """See `KafkaClient.resume`."""
        if self._paused:
            self._paused = False
            assigned = self._consumer.assignment()
            self._consumer.resume(*(at for at in assigned if Part(at.topic, at.partition) in self._sought))

    # --- offsets -----------------------------------------------------------------------------

    def commit(self, marks: Mapping[Part, Mark], done: Done) -> None:
        """See `KafkaClient.commit`."""
        self._consumer.commit_async(
            self._offsets(marks),
            callback=lambda _, said: done(f"{type(said).__name__}: {said}" if isinstance(said, Exception) else ""),
        )

    def _offsets(self, marks: Mapping[Part, Mark]) -> dict[Any, Any]:
        make = self._lib.structs.OffsetAndMetadata
        return {self._lib.TopicPartition(*part): make(at.offset, encode_mark(at), -1) for part, at in marks.items()}

    def committed(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, tuple[int, str]]:
        """See `KafkaClient.committed`."""
        found = {}
        for part in parts:
            at = self._consumer.committed(self._lib.TopicPartition(*part), metadata=True, timeout_ms=timeout_s * 1000)
            if at is not None and at.offset >= 0:
                found[part] = (int(at.offset), str(at.metadata or ""))
        return found

    def begins(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        """See `KafkaClient.begins`."""
        return self._asked(self._consumer.beginning_offsets, parts, timeout_s)

    def ends(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        """See `KafkaClient.ends`."""
        return self._asked(self._consumer.end_offsets, parts, timeout_s)

    def _asked(self, ask: Callable[..., Any], parts: Collection[Part], timeout_s: float) -> dict[Part, int]:
        if not parts:
            return {}
        found = ask([self._lib.TopicPartition(*part) for part in parts], timeout_ms=timeout_s * 1000)
        return {Part(at.topic, at.partition): int(offset) for at, offset in found.items()}

    def at(self, parts: Collection[Part], time_ms: int, timeout_s: float) -> Mapping[Part, int]:
        """See `KafkaClient.at`."""
        if not parts:
            return {}
        ends = dict(self.ends(parts, timeout_s))
        asked = {self._lib.TopicPartition(*part): time_ms for part in parts}
        found = self._consumer.offsets_for_times(asked, timeout_ms=timeout_s * 1000)
        return ends | {Part(at.topic, at.partition): int(one.offset) for at, one in found.items() if one is not None}

    def topics(self, names: Collection[str], timeout_s: float) -> Mapping[str, Topic]:
        """See `KafkaClient.topics`."""
        if self._admin is None:
            self._admin = self._connected(self._lib.admin.KafkaAdminClient)
        return {
            one["name"]: Topic(identity(one["topic_id"]), len(one["partitions"]))
            for one in self._admin.describe_topics(list(names))
            if one["error_code"] == 0
        }

    def close(self, timeout_s: float) -> None:
        """See `KafkaClient.close`."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=timeout_s * 1000)
        finally:
            self._consumer._client.close()  # where leaving the group failed, it still would have its threads
            if self._admin is not None:
                self._admin.close()
