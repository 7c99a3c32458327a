"""Installing on SQLite: one transaction under the write lock, which readers do not notice."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text

from cachelib.stores.engines import Engines
from cachelib.stores.installer import Installed, Planned, Record, Step, Triggers
from cachelib.stores.names import TableShape, literal, quote
from cachelib.stores.sqlite_triggers import script
from cachelib.stores.statements import run
from cachelib.stores.templates import statements

_TRIGGERS = text("select name, sql from sqlite_master where type = 'trigger'")


class SQLiteTriggerMaker:
    """See `installer.TriggerMaker`."""

    def create_log(self, conn: Connection) -> None:
        """See `TriggerMaker.create_log`."""
        for statement in statements("sqlite_log.sql", {}):
            run(conn, statement)

    def digest(self, shape: TableShape, home: str) -> str:
        """See `TriggerMaker.digest`."""
        return script(shape).digest

    def triggers(self, conn: Connection, shape: TableShape, home: str) -> Triggers:
        """See `TriggerMaker.triggers`."""
        there = {name for name, _ in conn.execute(_TRIGGERS)}
        wanted = script(shape).triggers
        return Triggers(
            tuple(name for name in wanted if name in there), tuple(name for name in wanted if name not in there)
        )

    def apply(self, engines: Engines, shape: TableShape, home: str, plan: Planned) -> Installed:
        """See `TriggerMaker.apply`."""
        made = script(shape).triggers
        with engines.writing(f"changing the triggers of table {shape.table.given!r}") as conn:
            begun = time.monotonic()
            planned = plan(conn)
            if planned is None:
                return Installed(shape.table.given, changed=False)
            for name in made:
                run(conn, f"drop trigger if exists {quote(name)}")
            _column(conn, shape, planned.step)
            for statement in made.values():
                run(conn, statement)
            planned.record.write(conn, home)
        return Installed(shape.table.given, True, planned.step, (time.monotonic() - begun) * 1000, 1)

    def remove(self, engines: Engines, shape: TableShape, home: str, record: Record) -> Installed:
        """See `TriggerMaker.remove`."""
        with engines.writing(f"uninstalling from table {shape.table.given!r}") as conn:
            begun = time.monotonic()
            for name in script(shape).triggers:
                run(conn, f"drop trigger if exists {quote(name)}")
            run(conn, f"alter table {quote(shape.table.name)} drop column {quote(shape.version)}")
            record.write(conn, home)
        return Installed(shape.table.given, True, "keep", (time.monotonic() - begun) * 1000, 1)


def _column(conn: Connection, shape: TableShape, step: Step) -> None:
    table, version = quote(shape.table.name), quote(shape.version)
    there = any(
        name == shape.version
        for (name,) in run(conn, f"select name from pragma_table_info({literal(shape.table.name)})")
    )
    if not there:
        run(conn, f"alter table {table} add column {version} integer default 1")
    if step == "renew":
        # Rows may have changed while no trigger saw it: all get a version above any that was
        # known, and the log says that everything has changed.
        run(
            conn,
            f"insert into leasecache_changes (tbl, op, key) values ({literal(shape.table.given)}, 'truncate', '{{}}')",
        )
        run(conn, f"update {table} set {version} = last_insert_rowid()")
