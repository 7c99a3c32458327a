"""The SQL types of columns that JSON cannot carry, asked of the store.

A topic without schemas has a day as a number and 12.50 as "BOI=": only the column's type tells the key that the
library makes of the row. So the daemon asks the store, as it starts and when it takes new rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cachelib.stores import SqlStore
from invalidator.formats.columns import Encodings
from invalidator.formats.connect_json import Types
from invalidator.logs import Log
from invalidator.settings import KafkaSourceSettings, Settings

_COLUMNS = """
select a.attname, case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod)
    else format_type(a.atttypid, a.atttypmod) end
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = to_regclass(:name) and a.attnum > 0 and not a.attisdropped
"""
_CONVERTED = ("numeric", "date", "bytea")
"""Types of which a record without a schema has something else than the database's driver gives."""


def encodings(source: KafkaSourceSettings) -> Encodings:
    """How the connector was told to write them."""
    return Encodings(source.decimals, source.binaries, source.dates == "iso")


class ColumnTypes:
    """`types` serves all decoders, and is told of tables by `learn`."""

    def __init__(self, settings: Settings, store: SqlStore, log: Log) -> None:
        self.types = Types(encodings=encodings(settings.kafka_source))
        self._store = store
        self._log = log
        # SQLite's changes come by the relay only, which has the values as the database gives them.
        self._asks = settings.store_url().startswith("postgresql")
        self._said: dict[str, Mapping[str, str]] = {}

    def learn(self, tables: Iterable[str]) -> None:
        """Ask for the types of these. Raises `StoreError`: without them keys would be other keys."""
        for table in tables if self._asks else ():
            found: Mapping[str, str] = self._store.load(_columns, [table]).rows[table]  # type: ignore[assignment]
            if found != self._said.get(table, {}):
                self._said[table] = found
                self.types.say(table, found)
                self._log.info("columns that JSON cannot carry", table=table, **found)


def _columns(tx: Any, tables: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    return {table: _of(tx, table) for table in tables}


def _of(tx: Any, table: str) -> Mapping[str, str]:
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))
    rows = tx.execute(_COLUMNS, {"name": quoted})
    return {name: kind for name, kind in rows if kind.partition("(")[0] in _CONVERTED}
