"""The change log on SQLite: one writer at a time, so the order of ids is the order of commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, text

from cachelib.errors import LogGap
from cachelib.model import RowChange
from cachelib.stores.base import LogBatch, LogEntry
from cachelib.stores.drivers import Driver
from cachelib.stores.log_rows import change, numbers, position

_RECORD = "c.tbl, c.op, c.key, c.id as version, c.before, c.after, null as txn, c.at_us"
_LAST = "select coalesce(max(seq), 0) from sqlite_sequence where name = 'leasecache_changes'"
_OWN = text(f"select {_RECORD} from leasecache_changes c where c.id > :since order by c.id limit :limit")
_OWN_TABLES = text("select distinct tbl from leasecache_changes where id > :since")
_END = text(_LAST)
_POLL = text(
    f"select (select value from leasecache_meta where name = 'purged_through'), ({_LAST}), entry.* from (select 1)"
    f" left join (select {_RECORD} from leasecache_changes c where c.id > :since order by c.id limit :limit) entry"
    " on true order by entry.version"
)
_AT = text("select id - 1 from leasecache_changes where at_us >= :time_us order by id limit 1")
_OLDEST = text("select id, at_us from leasecache_changes order by id limit :limit")
_DELETE = text("delete from leasecache_changes where id <= :through")
_LOOK_S = 0.005
"""Between two looks at `pragma data_version`, which costs about a microsecond."""


class SQLiteLog:
    """See `changelog.Log`. `committed` gives the last id that other connections can see."""

    position_start = position(0)

    def __init__(self, home: Callable[[], str], driver: Driver, committed: Callable[[], int]) -> None:
        self._home = home
        self._driver = driver
        self._committed = committed

    def own_changes(self, conn: Connection, at_most: int) -> Sequence[RowChange] | None:
        """While a transaction holds the write lock, what others can see is all but its own."""
        self._home()
        records = conn.execute(_OWN, {"since": self._committed(), "limit": at_most + 1}).all()
        found = [change(record) for record in records]
        return None if len(found) > at_most else found

    def own_tables(self, conn: Connection) -> frozenset[str]:
        """See `OwnLog.own_tables`."""
        self._home()
        return frozenset(conn.execute(_OWN_TABLES, {"since": self._committed()}).scalars())

    def poll(self, conn: Connection, after: str, limit: int) -> LogBatch:
        """The clock first; then one statement, which is one snapshot."""
        self._home()
        (since,) = numbers(after, 1)
        clock_us = time.time_ns() // 1000
        rows = conn.execute(_POLL, {"since": since, "limit": limit}).all()
        purged_through, last = rows[0][:2]
        if purged_through is not None and (after or self.position_start) < purged_through:
            raise LogGap(
                f"changes after {after!r} were purged (the log begins at {purged_through}): void what they told"
            )
        if since > last:
            raise LogGap(
                f"position {after!r} is ahead of the store, which went back: void what came from its lost future"
            )
        entries = tuple(
            LogEntry(position(found.version or 0), found)
            for found in (change(row[2:]) for row in rows if row[2] is not None)
        )
        # Cut off: every transaction that comes after the last entry's ends after it was written.
        watermark_us = entries[-1].change.at_us - 1 if len(entries) == limit else clock_us
        return LogBatch(entries, entries[-1].position if entries else after, watermark_us)

    def wait(self, conn: Connection, after: str, timeout_s: float) -> None:
        """`data_version` changes when another connection commits; looked at before the log is."""
        self._home()
        (since,) = numbers(after, 1)
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self._data_version(conn)
            found = conn.execute(text(f"select ({_LAST}) > :since"), {"since": since}).scalar_one()
            conn.rollback()
            if found:
                return
            while self._data_version(conn) == seen:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return
                self._driver.sleep(min(_LOOK_S, left_s))

    def _data_version(self, conn: Connection) -> Any:
        version = conn.exec_driver_sql("pragma data_version").scalar_one()
        conn.rollback()  # a snapshot that stays open would never see the change
        return version

    def at(self, conn: Connection, time_us: int) -> str | None:
        """Before the first change that was made then or later."""
        before = conn.execute(_AT, {"time_us": time_us}).scalar()
        return None if before is None else position(before)

    def end(self, conn: Connection) -> str:
        """See `Log.end`."""
        return position(conn.execute(_END).scalar_one())

    def oldest(self, conn: Connection, limit: int) -> list[tuple[str, int]]:
        """Positions and times (microseconds) of the first entries."""
        return [(position(id_), at_us) for id_, at_us in conn.execute(_OLDEST, {"limit": limit})]

    def delete_through(self, conn: Connection, through: str) -> int:
        """Delete the entries up to a position."""
        return conn.execute(_DELETE, {"through": numbers(through, 1)[0]}).rowcount
