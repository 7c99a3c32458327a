"""The contract of a source of changes: the store's own log, a Kafka topic, a file of them.

A source has one or more partitions. In each, changes have an order and every place in it a position:
text that sorts as the log does. Positions of all partitions together say how far somebody has read.

One thread reads from a source and another commits. Nodes that are behind read through readers of
their own (`reader`), so that they hold up nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol, TypeAlias

from cachelib.model import RowChange

Positions: TypeAlias = Mapping[str, str]
"""Partition to position; reading goes on behind it."""

LOG_MARK = "@"
"""Stands in a position before the identity of the log that it belongs to, where a log can be replaced by another."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a kind of source can and cannot know. Callers look here, never at a source's type."""

    kind: str
    shows_early: bool
    """A change may be shown before it can be read in the store, so it needs a second look."""
    watermark: bool
    """`Polled.watermark_us` can be known: this source can prove freshness."""
    whole: bool = True
    """Its log begins with the first change, unless it was purged; so who never read it may begin at its start."""
    versions: bool = True
    """The versions in it are the store's, so that one above the store's last says that the store went back."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a bus carried. kafka-python's `ConsumerRecord` has the same fields, and serves as one."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One change, and where it stands. `record` carried it, where the source has records."""

    partition: str
    position: str
    change: RowChange
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be read: why, and what is to be invalidated instead (see `formats.base.DecodeFailed`).

    With nothing in `instead` it may be about anything that the source carries.
    """

    partition: str
    position: str
    why: str
    instead: tuple[RowChange, ...] = ()
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll gave: the changes between two positions.

    `watermark_us` is the store's clock up to which every commit of the partitions read here is in this or an
    earlier poll; None where that is not known. `poison`: what between the positions could not be read.
    `placed`: it is settled which partitions are read here; perhaps none. `trouble`: why there may be more that did
    not come, where the source knows; "" otherwise.
    """

    events: tuple[Event, ...]
    before: Positions
    after: Positions
    watermark_us: int | None = None
    poison: tuple[Poison, ...] = ()
    placed: bool = True
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """The offset that is done for every node that counts, and which nodes those are."""

    positions: Positions
    counted: frozenset[str]


class ChangeSource(Protocol):
    """Where changes come from.

    Every method but `close` raises `StoreError` where the source cannot be reached (after which the
    same call may be tried again), and `poll` raises `LogGap` where what should follow is lost:
    purged, or the log went back.
    """

    capability: Capability

    def open(self, done: Callable[[], Committed | None]) -> None:
        """Called once, before all else. `done`: what is done for every node by now, for when partitions are taken.

        Raises `ConfigError`, `StoreError`: one sentence about why there is nothing to read from.
        """

    def moved(self) -> bool:
        """Whether other partitions are to be read here than before this call, shared with others as they are.

        Then everything but `commit` is about those, and nothing comes until `seek`.
        """

    def partitions(self) -> int:
        """How many the log has, here and elsewhere, as far as is known now; 0 while that is unknown."""

    def poll(self, limit: int, timeout_s: float) -> Polled:
        """The next changes; after at most `timeout_s` an empty answer."""

    def rest(self) -> None:
        """Called over and over instead of `poll` while nothing more may be read: keep what must be kept alive.

        Whoever reads again goes on where the last poll ended.
        """

    def seek(self, positions: Positions) -> None:
        """Go on behind these positions."""

    def start(self) -> Positions:
        """Before the oldest change that is kept."""

    def at(self, time_us: int) -> Positions:
        """Before every change that was made at this time or later, by the clock that the source keeps."""

    def end(self) -> Positions:
        """Behind the last change that is in the log."""

    def elsewhere(self) -> Positions:
        """`end` of the partitions that others read; what of those is applied to a node, only its notes tell."""

    def horizon(self) -> Positions:
        """Behind this is every change that a load which begins now may miss: where to begin with what is empty.

        Before the log's end in a source that shows early: a change may be in the log, and the store not show it yet.
        """

    def committed(self, nodes: Collection[str]) -> Committed | None:
        """What was committed last, and which of these nodes counted then; None for a new consumer."""

    def commit(self, committed: Committed) -> None:
        """Keep it, durably. Losing it is never fatal: more is read again."""

    def forget(self, node: str) -> None:
        """The node counts no longer."""

    def reader(self, positions: Positions) -> ChangeSource:
        """Another reader from there on, for a node that is behind. Its `commit` is not used."""

    def purge(self) -> int:
        """Drop what every consumer has read, where that is the source's to do; how much."""

    def close(self) -> None:
        """Let go of everything. A reader that is sought again goes on."""


def merged(one: Positions, other: Positions) -> dict[str, str]:
    """The further position of each partition."""
    return {at: max(one.get(at, ""), other.get(at, "")) for at in {**one, **other}}


def least(several: Collection[Positions]) -> dict[str, str]:
    """What all have reached; a partition that one of them does not know, or knows of another log, is nowhere."""
    partitions = {at for positions in several for at in positions}
    found = {at: [positions.get(at, "") for positions in several] for at in partitions}
    return {at: min(reached) if len(set(map(log_of, reached))) == 1 else "" for at, reached in found.items()}


def log_of(position: str) -> str:
    """The identity of the log that a position belongs to; "" where the source has but one."""
    return position.partition(LOG_MARK)[2]


def leading_number(position: str) -> float:
    """The number at a position's beginning, which rises as the log is read; 0 before everything."""
    return float("".join(takewhile(str.isdigit, position)) or 0)


def of_now(positions: Positions, now: Positions) -> dict[str, str]:
    """Those of partitions that are read now, and of the same log: others say nothing."""
    return {at: position for at, position in positions.items() if at in now and log_of(position) == log_of(now[at])}


def covers(far: Positions, near: Positions) -> bool:
    """Whether who has come to `far` has everything up to `near`."""
    return all(far.get(at, "") >= position for at, position in near.items())
