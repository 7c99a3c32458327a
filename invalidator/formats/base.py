"""The contract of a format: a record of a topic in, what it says about rows out.

Decoders are pure and never skip anything in silence: a record is changes, or a heartbeat, or ignored
for a reason, or `DecodeFailed` is raised with what must be invalidated all the same.

**Unknown is not NULL.** A column that a record does not tell (an unchanged long value, the image before a
change under a replica identity other than FULL) is left out of `before` and `after`, never given as None:
None would mean "this row is on no such list". So `before` of an update or a delete is always there, with
at least the key. A key of many rows that needs a column which is missing cannot be named, and its
entity takes a new epoch (`invalidator.rules`); row keys need nothing but `RowChange.key`.

**A version is that of the row after the change**, so a delete has none (it revokes), nor has a row whose
version column is NULL or not a positive number.

`RowChange.at_us` is the commit's time where the format has it, and `RowChange.tx` what the source calls
the transaction: with Debezium on PostgreSQL the low 32 bits of the store's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from cachelib.errors import CacheError
from cachelib.model import U64_MAX, RowChange, Version

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that changed, in this order.

    `position` is the place in the store's own log (the relay's position, Debezium's LSN), "" where unknown.
    `snapshot`: nothing changed, the source reads the table from its start; of use only to repair.
    """

    changes: tuple[RowChange, ...]
    position: str = ""
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The log has come so far though nothing changed.

    `at_us` is the sender's clock. `watermark_us`, where the sender can know it, is the store's: every commit up
    to it stands before this record, in this partition. `partitions`: in how many the sender says so.
    """

    at_us: int
    watermark_us: int | None = None
    partitions: int = 0
    position: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A record that says nothing about rows, and why that is so."""

    why: str


Decoded: TypeAlias = Changes | Heartbeat | Ignored


class DecodeFailed(CacheError):
    """A record cannot be read. The message says why, and `instead` what is safe to invalidate.

    That is the row where the record's key can be read (with unknown images), else the whole table as a truncate.
    It is empty where not even the table is known, and its table may be one that nobody caches, where a topic is not
    named after it: in both cases everything that the topic carries must be renewed.
    """

    def __init__(self, why: str, instead: tuple[RowChange, ...] = ()) -> None:
        super().__init__(why)
        self.why = why
        self.instead = instead


class Decoder(Protocol):
    """A format. Raises `DecodeFailed`, and nothing else, whatever the bytes are."""

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Decoded:
        """What the record says."""


@dataclass(frozen=True, slots=True)
class Tables:
    """How tables are called: as `Entity.table` has them. Those of `home` schemas go without the schema's name.

    On MySQL and MariaDB, whose databases are what others call schemas, name the application's database there.
    """

    home: frozenset[str] = frozenset(("public",))

    def name(self, schema: str | None, table: str) -> str:
        """The name of a table of a schema."""
        return table if not schema or schema in self.home else f"{schema}.{table}"

    def of_topic(self, topic: str) -> str:
        """The table that a topic is named after: `prefix.schema.table`, or less."""
        *front, table = topic.split(".")
        return self.name(front[-1] if front else None, table)


def version_of(value: Any) -> Version | None:
    """A version column's value: a positive number of 64 bits, or none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)  # an unsigned number that came as text
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= U64_MAX
    return value if fits else None


def doubtful_row(table: str, key: Mapping[str, Any]) -> tuple[RowChange, ...]:
    """Something happened to this row."""
    return (RowChange(table, "update", key, before=key),)


def doubtful_table(table: str) -> tuple[RowChange, ...]:
    """Something happened to some row."""
    return (RowChange(table, "truncate"),)
