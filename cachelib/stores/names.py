"""Names of tables and columns: taken literally, quoted always, and looked up with a hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cachelib.errors import ConfigError

_PART = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


@dataclass(frozen=True, slots=True)
class TableName:
    """A table as the application names it: `given` is what the change log says, too."""

    given: str
    schema: str | None
    name: str

    @property
    def sql(self) -> str:
        """The quoted name."""
        return quote(self.name) if self.schema is None else f"{quote(self.schema)}.{quote(self.name)}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the database declares it."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class TableShape:
    """What the generated SQL depends on. `unique`: further sets of columns that are unique."""

    table: TableName
    key: tuple[Column, ...]
    watch: tuple[Column, ...]
    version: str
    unique: tuple[tuple[str, ...], ...] = ()
    rowid: str | None = None
    """SQLite: a name by which a row's rowid can be had; None for a table without."""


def parse_table(given: str) -> TableName:
    """Split `table`, `schema.table` or their quoted forms. Nothing is folded to lower case."""
    parts: list[str] = []
    at = 0
    while at <= len(given):
        match = _PART.match(given, at)
        if match is None:
            break
        parts.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        at = match.end()
        if at == len(given):
            if len(parts) <= 2:
                return TableName(given, parts[0] if len(parts) == 2 else None, parts[-1])
            break
        if given[at] != ".":
            break
        at += 1
    raise ConfigError(f"{given!r} is not a table's name: write table, schema.table, or quote the parts")


def columns_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def quote(identifier: str) -> str:
    """An SQL identifier, quoted."""
    if not identifier or "\0" in identifier:
        raise ConfigError(f"{identifier!r} is not a name that SQL knows")
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string literal (standard strings: a backslash is a backslash)."""
    return "'" + text.replace("'", "''") + "'"


def for_text(sql: str) -> str:
    """Generated SQL without parameters of its own, made safe inside `sqlalchemy.text`."""
    return sql.replace("\\", "\\\\").replace(":", "\\:")


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint for a wrong name: what was probably meant, else what there is."""
    there = sorted(words)
    close = difflib.get_close_matches(word, there, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "there is " + (", ".join(there[:12]) or "none") + ("" if len(there) <= 12 else ", ...")


def pick(columns: dict[str, Column], wanted: Iterable[str], table: str) -> tuple[Column, ...]:
    """These columns of a table, or an error that names the nearest one."""
    for name in (chosen := tuple(wanted)):
        if name not in columns:
            raise ConfigError(f"table {table!r} has no column {name!r}: {nearest(name, columns)}")
    return tuple(columns[name] for name in chosen)
