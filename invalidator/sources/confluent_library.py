"""confluent-kafka itself: whether it is there, how it is to read, and what its errors say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cachelib.errors import MissingExtra
from invalidator.settings import KafkaSourceSettings
from invalidator.sources.kafka_client import HEARTBEAT_S, JOIN_S, Topic
from invalidator.sources.kafka_places import identity

_QUEUED_KB = 65_536
"""What is fetched ahead at most, of all partitions together."""


def confluent() -> Any:
    """The library. Raises `MissingExtra`."""
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        raise MissingExtra("kafka_source.client = confluent needs: pip install 'leasecache[confluent]'") from error
    return confluent_kafka


def reading(source: KafkaSourceSettings, group: str) -> dict[str, Any]:
    """Options of a consumer, but for the login."""
    found: dict[str, Any] = {
        "group.id": group or "-",  # it insists on one, and does not join it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        "enable.partition.eof": True,  # the only word about offsets that no record stands for
        "partition.assignment.strategy": "cooperative-sticky" if source.assignment == "cooperative" else "range",
        "session.timeout.ms": int(source.session_s * 1000),
        "heartbeat.interval.ms": int(min(HEARTBEAT_S, source.session_s / 4) * 1000),
        "max.poll.interval.ms": int(max(JOIN_S, source.session_s) * 1000),
        "topic.metadata.refresh.interval.ms": int(source.metadata_s * 1000),
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        "max.partition.fetch.bytes": source.fetch_bytes,
        "queued.max.messages.kbytes": _QUEUED_KB,
        "reconnect.backoff.max.ms": 2000,
        "socket.timeout.ms": int(source.request_s * 1000),
    }
    return found | ({"group.instance.id": source.instance} if group and source.instance else {})


def described(admin: Any, names: Collection[str], timeout_s: float) -> Mapping[str, Topic]:
    """The topics that exist; asking creates none."""
    library = confluent()
    asked = admin.describe_topics(library.TopicCollection(list(names)), request_timeout=timeout_s)
    found = {}
    for name, future in asked.items():
        try:
            one = future.result(timeout_s)
        except library.KafkaException as error:
            if error.args[0].code() != library.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        else:
            found[name] = Topic(identity(str(one.topic_id)), len(one.partitions))
    return found


def said(error: Any) -> str:
    """The text of one."""
    first = error.args[0] if error.args else error
    return str(first.str() if hasattr(first, "str") else first)
