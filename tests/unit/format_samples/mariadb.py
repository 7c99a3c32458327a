"""What real Debezium wrote of a real MariaDB for the statements in `WORK`, and how it must be read.

The `mariadb_*.jsonl` files are as those of PostgreSQL; `mysql_plain.jsonl` is by the connector for MySQL, of the same
server. `KEEP_SAMPLES=1 make mariadb` writes them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from invalidator.formats.base import Decoder, Tables
from invalidator.formats.connect_json import Types
from invalidator.formats.debezium import Debezium
from invalidator.formats.flattened import Flattened
from tests.unit.format_samples import KOELN, LINE, UNKNOWN

HOME = Tables(frozenset(["shop"]))
"""The application's database is `shop`; another is `ops`."""
TYPES = {"ops.lines": {"day": "date", "price": "decimal(10,3)", "code": "varbinary(8)"}}
SCHEMA = (
    "create database shop",
    "create database ops",
    "use shop",
    "create table orders (id int primary key, customer_id int not null, body longtext,"
    " price decimal(12,2) not null default 0, row_version bigint not null default 1)",
    "create table wide (id int primary key, list_id int, day date, at datetime, fine datetime(6),"
    " seen timestamp(6) null, clock time(6), exact decimal(39,9), blob_ longblob, doc json, word uuid,"
    " yes tinyint(1) not null default 1, kind enum('one', 'zwölf'), some_ set('a', 'b'), big bigint unsigned,"
    " old_ varchar(20) character set latin1, row_version bigint not null default 1)",
    "create table ops.lines (shop varchar(40), item uuid, day date, price decimal(10,3), code varbinary(8), qty bigint,"
    " row_version bigint not null default 1, primary key (shop, item, day, price, code))",
    "create table old (id int primary key, note text)",
    "insert into old values (1, 'from before the connector')",
    "create table ending (id int primary key)",
)
WORK = (
    "insert into orders values (1, 7, repeat('long', 6), 12.50, 1)",
    "update orders set customer_id = 8, row_version = 2 where id = 1",
    "update orders set id = 2, row_version = 3 where id = 1",
    "delete from orders where id = 2",
    "insert into wide values (1, 5, '2024-02-29', '2024-02-29 12:34:56', '2024-02-29 12:34:56.789012',"
    " '2024-02-29 10:34:56.5', '23:59:59.999999', 123456789012345678901234567890.123456789, x'00ff',"
    f" '{{\"a\": 1}}', '{LINE}', true, 'zwölf', 'a,b', 9223372036854775807, 'Über', 1)",
    "update wide set list_id = 6, row_version = 2 where id = 1",
    "update wide set list_id = null, clock = '838:59:59', row_version = 3 where id = 1",
    "delete from wide where id = 1",
    f"insert into ops.lines values ('{KOELN}', '{LINE}', '2024-02-29', 12.500, x'00ff41', 1, 1)",
    "update ops.lines set qty = 2, row_version = 2",
    "delete from ops.lines",
    "begin; insert into orders values (3, 7, null, 0, 1); insert into old values (2, 'in one transaction'); commit",
    "replace into orders (id, customer_id) values (3, 8)",  # logged as an update
    "update orders set customer_id = 9 where id = 3",  # by somebody who does not know of versions
    "truncate orders",
    "alter table old add column more int not null default 5",
    "rename table old to renamed",
    "drop table renamed",
    "create or replace table old (id int primary key)",
)
BY_TABLE = {
    "orders": [
        ("create", 1, 1, None, 7),
        ("update", 1, 2, 7, 8),
        ("delete", 1, None, 8, None),  # a change of the key
        ("create", 2, 3, None, 8),
        ("delete", 2, None, 8, None),
        ("create", 3, 1, None, 7),
        ("update", 3, None, 7, 8),
        ("update", 3, None, 8, 9),
        ("truncate", None, None, None, None),
    ],
    "wide": [
        ("create", 1, 1, None, 5),
        ("update", 1, 2, 5, 6),
        ("update", 1, 3, 6, None),
        ("delete", 1, None, None, None),
    ],
    "ops.lines": [
        ("create", KOELN, 1, None, 1),
        ("update", KOELN, 2, 1, 2),
        ("delete", KOELN, None, 2, None),
    ],
}
"""Every image is whole: what a row was is always known."""
AS_THE_DRIVER_HAS_IT: Mapping[str, Any] = {
    "id": 1,
    "list_id": 5,
    "day": date(2024, 2, 29),
    "at": datetime(2024, 2, 29, 12, 34, 56),
    "fine": datetime(2024, 2, 29, 12, 34, 56, 789012),
    "clock": time(23, 59, 59, 999999),
    "exact": Decimal("123456789012345678901234567890.123456789"),
    "blob_": b"\x00\xff",
    "doc": '{"a": 1}',
    "word": LINE,
    "yes": 1,
    "kind": "zwölf",
    "some_": "a,b",
    "big": 2**63 - 1,
    "old_": "Über",
    "row_version": 1,
}
"""The row of `wide` as it was created, but for `seen`, which comes with its zone."""


