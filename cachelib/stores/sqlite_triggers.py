"""Fill in `triggers/sqlite.sql` for one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cachelib.stores.names import Column, TableShape, literal, quote
from cachelib.stores.templates import fill, sections

PREFIX = "leasecache_"


@dataclass(frozen=True, slots=True)
class Script:
    """The statements that make one table's triggers, by trigger name."""

    triggers: dict[str, str]

    @property
    def digest(self) -> str:
        """Tells whether installed triggers are those that would be made now."""
        return hashlib.sha256("\n".join(self.triggers.values()).encode()).hexdigest()


def script(shape: TableShape) -> Script:
    """The triggers of a table. Their names carry the table's: SQLite has one space for all."""
    holes = _holes(shape)
    return Script(
        {
            name: f"create trigger {quote(name)} {fill(body, holes)}"
            for _, title, body in sections("sqlite.sql")
            for name in [f"{PREFIX}{title}_{shape.table.name}"]
        }
    )


def _holes(shape: TableShape) -> dict[str, str]:
    key, version = shape.key, quote(shape.version)
    unique = {tuple(c.name for c in key): None} | dict.fromkeys(shape.unique)
    last = "from leasecache_changes order by id desc limit 1"
    holes = {
        "table": quote(shape.table.name),
        "version": version,
        "name": literal(shape.table.given),
        "rekeyed": _differ(c.name for c in key),
        "unique_changed": _differ(sorted({name for columns in unique for name in columns})),
        "in_the_way": " or ".join(f"({_equal('gone', 'new', columns)})" for columns in unique),
        "gone_is_old": _equal("gone", "old", (c.name for c in key)),
        "this_row": f"{shape.rowid} = new.{shape.rowid}"
        if shape.rowid
        else " and ".join(f"{quote(c.name)} = new.{quote(c.name)}" for c in key),
        "not_ours": f"(new.{version} is old.{version} or new.{version} is not (select id {last}) "
        f"or not (select tbl = {literal(shape.table.given)} and key = {_json('new', key)} {last}))",
    }
    for row in ("new", "old", "gone"):
        holes[f"key_of_{row}"] = _json(row, key)
        holes[f"watched_of_{row}"] = _json(row, shape.watch) if shape.watch else "null"
    return holes


def _differ(columns: Iterable[str]) -> str:
    return " or ".join(f"old.{quote(c)} is not new.{quote(c)}" for c in columns)


def _equal(one: str, other: str, columns: Iterable[str]) -> str:
    return " and ".join(f"{one}.{quote(c)} = {other}.{quote(c)}" for c in columns)


def _json(row: str, columns: Iterable[Column]) -> str:
    return "json_object(" + ", ".join(f"{literal(c.name)}, {_value(f'{row}.{quote(c.name)}')}" for c in columns) + ")"


def _value(value: str) -> str:
    """What JSON cannot hold must not make the application's statement fail: told as text."""
    finite = f"iif(abs({value}) < 9e999, {value}, cast({value} as text))"
    return f"case typeof({value}) when 'blob' then hex({value}) when 'real' then {finite} else {value} end"
