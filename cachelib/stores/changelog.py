"""The store's own change log as a source of events: polled, waited for, kept and purged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy import Connection

from cachelib.errors import ConfigError
from cachelib.model import RowChange
from cachelib.stores.base import LogBatch
from cachelib.stores.engines import Engines
from cachelib.stores.statements import PURGED_THROUGH, companions

_PURGE_ROWS = 5000
"""A purge deletes in transactions of so many rows: it holds up nobody for long."""


class Log(Protocol):
    """How one kind of database keeps the log."""

    position_start: str

    def own_changes(self, conn: Connection, at_most: int) -> Sequence[RowChange] | None:
        """What the connection's transaction has changed; None for more, or a truncate."""

    def own_tables(self, conn: Connection) -> frozenset[str]:
        """The tables among them."""

    def poll(self, conn: Connection, after: str, limit: int) -> LogBatch:
        """See `base.ChangeLog.poll_changes`."""

    def wait(self, conn: Connection, after: str, timeout_s: float) -> None:
        """See `base.ChangeLog.wait_for_changes`; the connection serves nothing else."""

    def at(self, conn: Connection, time_us: int) -> str | None:
        """See `base.ChangeLog.log_at`; None where there is no such entry."""

    def end(self, conn: Connection) -> str:
        """See `base.ChangeLog.log_end`."""

    def oldest(self, conn: Connection, limit: int) -> list[tuple[str, int]]:
        """Positions and times (microseconds) of the first entries that are safe to read."""

    def delete_through(self, conn: Connection, through: str) -> int:
        """Delete the entries up to a position; how many there were."""


class SqlChangeLog:
    """See `base.ChangeLog`. `retention_us`: entries younger are kept; `retention_us_max`: none older is."""

    def __init__(
        self, engines: Engines, log: Log, home: Callable[[], str], retention_us: int, retention_us_max: int
    ) -> None:
        self._engines = engines
        self._log = log
        self._home = home
        self._retention_us = retention_us
        self._retention_us_max = retention_us_max

    def poll(self, after: str, limit: int) -> LogBatch:
        """See `base.ChangeLog.poll_changes`."""
        if limit < 1:
            raise ConfigError(f"a poll of {limit} changes gives none: ask for 1 or more")
        with self._engines.connect("side", "reading the change log") as conn:
            return self._log.poll(conn, after, limit)

    def wait(self, after: str, timeout_s: float) -> None:
        """See `base.ChangeLog.wait_for_changes`."""
        with self._engines.connect("waits", "waiting for changes") as conn:
            self._log.wait(conn, after, timeout_s)

    def start(self) -> str:
        """See `base.ChangeLog.log_start`."""
        return self._meta(PURGED_THROUGH) or self._log.position_start

    def at(self, time_us: int) -> str:
        """See `base.ChangeLog.log_at`."""
        with self._engines.connect("side", "reading the change log") as conn:
            end = self._log.end(conn)  # first: what is written meanwhile is behind it
            return self._log.at(conn, time_us) or end

    def end(self) -> str:
        """See `base.ChangeLog.log_end`."""
        with self._engines.connect("side", "reading the change log") as conn:
            return self._log.end(conn)

    def save_consumer(self, consumer: str, position: str) -> None:
        """See `base.ChangeLog.save_consumer`."""
        with self._engines.writing(f"saving how far consumer {consumer!r} came") as conn:
            conn.execute(companions(self._home()).save_consumer, {"name": consumer, "position": position})

    def load_consumer(self, consumer: str) -> str | None:
        """See `base.ChangeLog.load_consumer`."""
        with self._engines.connect("side", f"asking how far consumer {consumer!r} came") as conn:
            found: str | None = conn.execute(companions(self._home()).load_consumer, {"name": consumer}).scalar()
            return found

    def drop_consumer(self, consumer: str) -> None:
        """See `base.ChangeLog.drop_consumer`."""
        with self._engines.writing(f"forgetting consumer {consumer!r}") as conn:
            conn.execute(companions(self._home()).drop_consumer, {"name": consumer})

    def purge(self, now_us: int) -> int:
        """See `base.ChangeLog.purge`."""
        deleted = 0
        while True:
            with self._engines.writing("purging the change log") as conn:
                first = self._log.oldest(conn, _PURGE_ROWS)
                through = self._purgeable(conn, first, now_us)
                if through is None:
                    return deleted
                deleted += self._log.delete_through(conn, through)
                # In the same transaction: whoever sees that entries are gone sees this, too.
                write = companions(self._home()).raise_meta
                conn.execute(write, {"name": PURGED_THROUGH, "value": through})
            if through != first[-1][0] or len(first) < _PURGE_ROWS:
                return deleted

    def _purgeable(self, conn: Connection, first: list[tuple[str, int]], now_us: int) -> str | None:
        """The last of these entries that may go, with all before it."""
        slowest = conn.execute(companions(self._home()).slowest_consumer).first()
        through = None
        for position, at_us in first:
            everybody_has_it = slowest is None or position <= slowest[1]
            age_us = now_us - at_us
            if age_us <= (self._retention_us if everybody_has_it else self._retention_us_max):
                break
            through = position
        return through

    def _meta(self, name: str) -> str | None:
        with self._engines.connect("side", "reading the change log") as conn:
            found: str | None = conn.execute(companions(self._home()).read_meta, {"name": name}).scalar()
            return found
