"""What the source needs of a client library: bytes in, offsets out. Two libraries fulfil it.

A client belongs to one thread, and connects when it is built. It never seeks by itself, never commits
by itself and never falls back to the log's start or end: whatever it has been assigned stays paused until
`seek`. Whatever it raises besides the errors below means that it is broken: close it and build another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from invalidator.sources.base import Record
from invalidator.sources.kafka_places import Mark, Part

HEARTBEAT_S = 1.0
"""Also how long a member may take to hear that the group is shared out anew."""
JOIN_S = 30.0
"""So long the group waits for a member that does not join again, and nobody reads meanwhile."""

Done: TypeAlias = Callable[[str], None]
"""Called once with "" or with why it failed, from any thread."""


class OutOfRange(Exception):
    """The log does not have what these partitions ask for next. They deliver nothing until `seek`."""

    def __init__(self, parts: Collection[Part], why: str) -> None:
        super().__init__(why)
        self.parts = frozenset(parts)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers know it now."""

    topic_id: str
    partitions: int


class Membership(Protocol):
    """Who is told what the group gives and takes. Called from any thread of the client; never blocks."""

    def given(self, parts: Collection[Part]) -> None:
        """From now on it has these as well."""

    def settled(self, parts: Collection[Part]) -> bool:
        """Whether everything that was handed out of these is done."""

    def waits(self) -> bool:
        """Whether the group has not said yet what is read here."""

    def taken(self, parts: Collection[Part], *, lost: bool) -> Mapping[Part, Mark]:
        """From now on it no longer has these; what to commit for them, unless `lost`: then nobody would take it."""


class KafkaClient(Protocol):
    """See the module. Timeouts are seconds."""

    def subscribe(self, topics: Sequence[str], membership: Membership) -> None:
        """Join the group."""

    def rejoin(self) -> None:
        """Leave the group's assignment and ask for another."""

    def assign(self, parts: Collection[Part]) -> None:
        """Read these, without a group; what was assigned before is no longer read."""

    def poll(self, records_max: int, timeout_s: float) -> Sequence[Record]:
        """The next records, in the order of each partition. Raises `OutOfRange`."""

    def positions(self) -> Mapping[Part, int]:
        """The next offset of every partition that is sought: also behind what no record stands for."""

    def seek(self, offsets: Mapping[Part, int]) -> None:
        """Go on there. Partitions that are not assigned any more are passed over."""

    def pause(self) -> None:
        """Fetch nothing more."""

    def resume(self) -> None:
        """Fetch again, of the partitions that are sought."""

    def commit(self, marks: Mapping[Part, Mark], done: Done) -> None:
        """Begin to save these offsets; `done` is called from within some `poll`."""

    def committed(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, tuple[int, str]]:
        """Offset and metadata of those that have any."""

    def begins(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        """The first offset that is kept."""

    def ends(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        """Behind the last record that is surely committed."""

    def at(self, parts: Collection[Part], time_ms: int, timeout_s: float) -> Mapping[Part, int]:
        """The first record of this time or later; the end where there is none."""

    def topics(self, names: Collection[str], timeout_s: float) -> Mapping[str, Topic]:
        """Those that exist; never creates one."""

    def close(self, timeout_s: float) -> None:
        """Leave, without committing."""


class Build(Protocol):
    """Makes a client and connects it. Raises `ConfigError` where the settings are to blame, else `StoreError`."""

    def __call__(self, group: str = "") -> KafkaClient:
        """`group`: whose committed offsets it is about; only `subscribe` joins it."""
