"""What real Debezium wrote for the statements in `WORK`, and how it must be read.

The `.jsonl` files hold a record a line, as four connectors sent them: without schemas (and with the change log's own
table), with schemas, through `ExtractNewRecordState`, and the change log through the outbox event router.
`KEEP_SAMPLES=1 python -m pytest tests/integration/test_format_debezium.py` writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachelib.model import RowChange
from invalidator.formats.base import Changes, Decoder

HERE = Path(__file__).parent
TYPES = {"ops.lines": {"day": "date", "price": "numeric(10,3)", "code": "bytea"}}
"""What must be said of columns of keys where there is no schema."""
SCHEMA = """
create schema ops;
create table orders (id int primary key, customer_id int not null, body text, price numeric(12,2) not null default 0);
alter table orders alter column body set storage external;
create table wide (id int primary key, list_id int, day date, at timestamp, seen timestamptz, clock time,
    exact numeric, blob bytea, doc jsonb, word uuid, yes boolean not null default true, tags text[]);
alter table wide replica identity full;
create table ops.lines (shop text, item uuid, day date, price numeric(10,3), code bytea, qty bigint,
    primary key (shop, item, day, price, code));
create table ending (id int primary key);
"""
LINE = "11111111-2222-3333-4444-555555555555"
WORK = (
    "insert into orders values (1, 7, repeat('long', 600), 12.50)",
    "update orders set customer_id = 8 where id = 1",
    "update orders set id = 2 where id = 1",
    "delete from orders where id = 2",
    "insert into wide (id, list_id, day, at, seen, clock, exact, blob, doc, word, tags) values (1, 5,"
    " '2024-02-29', '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56.5+02', '23:59:59.999999',"
    f" 123456789012345678901234567890.123456789, '\\x00ff', '{{}}', '{LINE}', array['a'])",
    "update wide set list_id = 6 where id = 1",
    "update wide set list_id = null, day = '-infinity', clock = '24:00' where id = 1",
    "delete from wide where id = 1",
    f"insert into ops.lines values ('Köln ☃ 𝄞', '{LINE}', '2024-02-29', 12.500, '\\x00ff41', 1)",
    "update ops.lines set qty = 2",
    "delete from ops.lines",
    "truncate orders",
)
KOELN = "Köln ☃ 𝄞"
UNKNOWN = "unknown"
_LISTS = {"orders": "customer_id", "wide": "list_id", "ops.lines": "qty"}


@dataclass(frozen=True)
class Seen:
    """A record as it stood in a topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    def line(self) -> str:
        """For a file; without the headers by which the connector names itself."""
        headers = [[name, _text(value)] for name, value in self.headers if "context" not in name]
        return json.dumps([self.topic, _text(self.key), _text(self.value), headers], ensure_ascii=False)


def load(name: str) -> list[Seen]:
    """The records of one connector."""
    lines = (HERE / f"{name}.jsonl").read_text().splitlines()
    return [
        Seen(topic, _raw(key), _raw(value), tuple((header, _raw(given)) for header, given in headers))
        for topic, key, value, headers in map(json.loads, lines)
    ]


def changes_of(decoder: Decoder, seen: Iterable[Seen]) -> list[RowChange]:
    """All changes that the records tell of, in their order."""
    answers = [decoder(one.topic, one.key, one.value, one.headers) for one in seen]
    return [change for answer in answers if isinstance(answer, Changes) for change in answer.changes]


def told(decoder: Decoder, seen: Iterable[Seen]) -> dict[str, list[tuple[Any, ...]]]:
    """By table: operation, first column of the key, version, and the list that the row was and is on."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for change in changes_of(decoder, seen):
        if change.table in _LISTS:
            was, now = (_list(change.table, image) for image in (change.before, change.after))
            first = next(iter(change.key.values()), None)
            found.setdefault(change.table, []).append((change.op, first, change.version, was, now))
    return found


def _list(table: str, image: Any) -> Any:
    return None if image is None else image.get(_LISTS[table], UNKNOWN)


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode()


def _raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


BY_TABLE = {
    "orders": [  # REPLICA IDENTITY DEFAULT: what was is never known
        ("create", 1, 2, None, 7),
        ("update", 1, 3, UNKNOWN, 8),
        ("delete", 1, None, UNKNOWN, None),  # a change of the key
        ("create", 2, None, None, 8),
        ("update", 2, 5, UNKNOWN, 8),
        ("delete", 2, None, UNKNOWN, None),
        ("truncate", None, None, None, None),
    ],
    "wide": [  # FULL
        ("create", 1, 7, None, 5),
        ("update", 1, 8, 5, 6),
        ("update", 1, 9, 6, None),
        ("delete", 1, None, None, None),  # NULL, not unknown: it was on no list
    ],
    "ops.lines": [
        ("create", KOELN, 11, None, 1),
        ("update", KOELN, 12, UNKNOWN, 2),
        ("delete", KOELN, None, UNKNOWN, None),
    ],
}
"""By the tables' own topics."""
BY_LOG = {
    "orders": [
        ("create", 1, 2, None, 7),
        ("update", 1, 3, 7, 8),
        ("delete", 1, 4, 8, None),
        ("update", 2, 5, 8, 8),  # a row of the log that its own transaction ...
        ("create", 2, 5, None, 8),  # ... puts right; a router does not send that
        ("delete", 2, 6, 8, None),
        ("truncate", None, 14, None, None),
    ],
    "wide": [
        ("create", 1, 7, None, 5),
        ("update", 1, 8, 5, 6),
        ("update", 1, 9, 6, None),
        ("delete", 1, 10, None, None),
    ],
    "ops.lines": [  # qty is not watched
        ("create", KOELN, 11, None, UNKNOWN),
        ("update", KOELN, 12, UNKNOWN, UNKNOWN),
        ("delete", KOELN, 13, UNKNOWN, None),
    ],
}
"""By the change log's table."""
