"""Records into one topic of Kafka, and the certainty that they are there.

Production is idempotent and waits for all replicas. After any failure the client is thrown away: what it may still
have under way is over by then, and a new one knows nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cachelib.errors import CacheError, ConfigError
from invalidator.logs import Log
from invalidator.settings import KafkaSettings, KafkaSourceSettings
from invalidator.sources.kafka_login import check_login, password
from invalidator.sources.kafka_logs import ClientLogs, blames_settings
from invalidator.sources.kafka_python_client import kafka_python, options
from invalidator.sources.kafka_python_connect import built

_SEND_S = 10.0
"""After so long a record that is not acknowledged has failed."""
_MARGIN_S = 5.0
_LEAST_S = 0.01
_REQUEST_S = 8.0
_RECONNECT_MS = 1000
"""The library's own is half a minute, which a broker that is back would be waited for."""
_LINGER_MS = 2
_BATCH_BYTES = 256 * 1024
_METADATA_MS = 5_000
"""Partitions that were added are known after so long."""


class NotSent(CacheError):
    """Perhaps none, perhaps some of the records are in the topic; the same ones may be sent again."""


class TooLarge(NotSent):
    """The broker does not take a record as large as this one; `number` is its place among those sent."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record. `partition` None: by its key."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


class Producer:
    """Connects when first used. For one thread. Raises `ConfigError` for a wrong setting, `MissingExtra`."""

    def __init__(self, kafka: KafkaSettings, source: KafkaSourceSettings, topic: str, log: Log) -> None:
        if not kafka.bootstrap:
            raise ConfigError("no broker is given: set [kafka] bootstrap, INVALIDATOR_KAFKA__BOOTSTRAP or --kafka")
        check_login(kafka, source)
        self.topic = topic
        self._lib = kafka_python()
        self._options = options(kafka, source)
        self._login = kafka.security.startswith("SASL")
        self._client: Any = None
        taken = ClientLogs.of("kafka")  # by the client that reads, where it is of the same library
        self._logs = taken or ClientLogs(log, [password(kafka)])
        if taken is None:
            self._logs.attach("kafka")

    def partitions(self) -> int:
        """How many the topic has. Raises `NotSent`."""
        try:
            found = self._connected().partitions_for(self.topic)
        except (self._lib.errors.KafkaError, OSError) as error:
            raise self._failed(error) from error
        if not found:
            self._drop()
            raise NotSent(f"there is no topic {self.topic!r}")
        return len(found)

    def place(self, key: bytes, partitions: int) -> int:
        """The partition of a key, as Java's clients have it."""
        return int(self._lib.partitioner.default.murmur2(key) & 0x7FFFFFFF) % partitions

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send them and wait until all replicas have them. Raises `NotSent`."""
        try:
            client = self._connected()
            futures = [self._handed(client, number, record) for number, record in enumerate(records)]
            until_s = time.monotonic() + _SEND_S + _MARGIN_S
            for number, future in enumerate(futures):  # no flush(): it fails where a batch was split for its size
                self._acknowledged(future, number, max(_LEAST_S, until_s - time.monotonic()))
        except (self._lib.errors.KafkaError, OSError) as error:
            raise self._failed(error) from error

    def _handed(self, client: Any, number: int, record: Outgoing) -> Any:
        try:
            return client.send(
                self.topic, record.value, record.key, list(record.headers), record.partition, record.timestamp_ms
            )
        except self._lib.errors.MessageSizeTooLargeError as error:
            raise self._too_large(number, error) from error
        except ValueError as error:  # the topic was created again, with fewer partitions
            raise self._failed(error) from error

    def _acknowledged(self, future: Any, number: int, timeout_s: float) -> None:
        try:
            future.get(timeout_s)
        except self._lib.errors.MessageSizeTooLargeError as error:
            raise self._too_large(number, error) from error

    def _too_large(self, number: int, error: Exception) -> TooLarge:
        self._drop()
        return TooLarge(f"topic {self.topic!r} does not take a record: {error}", number)

    def _failed(self, error: Exception) -> NotSent:
        self._drop()
        return NotSent(f"topic {self.topic!r}: {type(error).__name__}: {error}")

    def _connected(self) -> Any:
        if self._client is None:
            given = self._options | {
                "acks": "all",
                "enable_idempotence": True,
                "allow_auto_create_topics": False,
                "delivery_timeout_ms": int(_SEND_S * 1000),
                "request_timeout_ms": int(_REQUEST_S * 1000),
                "max_block_ms": int(_REQUEST_S * 1000),
                "reconnect_backoff_max_ms": _RECONNECT_MS,
                "linger_ms": _LINGER_MS,
                "batch_size": _BATCH_BYTES,
                "metadata_max_age_ms": _METADATA_MS,
            }
            try:
                self._client = built(self._lib.KafkaProducer, **given)
            except self._lib.errors.KafkaConfigurationError as error:
                raise ConfigError(f"kafka-python does not take these settings: {error}") from error
        return self._client

    def create_topic(self, partitions: int, replicas: int) -> bool:
        """Create it where it is missing; whether it was. With 0 partitions it must be there: else `ConfigError`.

        Raises `NotSent`.
        """
        errors = self._lib.errors
        self._logs.forget()
        try:
            admin = built(self._lib.admin.KafkaAdminClient, **self._options)
            try:
                if self.topic in admin.list_topics():
                    return False
                if not partitions:
                    raise ConfigError(f"there is no topic {self.topic!r}: create it, or set relay.partitions")
                topic = self._lib.admin.NewTopic(self.topic, partitions, replicas or -1)
                admin.create_topics([topic], timeout_ms=int(_SEND_S * 1000), wait_for_metadata=True)
            finally:
                admin.close()
        except errors.TopicAlreadyExistsError:
            return False
        except errors.KafkaConfigurationError as error:
            raise ConfigError(f"kafka-python does not take these settings: {error}") from error
        except (errors.KafkaError, OSError) as error:
            reason = self._logs.reason(login=self._login) or f"{type(error).__name__}: {error}"
            kind = ConfigError if blames_settings(reason) else NotSent
            raise kind(f"topic {self.topic!r} is not reached: {reason}") from error
        return True

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close(1.0)
            except self._lib.errors.KafkaError:
                pass  # it could not send what it had: that is known

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
