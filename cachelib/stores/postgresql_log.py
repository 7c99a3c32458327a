"""The change log on PostgreSQL: read so that no late commit is skipped.

Numbers are given out when a row is written, but rows appear when their transaction commits. So
the log is ordered by transaction, and read only below the oldest transaction that still runs
(xmin of the reading statement's own snapshot): nothing can appear there any more. A long
transaction delays the reader; it cannot make it lose anything. (KAFKA's outbox readers know this
as the "safe cursor".)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from sqlalchemy import Connection, TextClause, text

from cachelib.errors import LogGap
from cachelib.model import RowChange
from cachelib.stores.base import LogBatch, LogEntry
from cachelib.stores.drivers import Driver
from cachelib.stores.log_rows import change, numbers, position
from cachelib.stores.names import for_text
from cachelib.stores.postgresql_triggers import CHANNEL
from cachelib.stores.watermark import Watermarks

_RECORD = (
    "c.tbl, c.op, c.key, c.version, c.before, c.after, cast(cast(c.tx as text) as bigint) as txn,"
    " cast(extract(epoch from c.at) * 1000000 as bigint) as at_us"
)
_OWN = "from @changes c where c.tx = pg_current_xact_id_if_assigned()"
_BEHIND = "(c.tx, c.version) > (cast(cast(:tx as text) as xid8), cast(:version as bigint))"
_POLL = f"""
with now as materialized (
    select pg_current_snapshot() as snapshot, cast(extract(epoch from now()) * 1000000 as bigint) as clock_us,
        (select value from @meta where name = 'purged_through') as purged_through)
select cast(cast(pg_snapshot_xmin(now.snapshot) as text) as bigint),
    cast(cast(pg_snapshot_xmax(now.snapshot) as text) as bigint), now.clock_us, now.purged_through, entry.*
from now left join lateral (
    select {_RECORD} from @changes c
    where {_BEHIND} and c.tx < pg_snapshot_xmin(now.snapshot)
    order by c.tx, c.version limit :limit) entry on true
order by entry.txn, entry.version"""
_WAITING = f"""
select exists (select 1 from @changes c where {_BEHIND} and c.tx < pg_snapshot_xmin(pg_current_snapshot())),
    exists (select 1 from @changes c where {_BEHIND}),
    setval('@waiting', cast(extract(epoch from now()) as bigint) + 2)"""
_OLDEST = """
select cast(cast(c.tx as text) as bigint), c.version, cast(extract(epoch from c.at) * 1000000 as bigint)
from @changes c where c.tx < pg_snapshot_xmin(pg_current_snapshot()) order by c.tx, c.version limit :limit"""
_DELETE = f"delete from @changes c where not {_BEHIND}"
_AT = """
select cast(cast(c.tx as text) as bigint) from @changes c
where c.at >= to_timestamp(cast(:time_us as double precision) / 1000000) order by c.tx limit 1"""
_LOOK_S = 0.1
"""A writer that looked before we fell asleep and commits afterwards does not wake us."""
_LOOK_AT_RUNNING_S = 0.01


class PostgreSQLLog:
    """See `changelog.Log`. `home` gives the quoted prefix of the log's tables."""

    position_start = position(0, 0)

    def __init__(self, home: Callable[[], str], driver: Driver) -> None:
        self._home = home
        self._driver = driver
        self._watermarks = Watermarks()
        self._listening: Any = None
        self._lock = Lock()
        self._made: dict[str, TextClause] = {}

    def _sql(self, sql: str) -> TextClause:
        made = self._made.get(sql)
        if made is None:
            made = self._made[sql] = text(sql.replace("@", for_text(self._home()) + "leasecache_"))
        return made

    def own_changes(self, conn: Connection, at_most: int) -> Sequence[RowChange] | None:
        """Deferred triggers and constraints run first: they may change rows as well."""
        sql = self._sql(f"select {_RECORD} {_OWN} order by c.version limit :limit")
        conn.execute(text("set constraints all immediate"))
        records = conn.execute(sql, {"limit": at_most + 1}).all()
        found = [change(record) for record in records]
        return None if len(found) > at_most or any(c.op == "truncate" for c in found) else found

    def own_tables(self, conn: Connection) -> frozenset[str]:
        """See `OwnLog.own_tables`."""
        conn.execute(text("set constraints all immediate"))
        return frozenset(conn.execute(self._sql(f"select distinct c.tbl {_OWN}")).scalars())

    def poll(self, conn: Connection, after: str, limit: int) -> LogBatch:
        """One statement, one snapshot: what is safe to read, where the log begins, and the clock before it."""
        tx, version = numbers(after, 2)
        rows = conn.execute(self._sql(_POLL), {"tx": str(tx), "version": version, "limit": limit}).all()
        xmin, xmax, clock_us, purged_through = rows[0][:4]
        if purged_through is not None and (after or self.position_start) < purged_through:
            raise LogGap(
                f"changes after {after!r} were purged (the log begins at {purged_through}): void what they told"
            )
        if tx > xmax:
            raise LogGap(
                f"position {after!r} is ahead of the store, which went back: void what came from its lost future"
            )
        self._watermarks.learn(clock_us, xmax)
        entries = tuple(
            LogEntry(position(found.tx or 0, found.version or 0), found)
            for found in (change(row[4:]) for row in rows if row[4] is not None)
        )
        cut = len(entries) == limit
        below = entries[-1].change.tx or 0 if cut else xmin
        return LogBatch(entries, entries[-1].position if entries else after, self._watermarks.claim(below))

    def wait(self, conn: Connection, after: str, timeout_s: float) -> None:
        """Return when there is something to read after `after`, or when the time is up.

        Registered before it looks, so that what commits after the look wakes it.
        """
        tx, version = numbers(after, 2)
        driver_connection = conn.connection.driver_connection
        deadline = time.monotonic() + timeout_s
        conn.execute(text(f"listen {CHANNEL}"))
        while True:
            ready, running, _ = conn.execute(self._sql(_WAITING), {"tx": str(tx), "version": version}).one()
            left_s = deadline - time.monotonic()
            if ready or left_s <= 0:
                return
            self._driver.wait_notified(driver_connection, min(left_s, _LOOK_AT_RUNNING_S if running else _LOOK_S))

    def at(self, conn: Connection, time_us: int) -> str | None:
        """Before the first transaction that made a change then or later."""
        tx = conn.execute(self._sql(_AT), {"time_us": time_us - 1}).scalar()  # -1: a double rounds
        return None if tx is None else position(tx, 0)

    def end(self, conn: Connection) -> str:
        """Before every transaction that has not ended."""
        sql = text("select cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint)")
        return position(conn.execute(sql).scalar_one(), 0)

    def oldest(self, conn: Connection, limit: int) -> list[tuple[str, int]]:
        """Positions and times (microseconds) of the first entries."""
        found = conn.execute(self._sql(_OLDEST), {"limit": limit})
        return [(position(tx, version), at_us) for tx, version, at_us in found]

    def delete_through(self, conn: Connection, through: str) -> int:
        """Delete the entries up to a position."""
        tx, version = numbers(through, 2)
        return conn.execute(self._sql(_DELETE), {"tx": str(tx), "version": version}).rowcount
