"""Install versions and the change log on a table, take them off again, and say how things stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from sqlalchemy import Connection

from cachelib.errors import ConfigError
from cachelib.stores.engines import Engines
from cachelib.stores.names import Column, TableName, TableShape, parse_table
from cachelib.stores.statements import companions

Step: TypeAlias = Literal["add", "renew", "keep"]
"""What happens to the version column: added (all rows have version 1), begun anew (the triggers
were not there for a while, so nobody knows which rows have changed), or left alone."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` or `uninstall` did. `changed`: anything at all."""

    table: str
    changed: bool
    column: Step = "keep"
    locked_ms: float = 0.0
    """How long the table was locked: against writers, and against readers where the column was added."""
    attempts: int = 0
    """How often the lock was asked for; each time for `lock_timeout` at most."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """How a table and the log stand."""

    table: str
    installed: bool
    up_to_date: bool
    """The triggers are those that `install` would make now."""
    key: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    version: str = ""
    triggers: tuple[str, ...] = ()
    """Present and enabled."""
    triggers_missing: tuple[str, ...] = ()
    log_rows: int = 0
    log_oldest_us: int | None = None
    slowest_consumer: str | None = None
    slowest_position: str | None = None


@dataclass(frozen=True, slots=True)
class Triggers:
    """A table's triggers as they are."""

    there: tuple[str, ...]
    missing: tuple[str, ...]


class TriggerMaker(Protocol):
    """The part of installing that each database does in its own way."""

    def create_log(self, conn: Connection) -> None:
        """Make the log and its companions where they are missing; safe if several try at once."""

    def digest(self, shape: TableShape, home: str) -> str:
        """Names the triggers that would be made."""

    def triggers(self, conn: Connection, shape: TableShape, home: str) -> Triggers:
        """Look which triggers are there."""

    def apply(self, engines: Engines, shape: TableShape, home: str, plan: Planned) -> Installed:
        """Bring column and triggers about in one transaction, and write the record in it.

        Ask for the plan where nobody else can be installing.
        """

    def remove(self, engines: Engines, shape: TableShape, home: str, record: Record) -> Installed:
        """Drop triggers and column in one transaction, and write the record in it."""


class Catalogue(Protocol):
    """What a database tells about its tables."""

    def find_home(self, conn: Connection) -> str | None:
        """The quoted prefix of the log's tables; None where there is no log."""

    def columns(self, conn: Connection, table: TableName) -> dict[str, Column]:
        """A table's columns in order. Raises `ConfigError` where there is no such table."""

    def shape(
        self, conn: Connection, table: TableName, key: Sequence[str], watch: Sequence[str], version: str
    ) -> TableShape:
        """What the generated SQL depends on. Raises `ConfigError` for what cannot be installed."""


