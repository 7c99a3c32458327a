"""Questions about the log: where it begins and ends, what is committed, which topics there are.

A client of its own answers them, so that they wait for no poll and no rebalance. Any thread may ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from cachelib.errors import CacheError, ConfigError, StoreError
from invalidator.settings import KafkaSourceSettings
from invalidator.sources.base import Positions
from invalidator.sources.kafka_client import Build, KafkaClient, Topic
from invalidator.sources.kafka_places import Mark, Part, decode_mark, label, offset_of, place

T = TypeVar("T")
_CLOSE_S = 1.0


class Side:
    """Every method raises `StoreError` where no broker answers; then the next call connects anew.

    `ConfigError` where the settings are to blame, until it has connected once.
    """

    def __init__(self, build: Build, source: KafkaSourceSettings, group: str) -> None:
        self._build = build
        self._source = source
        self._group = group
        self._client: KafkaClient | None = None
        self._lock = threading.Lock()
        self._has_connected = False
        self.sizes: Mapping[str, int] = {}
        """How many partitions each topic had when that was last asked for."""

    def topics(self) -> Mapping[str, Topic]:
        """Those that exist of the ones that are read."""
        found = self._ask("asking for the topics", lambda c, wait_s: c.topics(self._source.topics, wait_s))
        self.sizes = {name: topic.partitions for name, topic in found.items()}
        return found

    def every(self) -> frozenset[Part]:
        """All partitions of all topics."""
        sizes = ((name, topic.partitions) for name, topic in self.topics().items())
        return frozenset(Part(name, number) for name, size in sizes for number in range(size))

    def check_topics(self) -> None:
        """Raise `ConfigError` where one that is to be read is missing."""
        found = self.topics()
        missing = [topic for topic in self._source.topics if topic not in found]
        if missing:
            raise ConfigError(
                f"Kafka has no topic {', '.join(map(repr, missing))} (or does not show it to this user):"
                " see kafka_source.topics, or create it"
            )

    def ends(self, parts: Collection[Part]) -> Mapping[Part, int]:
        """Behind what is committed."""
        return self._ask("asking where the log ends", lambda c, wait_s: c.ends(parts, wait_s))

    def places(self, parts: Collection[Part], which: Callable[[KafkaClient, float], Mapping[Part, int]]) -> Positions:
        """Offsets as positions. Topics are asked for first: one that is replaced in between is noticed later."""
        ids = {name: topic.topic_id for name, topic in self.topics().items()}
        offsets = self._ask("asking for offsets", which)
        gone = {part.topic for part in parts if part.topic not in ids or part not in offsets}
        if gone:
            raise StoreError(f"Kafka does not have (all of) the topic {', '.join(sorted(gone))} now")
        return {label(part): place(offsets[part], ids[part.topic]) for part in parts}

    def start(self, parts: Collection[Part]) -> Positions:
        """Where the log begins."""
        return self.places(parts, lambda c, wait_s: c.begins(parts, wait_s))

    def end(self, parts: Collection[Part]) -> Positions:
        """Where the log ends."""
        return self.places(parts, lambda c, wait_s: c.ends(parts, wait_s))

    def at(self, parts: Collection[Part], time_us: int) -> Positions:
        """Where the log was at this time."""
        return self.places(parts, lambda c, wait_s: c.at(parts, time_us // 1000, wait_s))

    def marks(self, parts: Collection[Part]) -> Mapping[Part, Mark]:
        """What is committed for these, of topics that still are the same.

        A partition of a topic that has marks, but none itself, was added: all of it is new.
        """
        topics = self.topics()
        every = {Part(name, number) for name, topic in topics.items() for number in range(topic.partitions)}
        asked = every & ({sibling for part in parts for sibling in every if sibling.topic == part.topic})
        committed = self._ask("asking for committed offsets", lambda c, wait_s: c.committed(asked, wait_s))
        decoded = {part: decode_mark(*at) for part, at in committed.items()}
        ours = {
            part: found
            for part, found in decoded.items()
            if found is not None and found.topic_id == topics[part.topic].topic_id
        }
        known = {part.topic for part in ours}
        nodes = {topic: [one.nodes for part, one in ours.items() if part.topic == topic] for topic in known}
        added = {
            part: Mark(0, topics[part.topic].topic_id, frozenset.intersection(*nodes[part.topic]))
            for part in parts
            if part.topic in known and part not in committed and part in every
        }
        return {part: at for part, at in (ours | added).items() if part in parts}

    def replaced(self, positions: Positions, parts: Collection[Part]) -> str:
        """Which topic is no longer the one that these positions are of; "" for none. Unknown is not replaced."""
        topics = self.topics()
        for part in parts:
            at, topic = positions.get(label(part)), topics.get(part.topic)
            if at and topic is not None and at != place(offset_of(at), topic.topic_id):
                return part.topic
        return ""

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            discard(client).join(2 * _CLOSE_S)

    def _ask(self, what: str, question: Callable[[KafkaClient, float], T]) -> T:
        with self._lock:
            try:
                if self._client is None:
                    self._client = self._build(self._group)
                    self._has_connected = True
                return question(self._client, self._source.request_s)
            except ConfigError as error:
                self._drop()
                if self._has_connected:  # with the same settings: so it is a broker's trouble, and tried again
                    raise StoreError(str(error)) from error
                raise
            except CacheError:
                self._drop()
                raise
            except Exception as error:  # a library's own errors are many; which it was, the text says
                self._drop()
                raise StoreError(f"{what} in Kafka failed: {type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            discard(client)


def discard(client: KafkaClient) -> threading.Thread:
    """Close it elsewhere, in the thread returned: closing may hang, and raises what nobody asks for."""

    def close() -> None:
        try:
            client.close(_CLOSE_S)
        except Exception:  # noqa: BLE001 - it is given up in any case
            pass

    closing = threading.Thread(target=close, name="kafka close", daemon=True)
    closing.start()
    return closing
