"""Names of partitions, positions in them, and what is kept beside a committed offset. Pure.

A position is the next offset to read, padded so that it sorts, and behind it the topic's identity:
a topic that was deleted and created again has the same name and offsets that mean something else.
`sources.base.log_of` tells the identity, and whoever compares positions compares those of one log only.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from invalidator.sources.base import LOG_MARK, log_of

NODES_MAX = 300
"""So many nodes are named beside a committed offset: brokers take 4096 bytes. The others count as not counted,
which is safe: a node that lost its own position is made void then."""
_LABEL_MAX = 128
_FORMAT = 1


class Part(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


def label(part: Part) -> str:
    """The partition's name on nodes, in logs and in metrics. A long one is cut: memcached takes 250 bytes."""
    text = f"{part.topic}-{part.number}"
    if len(text) <= _LABEL_MAX:
        return text
    return f"{text[: _LABEL_MAX - 40]}.{blake2b(text.encode(), digest_size=12).hexdigest()}-{part.number}"


def place(offset: int, topic_id: str) -> str:
    """The position at which this offset is read next."""
    return f"{offset:020d}{LOG_MARK}{topic_id}"


def offset_of(position: str) -> int:
    """The next offset to read; "" is before everything."""
    return int(position.partition(LOG_MARK)[0] or 0)


def identity(topic_id: str | uuid.UUID | None) -> str:
    """A topic's id in Kafka's own short form; "" where the brokers are too old to have them."""
    if not topic_id:
        return ""
    if isinstance(topic_id, str) and len(topic_id) != 36:
        return topic_id  # it is short already
    plain = topic_id if isinstance(topic_id, uuid.UUID) else uuid.UUID(topic_id)
    return base64.urlsafe_b64encode(plain.bytes).decode().rstrip("=") if plain.int else ""


# --- beside the committed offset -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """What is committed for a partition: the next offset, of which topic, and done for whom."""

    offset: int
    topic_id: str
    nodes: frozenset[str]
    """Digests of the nodes that counted."""

    @property
    def position(self) -> str:
        """As a position."""
        return place(self.offset, self.topic_id)


def digest(node: str) -> str:
    """A node's name in eight letters."""
    return base64.urlsafe_b64encode(blake2b(node.encode(), digest_size=6).digest()).decode()


def mark(position: str, counted: Collection[str]) -> Mark:
    """What to commit for a position."""
    return Mark(offset_of(position), log_of(position), frozenset(map(digest, sorted(counted)[:NODES_MAX])))


def encode_mark(made: Mark) -> str:
    """The text beside the offset."""
    return json.dumps({"format": _FORMAT, "topic": made.topic_id, "nodes": sorted(made.nodes)}, separators=(",", ":"))


def decode_mark(offset: int, metadata: str) -> Mark | None:
    """None for a commit that is not ours: of such an offset nobody knows of which topic it was."""
    try:
        plain = json.loads(metadata)
        if plain["format"] != _FORMAT:
            return None
        return Mark(offset, str(plain["topic"]), frozenset(map(str, plain["nodes"])))
    except (ValueError, KeyError, TypeError):
        return None