@dataclass(frozen=True, slots=True)
class Record:
    """What `leasecache_tables` remembers of a table. An empty digest: it was uninstalled."""

    table: str
    key: tuple[str, ...]
    watch: tuple[str, ...]
    version: str
    digest: str

    def write(self, conn: Connection, home: str) -> None:
        """Keep it, in the transaction that makes it true."""
        spec = json.dumps({"key": self.key, "watch": self.watch, "version": self.version})
        conn.execute(companions(home).write_table, {"name": self.table, "spec": spec, "digest": self.digest})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, and what will be remembered of it."""

    step: Step
    record: Record


Planned: TypeAlias = Callable[[Connection], Plan | None]


class Installer:
    """`install`, `uninstall` and `status` for any database."""

    def __init__(self, engines: Engines, catalogue: Catalogue, maker: TriggerMaker) -> None:
        self._engines = engines
        self._catalogue = catalogue
        self._maker = maker

    def create_log(self) -> str:
        """Make the change log if it is missing, and find it."""
        with self._engines.connect("side", "looking for the change log") as conn:
            home = self._catalogue.find_home(conn)
        if home is not None:
            return home
        with self._engines.writing("making the change log") as conn:
            self._maker.create_log(conn)
            home = self._catalogue.find_home(conn)
        if home is None:
            raise ConfigError("the change log was made in a schema that is not on the role's search_path: add it there")
        return home

    def install(self, table: str, key: Sequence[str], watch: Sequence[str], version: str) -> Installed:
        """See `SqlStore.install`."""
        name = parse_table(table)
        with self._engines.connect("side", f"looking at table {table!r}") as conn:
            shape = self._catalogue.shape(conn, name, key, [c for c in watch if c not in key], version)
        home = self.create_log()

        def plan(conn: Connection) -> Plan | None:
            return self._plan(conn, shape, home, tuple(key))

        with self._engines.connect("side", f"looking at table {table!r}") as conn:
            if plan(conn) is None:
                return Installed(table, changed=False)
        # Looked at again under the lock: somebody else may be installing.
        return self._maker.apply(self._engines, shape, home, plan)

    def _plan(self, conn: Connection, shape: TableShape, home: str, key: tuple[str, ...]) -> Plan | None:
        table = shape.table.given
        has_column = shape.version in self._catalogue.columns(conn, shape.table)
        before = self._record(conn, home, table)
        step = self._step(table, shape.version, has_column, self._maker.triggers(conn, shape, home), before)
        digest = self._maker.digest(shape, home)
        if step == "keep" and before is not None and before.digest == digest:
            return None
        return Plan(step, Record(table, key, tuple(c.name for c in shape.watch), shape.version, digest))

    def _step(self, table: str, version: str, has_column: bool, triggers: Triggers, before: Record | None) -> Step:
        if before is None:
            if has_column:
                raise ConfigError(
                    f"table {table!r} has a column {version!r} already, which install has not made:"
                    " give another name with version="
                )
            return "add"
        if before.version != version and before.digest:
            raise ConfigError(
                f"table {table!r} is installed with the version column {before.version!r}, not {version!r}:"
                " uninstall it first"
            )
        return "renew" if triggers.missing or not has_column or not before.digest else "keep"

    def uninstall(self, table: str) -> Installed:
        """See `SqlStore.uninstall`."""
        home = self.create_log()
        name = parse_table(table)
        with self._engines.connect("side", f"looking at table {table!r}") as conn:
            before = self._record(conn, home, table)
            if before is None or not before.digest:
                return Installed(table, changed=False)
            shape = self._catalogue.shape(conn, name, before.key, before.watch, before.version)
        gone = Record(table, before.key, before.watch, before.version, "")
        return self._maker.remove(self._engines, shape, home, gone)

    def status(self, table: str) -> TableStatus:
        """See `SqlStore.status`."""
        name = parse_table(table)
        with self._engines.connect("side", f"looking at table {table!r}") as conn:
            columns = self._catalogue.columns(conn, name)
            home = self._catalogue.find_home(conn)
            record = None if home is None else self._record(conn, home, table)
            if home is None or record is None or not record.digest:
                return TableStatus(table, installed=False, up_to_date=False)
            shape = self._catalogue.shape(conn, name, record.key, record.watch, record.version)
            triggers = self._maker.triggers(conn, shape, home)
            slowest = conn.execute(companions(home).slowest_consumer).first()
            log_rows = int(conn.execute(companions(home).log_size).scalar_one())
        complete = record.version in columns and not triggers.missing
        return TableStatus(
            table,
            installed=complete,
            up_to_date=complete and record.digest == self._maker.digest(shape, home),
            key=record.key,
            watch=record.watch,
            version=record.version,
            triggers=triggers.there,
            triggers_missing=triggers.missing,
            log_rows=log_rows,
            slowest_consumer=slowest[0] if slowest else None,
            slowest_position=slowest[1] if slowest else None,
        )

    def _record(self, conn: Connection, home: str, table: str) -> Record | None:
        found: Any = conn.execute(companions(home).read_table, {"name": table}).first()
        if found is None:
            return None
        spec = json.loads(found[0])
        return Record(table, tuple(spec["key"]), tuple(spec["watch"]), spec["version"], found[1])
