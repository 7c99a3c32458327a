"""Installing on PostgreSQL, on a table that is in use.

The column is added with a constant default, which changes the catalogue only, no row. The lock
on the table is asked for with a time limit and given up again: a request that waits behind a
long transaction would make everybody else wait behind it. What can be done before, is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, exc, text

from cachelib.errors import StoreError
from cachelib.stores.drivers import Driver
from cachelib.stores.engines import Engines
from cachelib.stores.installer import Installed, Planned, Record, Step, Triggers
from cachelib.stores.names import TableShape, literal, quote
from cachelib.stores.postgresql_triggers import script
from cachelib.stores.sql_errors import translated
from cachelib.stores.statements import run
from cachelib.stores.templates import statements

_ONE_AT_A_TIME = text("select pg_advisory_xact_lock(hashtext('leasecache install'))")
_TRIGGERS = text(
    "select tgname from pg_trigger where tgrelid = cast(:table as regclass) and not tgisinternal"
    " and tgenabled in ('O', 'A')"
)


class PostgreSQLTriggerMaker:
    """See `installer.TriggerMaker`."""

    def __init__(self, driver: Driver, schema: str | None, lock_timeout_s: float, attempts_max: int) -> None:
        self._driver = driver
        self._schema = schema
        self._lock_timeout_s = lock_timeout_s
        self._attempts_max = attempts_max

    def create_log(self, conn: Connection) -> None:
        """See `TriggerMaker.create_log`."""
        conn.execute(_ONE_AT_A_TIME)
        schema = self._schema or conn.execute(text("select current_schema()")).scalar_one()
        there = text(
            "select 1 from pg_class where relname = 'leasecache_changes' and relnamespace = to_regnamespace(:s)"
        )
        if conn.execute(there, {"s": quote(schema)}).first() is None:
            for statement in statements("postgresql_log.sql", {"schema": quote(schema)}):
                run(conn, statement)

    def digest(self, shape: TableShape, home: str) -> str:
        """See `TriggerMaker.digest`."""
        return script(shape, home).digest

    def triggers(self, conn: Connection, shape: TableShape, home: str) -> Triggers:
        """Disabled ones are missing: they let changes through."""
        there = set(conn.execute(_TRIGGERS, {"table": shape.table.sql}).scalars())
        wanted = script(shape, home).trigger_names
        return Triggers(
            tuple(name for name in wanted if name in there), tuple(name for name in wanted if name not in there)
        )

    def apply(self, engines: Engines, shape: TableShape, home: str, plan: Planned) -> Installed:
        """See `TriggerMaker.apply`."""
        made = script(shape, home)

        def work(conn: Connection) -> Work | None:
            planned = plan(conn)
            if planned is None:
                return None
            for function in made.functions:
                run(conn, function)
            under_lock = [*made.drops, *_column(conn, shape, home, planned.step), *made.triggers]
            return Work(under_lock, planned.record, planned.step)

        return self._under_lock(engines, shape, home, work)

    def remove(self, engines: Engines, shape: TableShape, home: str, record: Record) -> Installed:
        """See `TriggerMaker.remove`."""
        made = script(shape, home)
        column = f"alter table {shape.table.sql} drop column if exists {quote(shape.version)}"
        functions = [f"drop function if exists {name}()" for name in made.function_names]
        work = Work([*made.drops, column, *functions], record, "keep")
        return self._under_lock(engines, shape, home, lambda _: work)

    def _under_lock(
        self, engines: Engines, shape: TableShape, home: str, work: Callable[[Connection], Work | None]
    ) -> Installed:
        for attempt in range(1, self._attempts_max + 1):
            doing = f"changing the triggers of table {shape.table.given!r}"
            with translated(doing), engines.get("main").connect() as conn:
                conn.execute(_ONE_AT_A_TIME)
                todo = work(conn)
                if todo is None:
                    return Installed(shape.table.given, changed=False)
                if not self._lock(conn, shape, todo):
                    conn.rollback()
                    self._driver.sleep(random.uniform(0.5, 1.5) * min(0.1 * attempt, 2.0))
                    continue
                begun = time.monotonic()
                for statement in todo.under_lock:
                    run(conn, statement)
                todo.record.write(conn, home)
                conn.commit()
                return Installed(shape.table.given, True, todo.step, (time.monotonic() - begun) * 1000, attempt)
        raise StoreError(
            f"table {shape.table.given!r} was in use all the time ({self._attempts_max} tries of"
            f" {self._lock_timeout_s} s): end long transactions on it, or try again when there are fewer"
        )

    def _lock(self, conn: Connection, shape: TableShape, work: Work) -> bool:
        """Ask for the table within the time limit. New triggers alone let readers go on."""
        mode = "access exclusive" if any("alter table" in sql for sql in work.under_lock) else "share row exclusive"
        run(conn, f"set local lock_timeout = {max(1, round(self._lock_timeout_s * 1000))}")
        try:
            run(conn, f"lock table {shape.table.sql} in {mode} mode")
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":
                raise
            return False
        return True


@dataclass(frozen=True, slots=True)
class Work:
    """What has to happen under the table's lock."""

    under_lock: list[str]
    record: Record
    step: Step


def _column(conn: Connection, shape: TableShape, home: str, step: Step) -> list[str]:
    """New rows get none from the default: a version that nobody drew must not be taken for one."""
    table, version = shape.table.sql, quote(shape.version)
    if step == "keep":
        return []
    first, renewed = 1, []
    if step == "renew":
        # Rows may have changed while no trigger saw it: all get a version above any that was
        # known, and the log says that everything has changed. Dropping the column and adding
        # it again does so without touching a row.
        first = run(conn, f"select nextval({literal(home + 'leasecache_version')})").scalar_one()
        renewed = [
            f"alter table {table} drop column if exists {version}",
            f"insert into {home}leasecache_changes (version, tbl, op, key)"
            f" values ({first}, {literal(shape.table.given)}, 'truncate', '{{}}')",
        ]
    return [
        *renewed,
        f"alter table {table} add column {version} bigint default {first}",
        f"alter table {table} alter column {version} drop default",
    ]
