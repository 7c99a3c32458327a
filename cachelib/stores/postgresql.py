"""PostgreSQL as a store: connections, snapshots, who it is, and what its catalogue says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, event, text

from cachelib.errors import ConfigError
from cachelib.stores.base import Snapshot
from cachelib.stores.engines import Role
from cachelib.stores.loaders import Binder, postgresql_select
from cachelib.stores.names import Column, TableName, TableShape, for_text, nearest, pick, quote

_NOW_US = "(extract(epoch from now()) * 1000000)::bigint".replace("::", "\\:\\:")
_NOW = text(f"select {_NOW_US}")
_NOW_WITHIN = text(f"select {_NOW_US}, set_config('statement_timeout', :ms, true)")
_SERVERS_OWN = "current_setting('statement_timeout')"
_NOW_BOUNDED = text(
    f"select {_NOW_US}, set_config('statement_timeout',"
    f" case {_SERVERS_OWN} when '0' then :ms else {_SERVERS_OWN} end, true)"
)
_GRACE_S = 1.0
"""The server is to say itself that a statement took too long: only where it says nothing, the client gives it up."""
_HOME = text(
    "select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where c.relname = 'leasecache_changes' and c.relkind = 'r'"
    " and (n.nspname = :schema or (cast(:schema as text) is null and pg_table_is_visible(c.oid)))"
)
_TABLE = text(
    "select c.oid, c.relkind, n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where c.relname = :name and (n.nspname = :schema or (cast(:schema as text) is null"
    " and pg_table_is_visible(c.oid)))"
)
_TABLES = text("select relname from pg_class where relkind in ('r', 'p') and pg_table_is_visible(oid)")
_COLUMNS = text(
    "select attname, format_type(atttypid, -1), not attnotnull from pg_attribute"
    " where attrelid = :oid and attnum > 0 and not attisdropped order by attnum"
)
_UNIQUE = text(
    "select i.indimmediate, array_agg(cast(a.attname as text)) from pg_index i"
    " join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0\\:i.indnkeyatts - 1])"
    " where i.indrelid = :oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null"
    " group by i.indexrelid, i.indimmediate"
)


class PostgreSQL:
    """See `databases.Dialect`. `schema`: where the change log lives; None: where it is found. `answer_s`: how long the
    server may be silent while it is asked something."""

    def __init__(self, schema: str | None = None, connect_timeout_s: float = 5.0, answer_s: float = 30.0) -> None:
        self._schema = schema
        self._connect_timeout_s = connect_timeout_s
        self._answer_s = answer_s

    def engine_options(self, role: Role) -> dict[str, Any]:
        """Loads see one snapshot, taken after `now()` was fixed (I6)."""
        options: dict[str, Any] = {"connect_args": {"connect_timeout": max(2, round(self._connect_timeout_s))}}
        if role != "main":
            options["isolation_level"] = "REPEATABLE READ" if role == "loads" else "AUTOCOMMIT"
        return options

    def prepare_engine(self, engine: Engine, role: Role) -> None:
        """The silence of the server is bounded; loads cannot write."""
        from cachelib.stores.postgresql_connection import connecting  # psycopg is there: there is an engine

        event.listen(engine, "do_connect", connecting(self._answer_s + _GRACE_S))
        if role == "loads":

            @event.listens_for(engine, "connect")
            def read_only(connection: Any, _record: Any) -> None:
                engine.dialect.set_readonly(connection, True)  # type: ignore[attr-defined]

    def begin_load(self, conn: Connection, timeout_s: float | None) -> int:
        """`now()` is when the transaction began; its snapshot comes with this statement."""
        answer_s = self._answer_s if timeout_s is None else min(timeout_s, self._answer_s)
        driver_connection: Any = conn.connection.driver_connection
        driver_connection.answer_s = answer_s + _GRACE_S
        within = {"ms": str(max(1, round(answer_s * 1000)))}
        return int(conn.execute(_NOW_BOUNDED if timeout_s is None else _NOW_WITHIN, within).one()[0])

    def end_load(self, conn: Connection) -> None:
        """See `Dialect.end_load`."""
        conn.rollback()

    def autocommits(self, conn: Connection) -> bool:
        """See `Dialect.autocommits`."""
        return bool(getattr(conn.connection.dbapi_connection, "autocommit", False))

    def now_us(self, conn: Connection) -> int:
        """See `Dialect.now_us`."""
        return int(conn.execute(_NOW).scalar_one())

    def snapshot(self, conn: Connection) -> Snapshot:
        """See `Dialect.snapshot`. `xmin:xmax:running,...`; subtransactions are not among those that run."""
        written = conn.execute(text("select cast(pg_current_snapshot() as text)")).scalar_one()
        xmin, xmax, running = str(written).split(":")
        return Snapshot(int(xmin), int(xmax), frozenset(int(tx) for tx in running.split(",") if tx))

    def system(self, conn: Connection) -> str | None:
        """System identifier, timeline and database; None where the role may not ask.

        The timeline is that of the write position where there is one: after a failover the
        control file names the old one until the first checkpoint.
        """
        may_ask = text(
            "select has_function_privilege('pg_control_system()', 'execute')"
            " and has_function_privilege('pg_control_checkpoint()', 'execute')"
        )
        if not conn.execute(may_ask).scalar_one():
            return None
        row = conn.execute(
            text(
                "select (pg_control_system()).system_identifier, case when pg_is_in_recovery()"
                " then to_hex((pg_control_checkpoint()).timeline_id)"
                " else ltrim(left(pg_walfile_name(pg_current_wal_lsn()), 8), '0') end,"
                " (select oid from pg_database where datname = current_database())"
            )
        ).one()
        return f"pg-{row[0]}-{str(row[1]).lower()}-{row[2]}"

    def select(self, table: TableName, key: Sequence[Column], outputs: Sequence[str]) -> tuple[TextClause, Binder]:
        """See `Dialect.select`."""
        return postgresql_select(table, key, outputs)

    def find_home(self, conn: Connection) -> str | None:
        """See `Dialect.find_home`."""
        found = conn.execute(_HOME, {"schema": self._schema}).scalar_one_or_none()
        return None if found is None else quote(found) + "."

    def highest_version(self, conn: Connection, home: str) -> int:
        """See `Dialect.highest_version`."""
        last = "case when is_called then last_value else last_value - 1 end"
        return int(conn.execute(text(f"select {last} from {for_text(home)}leasecache_version")).scalar_one())

    def columns(self, conn: Connection, table: TableName) -> dict[str, Column]:
        """See `Dialect.columns`."""
        oid, _, _ = self._find(conn, table)
        return {name: Column(name, type_, nullable) for name, type_, nullable in conn.execute(_COLUMNS, {"oid": oid})}

    def shape(
        self, conn: Connection, table: TableName, key: Sequence[str], watch: Sequence[str], version: str
    ) -> TableShape:
        """The key must be one that the database itself keeps unique, at once: an insert's version
        is drawn in order only because the index has made it wait for the key's last change.
        """
        oid, kind, schema = self._find(conn, table)
        if kind != "r":
            what = {"p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
            raise ConfigError(f"{table.given!r} is a {what.get(kind, 'relation')}: only plain tables can be installed")
        columns = self.columns(conn, table)
        chosen = pick(columns, key, table.given)
        unique = [(immediate, set(names)) for immediate, names in conn.execute(_UNIQUE, {"oid": oid})]
        fits = [immediate for immediate, names in unique if names == set(key)]
        if not fits:
            known = "; ".join(", ".join(sorted(names)) for _, names in unique) or "none"
            raise ConfigError(
                f"table {table.given!r} has no primary key or unique index on {', '.join(key)} (it has: {known})"
            )
        if not any(fits):
            raise ConfigError(f"the key of table {table.given!r} is deferrable: it must be checked at once")
        for column in chosen:
            if column.nullable:
                raise ConfigError(f"column {column.name!r} of table {table.given!r} may be null: a key must not")
        return TableShape(
            TableName(table.given, schema, table.name), chosen, pick(columns, watch, table.given), version
        )

    def _find(self, conn: Connection, table: TableName) -> tuple[int, str, str]:
        found = conn.execute(_TABLE, {"name": table.name, "schema": table.schema}).first()
        if found is None:
            there = [name for (name,) in conn.execute(_TABLES) if not name.startswith("leasecache_")]
            raise ConfigError(f"there is no table {table.given!r}: {nearest(table.name, there)}")
        return found[0], found[1], found[2]