@dataclass(frozen=True)
class KeyType:
    """A table whose key is of one type: what was inserted, what the driver gives, and as which it may be declared."""

    name: str
    sql: str
    literal: str
    value: Any
    kinds: tuple[str, ...]
    late: bool = False
    """Its table is made while the connector runs, which then knows it by another road."""

    @property
    def table(self) -> str:
        """The table's name."""
        return f"key_{self.name}"


KEY_TYPES = (
    KeyType("int", "int", "-2147483648", -(2**31), ("int", "any")),
    KeyType("int_unsigned", "int unsigned", "4294967295", 2**32 - 1, ("int", "any")),
    KeyType("mediumint", "mediumint unsigned", "16777215", 2**24 - 1, ("int", "any")),
    KeyType("bigint", "bigint", "-9223372036854775808", -(2**63), ("int", "any")),
    KeyType("bigint_unsigned", "bigint unsigned", "9223372036854775807", 2**63 - 1, ("int", "any")),
    KeyType("bigint_huge", "bigint unsigned", "18446744073709551615", 2**64 - 1, ("int", "any")),
    KeyType("tinyint1", "tinyint(1)", "1", 1, ("int", "any")),
    KeyType("boolean", "boolean", "true", 1, ("int", "any")),
    KeyType("late_boolean", "boolean", "true", 1, ("int", "any"), late=True),
    KeyType("late_tinyint1", "tinyint(1)", "true", 1, ("int", "any"), late=True),
    KeyType("late_huge", "bigint unsigned", "18446744073709551614", 2**64 - 2, ("int", "any"), late=True),
    KeyType("late_uuid", "uuid", f"'{LINE}'", LINE, ("uuid", "str", "any"), late=True),
    KeyType("year", "year", "2024", 2024, ("int", "any")),
    KeyType("text", "varchar(40)", f"'{KOELN}'", KOELN, ("str", "any")),
    KeyType("latin1", "varchar(40) character set latin1", "'Über'", "Über", ("str", "any")),
    KeyType("char", "char(8)", "'ab  '", "ab", ("str", "any")),
    KeyType("enum", "enum('one', 'zwölf')", "'zwölf'", "zwölf", ("str", "any")),
    KeyType("uuid", "uuid", f"'{LINE}'", LINE, ("uuid", "str", "any")),
    *(
        KeyType(f"uuid_{name}", "uuid", f"'{text}'", text, ("uuid", "str", "any"))
        for name, text in (
            ("zeros", "00000001-0000-0000-0000-000000000000"),
            ("v1", "6f1e0000-1c2d-11ee-8a5b-012345678900"),
            ("v4", "6f1e0000-1c2d-4e3f-8a5b-0123456789ab"),
            ("v4_last", "6f1ecafe-1c2d-4e3f-8a5b-012345678900"),
            ("v7", "018f1e00-1c2d-7e3f-8a5b-012345678900"),
        )
    ),
    KeyType("decimal", "decimal(12,2)", "-1234567890.10", Decimal("-1234567890.10"), ("decimal", "any")),
    KeyType("decimal_large", "decimal(38,0)", "9" * 38, Decimal("9" * 38), ("decimal", "int", "any")),
    KeyType("date", "date", "'2024-02-29'", date(2024, 2, 29), ("date", "any")),
    KeyType("varbinary", "varbinary(8)", "x'00ff4100'", b"\x00\xffA\x00", ("bytes",)),
    KeyType("binary", "binary(8)", "x'00ff4100'", b"\x00\xffA\x00\x00\x00\x00\x00", ("bytes",)),
)


def decoders() -> Mapping[str, Decoder]:
    """By connector. Where there is no schema, types are said that change what a key is."""
    said = TYPES | {
        one.table: {"k": one.sql} for one in KEY_TYPES if one.sql.startswith(("decimal", "date", "binary", "varbinary"))
    }
    return {
        "mariadb_plain": Debezium(tables=HOME, types=Types(said)),
        "mariadb_schema": Debezium(tables=HOME),
        "mysql_plain": Debezium(tables=HOME),
        "mariadb_flat": Flattened(tables=HOME, types=Types(TYPES)),
    }


def flattened() -> Mapping[str, list[tuple[Any, ...]]]:
    """What is left of `BY_TABLE` by the transform: no image before, and no truncate."""
    orders = [
        (op, key, version or (1 if op == "update" else None), *lists)  # whether it rose is not known
        for op, key, version, *lists in BY_TABLE["orders"]
    ]
    rows = {"orders": orders[:-1], "ops.lines": BY_TABLE["ops.lines"]}
    return {
        table: [(op, key, version, None if op == "create" else UNKNOWN, now) for op, key, version, _, now in told]
        for table, told in rows.items()
    }
