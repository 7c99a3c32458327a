"""What the chain's tests cache of a MariaDB; the daemon imports it as an application's module.

No store of ours is a MariaDB: loaders open their own connection, and the store beside it keeps the layout only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pymysql

from cachelib import Entity
from cachelib.model import Row
from tests.servers.ports import HOST

SHOP = "shop"
TABLES: Mapping[str, Mapping[str, str]] = {
    "customers": {"id": "int unsigned"},
    "lines": {"shop": "varchar(40)", "number": "int"},
    "pages": {"slug": "varchar(400)"},
    "prices": {"day": "date", "amount": "decimal(12,3)", "code": "varbinary(8)"},
    "things": {"word": "uuid", "big": "bigint unsigned", "yes": "tinyint(1)"},
}
"""Their keys' columns; each table has a note and a version beside them, and `lines` a customer."""
TEMPLATES = {
    "customers": "customers:{id:int}",
    "lines": "lines:{shop:str}:{number:int}",
    "pages": "pages:{slug:str}",
    "prices": "prices:{day:date}:{amount:decimal}:{code:bytes}",
    "things": "things:{word:uuid}:{big:int}:{yes:int}",
}


def schema() -> list[str]:
    """The tables, in the database of the connection. The version counts a row's changes."""
    found = []
    for table, key in TABLES.items():
        columns = [f"{name} {kind} not null" for name, kind in key.items()]
        columns += ["customer_id int not null"] if table == "lines" else []
        columns += ["note text not null", "row_version bigint not null default 1", f"primary key ({', '.join(key)})"]
        found.append(f"create table `{table}` ({', '.join(columns)})")
        found.append(
            f"create trigger {table}_version before update on `{table}` for each row"
            " set new.row_version = old.row_version + 1"
        )
    return found


def rows(port: int, asked: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """What a statement gives, on a connection of its own."""
    connection = pymysql.connect(host=HOST, port=port, user="root", database=SHOP, autocommit=True)
    try:
        with connection.cursor() as cursor:
            cursor.execute(asked, parameters or None)
            return list(cursor.fetchall())
    finally:
        connection.close()


def _loader(port: int, table: str, version: str | None) -> Any:
    columns = list(TABLES[table])

    def load(_: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
        several = [key if len(columns) > 1 else (key,) for key in keys]
        one = "(" + " and ".join(f"{column} = %s" for column in columns) + ")"
        asked = f"select {', '.join(columns)}, note, {version or 'null'} from `{table}` where "
        width = len(columns)
        return {
            row[0] if width == 1 else tuple(row[:width]): Row(list(row[width:]), row[-1])
            for row in rows(port, asked + " or ".join([one] * len(several)), [part for key in several for part in key])
        }

    return load


def _lines_of(port: int) -> Any:
    def load(_: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        found: dict[Any, list[Any]] = {key: [] for key in keys}
        several = ", ".join(["%s"] * len(keys))
        asked = f"select customer_id, shop, number, note from `lines` where customer_id in ({several})"
        for customer, *row in rows(port, asked + " order by shop, number", keys):
            found[customer].append(row)
        return found

    return load


def entities(port: int, version: str | None) -> list[Entity]:
    """Over the server at a port."""
    made = [
        Entity(TEMPLATES[table], table=table, key=tuple(key), version=version, load=_loader(port, table, version))
        for table, key in TABLES.items()
    ]
    return [*made, Entity("lines-of:{customer_id:int}", load=_lines_of(port), depends_on={"lines": "customer_id"})]


VERSIONED = entities(0, "row_version")
"""For the daemon, which loads nothing."""
BARE = entities(0, None)
