"""What the chain's tests cache; the daemon imports it as an application's module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cachelib import Entity
from cachelib.model import Row

SCHEMA = (
    "create table customers (id int primary key, note text not null)",
    "create table lines (shop text, number int, customer_id int not null, note text not null,"
    " primary key (shop, number))",
    "create table pages (slug text primary key, note text not null)",
    "create table prices (day date, amount numeric(12,3), code bytea, note text not null,"
    " primary key (day, amount, code))",
)
TABLES: Mapping[str, tuple[str, ...]] = {
    "customers": ("id",),
    "lines": ("shop", "number"),
    "pages": ("slug",),
    "prices": ("day", "amount", "code"),
}
TEMPLATES = {
    "customers": "customers:{id:int}",
    "lines": "lines:{shop:str}:{number:int}",
    "pages": "pages:{slug:str}",
    "prices": "prices:{day:date}:{amount:decimal}:{code:bytes}",
}


def _loader(table: str, version: str | None) -> Any:
    columns = TABLES[table]

    def load(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        found = {}
        chosen = ", ".join((*columns, "note", version or "null"))
        where = " and ".join(f"{column} = :{column}" for column in columns)
        for key in keys:
            one = key if len(columns) > 1 else (key,)
            for *_, note, number in tx.execute(
                f"select {chosen} from {table} where {where}", dict(zip(columns, one, strict=True))
            ):
                found[key] = Row([note, number], number)
        return found

    return load


def _lines_of(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
    found: dict[Any, list[Any]] = {key: [] for key in keys}
    for key in keys:
        asked = "select shop, number, note from lines where customer_id = :key order by shop, number"
        found[key] = [list(row) for row in tx.execute(asked, {"key": key})]
    return found


def _entities(version: str | None) -> list[Entity]:
    rows = [
        Entity(TEMPLATES[table], table=table, key=key, version=version, load=_loader(table, version), ttl="1h")
        for table, key in TABLES.items()
    ]
    return [*rows, Entity("lines-of:{customer_id:int}", load=_lines_of, depends_on={"lines": "customer_id"}, ttl="1h")]


VERSIONED = _entities("row_version")
BARE = _entities(None)
"""The same of tables that nothing was installed on."""
