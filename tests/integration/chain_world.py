"""PostgreSQL, Debezium, Kafka, the daemon as a process, and Redis and Memcached behind it, in one piece."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from cachelib import Cache, Entity
from cachelib.stores import SqlStore
from tests.integration.chain_entities import BARE, SCHEMA, TABLES, VERSIONED
from tests.integration.invalidator_daemon import Daemon, until
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

CUSTOMERS = range(40)
SHOPS = ("main", "Köln ☃", "a/b:c%20 ")
SLUGS = ("home", "Über uns", "漢字", "𝄞 clef", "with 'quotes' and \\", "x" * 300)
DAYS = [date(2024, 2, 28) + timedelta(days) for days in range(3)]
AMOUNTS = [Decimal("0.000"), Decimal("12.500"), Decimal("-7.125")]
CODES = [b"\x00\xff", b"A"]
LOG = "leasecache_changes"
ROLLED_BACK_IN_PART = (
    "savepoint one",
    "update customers set note = 'never'",
    "rollback to savepoint one",
    "update customers set note = 'told' where id = 13",
)
"""A transaction of which only the end is committed."""


@dataclass(frozen=True)
class Setup:
    """One way to set up a connector. `captured`: tables; `exact`: it needs no new epochs but for truncates."""

    name: str
    captured: tuple[str, ...]
    full: bool = False
    installed: bool = True
    exact: bool = True

    @property
    def entities(self) -> Sequence[Entity]:
        return VERSIONED if self.installed else BARE


SETUPS = (
    Setup("identity_default", tuple(TABLES), exact=False),
    Setup("identity_full", tuple(TABLES), full=True),
    Setup("change_log", (LOG,)),
    Setup("nothing_installed", tuple(TABLES), full=True, installed=False),
)


@dataclass(frozen=True)
class Servers:
    """What all setups share."""

    kafka: KafkaServer
    postgres: PostgresServer
    redis: RedisServer
    memcached: MemcachedServer


class Chain:
    """`sql` changes the store behind everybody's back; `agree` waits until no cache says otherwise."""

    def __init__(self, setup: Setup, connection: psycopg.Connection[Any], caches: Sequence[Cache], daemon: Daemon):
        self.setup = setup
        self.daemon = daemon
        self.caches = caches
        self._connection = connection

    def sql(self, *statements: str) -> None:
        """Each a transaction of its own."""
        for statement in statements:
            self._connection.execute(statement)

    def transaction(self, *statements: str) -> None:
        """All in one."""
        with self._connection.transaction():
            self.sql(*statements)

    def fill(self) -> None:
        """The tables as the tests find them; each changes rows of its own."""
        self.transaction(
            f"insert into customers (id, note) select g, 'first' from generate_series(0, {len(CUSTOMERS) - 5}) g",
            *(
                f"insert into lines (shop, number, customer_id, note)"
                f" select '{shop}', g, (g * 7 + {place}) % 35, 'first' from generate_series(0, 19) g"
                for place, shop in enumerate(SHOPS)
            ),
        )
        for slug in SLUGS[:3]:
            self._connection.execute("insert into pages (slug, note) values (%s, 'first')", [slug])
        for day in DAYS[:-1]:
            for amount in AMOUNTS:
                row = [day, amount, CODES[0]]
                self._connection.execute(
                    "insert into prices (day, amount, code, note) values (%s, %s, %s, 'first')", row
                )

    # --- what is cached, and what is true ------------------------------------------------------

    def keys(self) -> Iterator[tuple[Entity, list[Any]]]:
        """Every key that exists, or may."""
        rows = {
            "customers": list(CUSTOMERS),
            "lines": [(shop, number) for shop in SHOPS for number in range(25)],
            "pages": list(SLUGS),
            "prices": [(day, amount, code) for day in DAYS for amount in AMOUNTS for code in CODES],
            "lines-of": list(CUSTOMERS),
        }
        for entity in self.setup.entities:
            yield entity, rows[entity.table or "lines-of"]

    def truth(self, entity: Entity, keys: Sequence[Any]) -> dict[Any, Any]:
        """What the store has."""
        if entity.table is None:
            found: dict[Any, Any] = {key: [] for key in keys}
            asked = "select customer_id, shop, number, note from lines order by shop, number"
            for customer, *row in self._connection.execute(asked):
                found[customer].append(row)
            return found
        version = entity.version or "null"
        rows = self._connection.execute(f"select {', '.join(entity.key)}, note, {version} from {entity.table}")
        width = len(entity.key)
        return {row[0] if width == 1 else tuple(row[:width]): list(row[width:]) for row in rows}

    def warm(self) -> None:
        """Every key is cached, absent ones too: whatever a test changes is a hit before."""
        self.agree(hold_s=0.0)
        for cache in self.caches:
            for entity, keys in self.keys():
                until(lambda c=cache, e=entity, k=keys: all(one.source == "hit" for one in c.read_many(e, k).values()))

    def differences(self) -> Mapping[str, Any]:
        """By cache and entity, the keys that it would serve otherwise than the store has them."""
        found: dict[str, Any] = {}
        for entity, keys in self.keys():
            truth = self.truth(entity, keys)
            for cache, name in zip(self.caches, ("redis", "memcached"), strict=True):
                served = cache.get_many(entity, keys)
                wrong = {key: (served.get(key), truth.get(key)) for key in keys if served.get(key) != truth.get(key)}
                if wrong:
                    found[f"{name} {entity.name}"] = wrong
        return found

    def agree(self, wait_s: float = 15.0, hold_s: float = 0.3) -> None:
        """Until every key of both caches is as in the store; and it must stay so."""
        deadline_s = time.monotonic() + wait_s
        while (wrong := self.differences()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert not wrong, f"still stale: {wrong}\n{self.daemon.log_file.read_text()[-3000:]}"
        time.sleep(hold_s)
        assert not (wrong := self.differences()), f"stale again: {wrong}"

    def epochs(self) -> float:
        """How often entities got new epochs."""
        return self.daemon.metric("epochs_total")


@contextmanager
def chain(setup: Setup, servers: Servers, folder: Path) -> Iterator[Chain]:
    """One setup, from an empty database to a daemon that is ready."""
    database = servers.postgres.create_database(setup.name)
    url = servers.postgres.url_of(database)
    with ExitStack() as stack:
        stack.callback(servers.postgres.drop_database, database)
        connection = stack.enter_context(servers.postgres.connect(database))
        store = stack.enter_context(SqlStore(url))
        _tables(setup, connection, store)
        captured = [f"public.{table}" for table in setup.captured]
        debezium = Debezium(servers.kafka, servers.postgres, database, captured, prefix=setup.name)
        topics = [debezium.topic(table) for table in setup.captured]
        for topic in topics:
            servers.kafka.create_topic(topic, 3)
        stack.enter_context(debezium)
        daemon = Daemon(
            folder,
            url,
            [servers.redis.url, servers.memcached.url],
            source={"kind": "kafka"},
            kafka={"bootstrap": [servers.kafka.bootstrap]},
            kafka_source={
                "topics": topics,
                "group": setup.name,
                "full": list(TABLES) if setup.full else [],
            },
        )
        daemon.settings["namespace"] = setup.name
        daemon.settings["entities"] = [f"tests.integration.chain_entities:{'VERSIONED' if setup.installed else 'BARE'}"]
        daemon.write()
        stack.enter_context(daemon)
        caches = [
            stack.enter_context(Cache(node.url, store=store, namespace=setup.name))
            for node in (servers.redis, servers.memcached)
        ]
        made = Chain(setup, connection, caches, daemon)
        made.fill()
        yield made


def _tables(setup: Setup, connection: psycopg.Connection[Any], store: SqlStore) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    for table, key in TABLES.items():
        if setup.full:
            connection.execute(f"alter table {table} replica identity full")
        if setup.installed:
            store.install(table, key=key, watch="customer_id" if table == "lines" else ())
