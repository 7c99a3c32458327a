"""What the cache asks of an authoritative store, and what it is told.

`SqlStore` (sync) and `AsyncSqlStore` are the ones we ship. The two protocols differ only in
`await`; the words are those of PROTOCOL.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from cachelib.model import Row, RowChange

SyncLoader: TypeAlias = Callable[[Any, Sequence[Any]], Mapping[Any, Row | Any]]
AsyncLoader: TypeAlias = Callable[[Any, Sequence[Any]], Awaitable[Mapping[Any, Row | Any]]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One load: the rows that exist, and the store's clock from before its snapshot."""

    rows: Mapping[Any, Row | Any]
    as_of_us: int


@dataclass(frozen=True, slots=True)
class Watch:
    """One table whose changes are logged. `key`: primary key columns, `columns`: watched ones."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    version: str = "row_version"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One row of the change log, with where it stands in it.

    `position` is opaque outside the store: it sorts, and reading after it gives what follows.
    """

    position: str
    change: RowChange


@dataclass(frozen=True, slots=True)
class LogBatch:
    """What one poll of the change log gave.

    `position` is where to go on (after the last entry, or the position asked where there was
    none). `watermark_us` is the store's clock up to which every commit is in this or an
    earlier batch; None where that is not known.
    """

    entries: tuple[LogEntry, ...]
    position: str
    watermark_us: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions were visible to everybody at one moment, by their ids (PostgreSQL's `pg_snapshot`)."""

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    def shows(self, tx: int) -> bool:
        """Whether a transaction that is known to have committed can be read by whoever begins now.

        `tx` is its id, or the low 32 bits of it, as a log has them. Of the ids that they may stand for it is the one
        that is no further than `_AHEAD` beyond this snapshot: so a log may reach back four thousand million
        transactions, and so many may run at once, before one is taken for another.
        """
        if tx < _EPOCH:
            limit = self.xmax + _AHEAD
            tx = limit - (limit - tx) % _EPOCH
        return tx < self.xmin or (tx < self.xmax and tx not in self.running)


_EPOCH = 2**32
_AHEAD = 2**28


class StoreTransaction(Protocol):
    """One open transaction."""

    @property
    def connection(self) -> Any:
        """What the application's SQL runs on."""

    def execute(self, sql: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Run SQL text with named parameters (or a SQLAlchemy statement)."""

    def changes(self) -> Sequence[RowChange] | None:
        """Every row that this transaction has changed so far, in order, deferred triggers run.

        None: more than `tx_keys_max` rows, or a truncate: treat all keys of `touched()` as
        changed (a new epoch).
        """

    def touched(self) -> frozenset[str]:
        """The tables that this transaction has changed so far."""

    def commit(self) -> None:
        """Commit. Raises `CommitUnknown` when the store did not say how it ended."""

    def rollback(self) -> None:
        """Roll back; safe to call after a failure."""


class Store(Protocol):
    """The authoritative database."""

    def identity(self) -> str:
        """Who the store is: changes when it was restored or failed over."""

    def now_us(self) -> int:
        """The store's clock."""

    def load(self, loader: SyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """Run `loader(tx, keys)` in a read-only transaction of its own that begins now (I6)."""

    def transaction(self, connection: Any = None) -> AbstractContextManager[StoreTransaction]:
        """Begin a transaction, or join the one that `connection` (or ORM session) is in."""

    def read_layout(self) -> bytes | None:
        """The layout document, or None where none was ever written."""

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """Replace the layout document if it still is `expected`, else raise `LayoutConflict`."""

    def close(self) -> None:
        """Give back every connection."""


class AsyncStore(Protocol):
    """`Store` with `await`."""

    async def identity(self) -> str:
        """See `Store.identity`."""

    async def now_us(self) -> int:
        """See `Store.now_us`."""

    async def load(self, loader: AsyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `Store.load`."""

    def transaction(self, connection: Any = None) -> AbstractAsyncContextManager[Any]:
        """See `Store.transaction`; the transaction's methods are awaited."""

    async def read_layout(self) -> bytes | None:
        """See `Store.read_layout`."""

    async def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """See `Store.write_layout`."""

    async def close(self) -> None:
        """See `Store.close`."""


class ChangeLog(Protocol):
    """A store whose own change log can be read (the outbox source of the invalidator)."""

    def poll_changes(self, after: str, limit: int) -> LogBatch:
        """The next entries after a position, in an order that never skips a late commit.

        Raises `LogGap` where entries after `after` were purged.
        """

    def wait_for_changes(self, after: str, timeout_s: float) -> None:
        """Return when there may be something new after `after`, or when the time is up."""

    def log_start(self) -> str:
        """The position before the oldest entry kept."""

    def log_at(self, time_us: int) -> str:
        """A position before every entry kept whose change was made at this time of the store's clock or later.

        What began before and was committed after may stand in front of it.
        """

    def log_end(self) -> str:
        """A position behind which every commit that begins from now on will be found."""

    def save_consumer(self, consumer: str, position: str) -> None:
        """Remember how far a consumer came (its committed position)."""

    def load_consumer(self, consumer: str) -> str | None:
        """Where the consumer came to; None for a new one."""

    def drop_consumer(self, consumer: str) -> None:
        """Forget a consumer, so that the purge no longer waits for it."""

    def purge(self) -> int:
        """Drop entries that every consumer has read, and those over `retention_max`."""
