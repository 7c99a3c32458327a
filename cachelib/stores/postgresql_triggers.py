"""Fill in `triggers/postgresql.sql` for one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from cachelib.stores.names import Column, TableShape, literal, quote
from cachelib.stores.templates import fill, sections

CHANNEL = "leasecache_changes"
PREFIX = "zz_leasecache_"
_PLAIN = frozenset({"smallint", "integer", "bigint"})
"""Types whose text is JSON as it stands."""


@dataclass(frozen=True, slots=True)
class Script:
    """The statements that make one table's triggers, and what to look for afterwards."""

    functions: tuple[str, ...]
    drops: tuple[str, ...]
    triggers: tuple[str, ...]
    trigger_names: tuple[str, ...]
    function_names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Tells whether installed triggers are those that would be made now."""
        return hashlib.sha256("\n".join(self.functions + self.triggers).encode()).hexdigest()


def script(shape: TableShape, home: str) -> Script:
    """The triggers of a table, for a change log behind the quoted prefix `home`."""
    holes = _holes(shape, home)
    suffix = hashlib.sha256(shape.table.sql.encode()).hexdigest()[:12]
    functions: list[str] = []
    triggers: list[str] = []
    trigger_names: list[str] = []
    names: dict[str, str] = {}
    for kind, title, body in sections("postgresql.sql"):
        if kind == "function":
            names[title] = f"{home}leasecache_{title}_{suffix}"
            functions.append(
                f"create or replace function {names[title]}() returns trigger\n"
                f"language plpgsql security definer as $leasecache$\n{fill(body, holes)}\n$leasecache$"
            )
        else:
            trigger, function = title.split()
            trigger_names.append(PREFIX + trigger)
            triggers.append(
                f"create trigger {PREFIX}{trigger} {fill(body, holes)} execute function {names[function]}()"
            )
    return Script(
        functions=tuple(functions),
        drops=tuple(f"drop trigger if exists {name} on {shape.table.sql}" for name in trigger_names),
        triggers=tuple(triggers),
        trigger_names=tuple(trigger_names),
        function_names=tuple(names.values()),
    )


def _holes(shape: TableShape, home: str) -> dict[str, str]:
    table, version = shape.table.sql, quote(shape.version)
    log = f"{home}leasecache_changes"
    waiting = f"{literal(home + 'leasecache_waiting')}::pg_catalog.regclass"
    redraw = f"update {table} t set {version} = null from leasecache_new n where {_same('t', 'n', shape.key)}"
    amend = (
        f"update {log} c set op = 'create', before = null from {table} t, leasecache_new n "
        f"where {_same('t', 'n', shape.key)} and c.version operator(pg_catalog.=) t.{version} "
        "and c.tx operator(pg_catalog.=) pg_catalog.pg_current_xact_id()"
    )
    holes = {
        "table": table,
        "version": version,
        "log": log,
        "name": literal(shape.table.given),
        "sequence": f"{literal(home + 'leasecache_version')}::pg_catalog.regclass",
        "rekeyed": " or ".join(f"old.{quote(c.name)} is distinct from new.{quote(c.name)}" for c in shape.key),
        "t_is_new": _same("t", "new", shape.key),
        "t_is_n": _same("t", "n", shape.key),
        "redraw": literal(redraw),
        "amend": literal(amend),
        "referencing_updates": "referencing "
        + ("old table as leasecache_old " if shape.watch else "")
        + "new table as leasecache_new",
        "notify": f"if pg_catalog.int8gt(pg_catalog.pg_sequence_last_value({waiting}), "
        "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::pg_catalog.int8) then\n"
        f"        perform pg_catalog.pg_notify({literal(CHANNEL)}, '');\n    end if;",
    }
    for row in ("n", "o", "old"):
        holes[f"key_of_{row}"] = _json(row, shape.key)
        holes[f"watched_of_{row}"] = _json(row, shape.watch) if shape.watch else "null"
    holes["log_updates"] = fill(_watched_updates(shape) if shape.watch else _plain_updates(), holes)
    return holes


def _plain_updates() -> str:
    """Rows whose key changes have no version yet: they are `rekeyed`'s."""
    return """begin
    insert into {{log}} (version, tbl, op, key)
    select n.{{version}}, {{name}}, 'update', {{key_of_n}}
    from leasecache_new n where n.{{version}} is not null;
    {{notify}}
    return null;
end"""


def _watched_updates(shape: TableShape) -> str:
    """One row needs no join, and many need one that is planned for as many (execute)."""
    insert = """insert into {{log}} (version, tbl, op, key, before, after)
    select n.{{version}}, {{name}}, 'update', {{key_of_n}}, {{watched_of_o}}, {{watched_of_n}}
    from leasecache_new n, leasecache_old o where n.{{version}} is not null"""
    paired = f"{insert} and {_same('o', 'n', shape.key)}"
    return f"""declare
    n bigint;
begin
    select pg_catalog.count(*) into n from (select 1 from leasecache_new limit 2) two;
    if pg_catalog.int8eq(n, 1) then
        {insert};
    else
        execute {{{{paired}}}};
    end if;
    {{{{notify}}}}
    return null;
end""".replace("{{paired}}", "$paired$" + paired + "$paired$")


def _same(one: str, other: str, key: Iterable[Column]) -> str:
    return " and ".join(f"{one}.{quote(c.name)} operator(pg_catalog.=) {other}.{quote(c.name)}" for c in key)


def _json(row: str, columns: Iterable[Column]) -> str:
    """An expression for a JSON object as text: `concat` of parts, a third cheaper than jsonb."""
    parts: list[str] = []
    for at, column in enumerate(columns):
        value = f"{row}.{quote(column.name)}"
        if column.type not in _PLAIN:
            value = f"pg_catalog.to_json({value})"
        if column.nullable:
            value = f"coalesce({value}::pg_catalog.text, 'null')"
        label = json.dumps(column.name)
        parts += [literal(("{" if at == 0 else ", ") + f"{label}: "), value]
    return f"pg_catalog.concat({', '.join(parts)}, '}}')"
