"""MariaDB, Debezium, Kafka, the daemon as a process, and Redis and Memcached behind it, in one piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from cachelib import Cache, Entity
from cachelib.stores import SqlStore
from tests.integration.chain_world import Chain
from tests.integration.invalidator_daemon import Daemon
from tests.mariadb.captured import FLAT
from tests.mariadb.entities import SHOP, TABLES, entities, schema
from tests.servers.connect_mariadb import MariaDebezium
from tests.servers.kafka import KafkaServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer

CUSTOMERS = range(40)
SHOPS = ("main", "Köln ☃", "a/b:c%20 ", "a/b:c%20")
SLUGS = ("home", "HOME", "Über uns", "漢字", "𝄞 clef", "with 'quotes' and \\", "x" * 300)
DAYS = [date(2024, 2, 28) + timedelta(days) for days in range(3)]
AMOUNTS = [Decimal("0.000"), Decimal("12.500"), Decimal("-7.125")]
CODES = [b"\x00\xff\x00", b"A"]
WORDS = [UUID(int=1 << 96 | number) for number in range(2)]
BIGS = [1, 2**63 - 1, 2**64 - 1]


@dataclass(frozen=True)
class Setup:
    """One way to set up a connector. `exact`: it needs no new epochs but for truncates and changes of the schema;
    `truncates`: its topics tell them."""

    name: str
    schemas: bool = True
    versioned: bool = True
    exact: bool = True
    truncates: bool = True
    options: Mapping[str, object] = field(default_factory=dict)


SETUPS = (
    Setup("versioned"),
    Setup("bare", versioned=False),
    Setup("without_schemas", schemas=False, exact=False),
    Setup("flattened", versioned=False, exact=False, truncates=False, options=FLAT),
)


@dataclass(frozen=True)
class Servers:
    """What all setups share."""

    kafka: KafkaServer
    redis: RedisServer
    memcached: MemcachedServer


class MariaChain(Chain):
    """A `Chain` over a MariaDB."""

    def __init__(self, setup: Setup, cursor: Any, mine: Sequence[Entity], caches: Sequence[Cache], daemon: Daemon):
        super().__init__(setup, cursor, caches, daemon)  # type: ignore[arg-type]
        self._cursor = cursor
        self._mine = mine

    def transaction(self, *statements: str) -> None:
        self.sql("begin", *statements, "commit")

    def fill(self) -> None:
        add = self._cursor.executemany
        self.sql("begin")
        add("insert into customers (id, note) values (%s, 'first')", [(number,) for number in CUSTOMERS[:-4]])
        add(
            "insert into `lines` (shop, number, customer_id, note) values (%s, %s, %s, 'first')",
            [(shop, n, (n * 7 + at) % 35) for at, shop in enumerate(SHOPS) for n in range(20)],
        )
        add("insert into pages (slug, note) values (%s, 'first')", [(slug,) for slug in SLUGS[:4]])
        prices = [(day, amount, CODES[0]) for day in DAYS[:-1] for amount in AMOUNTS]
        add("insert into prices (day, amount, code, note) values (%s, %s, %s, 'first')", prices)
        things = [(str(word), big, True) for word in WORDS for big in BIGS]
        add("insert into things (word, big, yes, note) values (%s, %s, %s, 'first')", things)
        self.sql("commit")

    def keys(self) -> Iterator[tuple[Entity, list[Any]]]:
        found: dict[str, list[Any]] = {
            "customers": list(CUSTOMERS),
            "lines": [(shop, number) for shop in SHOPS for number in range(25)],
            "pages": list(SLUGS),
            "prices": [(day, amount, code) for day in DAYS for amount in AMOUNTS for code in CODES],
            "things": [(str(word), big, yes) for word in WORDS for big in BIGS for yes in (0, 1)],
        }
        for entity in self._mine:
            yield entity, found.get(entity.table or "", list(CUSTOMERS))

    def truth(self, entity: Entity, keys: Sequence[Any]) -> dict[Any, Any]:
        if entity.table is None:
            found: dict[Any, Any] = {key: [] for key in keys}
            self._cursor.execute("select customer_id, shop, number, note from `lines` order by shop, number")
            for customer, *row in self._cursor.fetchall():
                found[customer].append(row)
            return found
        width = len(entity.key)
        asked = f"select {', '.join(entity.key)}, note, {entity.version or 'null'} from `{entity.table}`"
        self._cursor.execute(asked)
        return {row[0] if width == 1 else tuple(row[:width]): list(row[width:]) for row in self._cursor.fetchall()}


@contextmanager
def chain(setup: Setup, servers: Servers, folder: Path) -> Iterator[MariaChain]:
    """One setup, from an empty server to a daemon that is ready."""
    layout = f"sqlite:///{folder / 'layout.db'}"
    with ExitStack() as stack:
        mariadb = stack.enter_context(MariaDBServer())
        with mariadb.connect() as admin:
            admin.execute(f"create database {SHOP}")
        cursor = stack.enter_context(mariadb.connect(SHOP))
        for statement in schema():
            cursor.execute(statement)
        captured = [f"{SHOP}.{table}" for table in TABLES]
        debezium = MariaDebezium(
            servers.kafka, mariadb, captured, prefix=setup.name, schemas=setup.schemas, options=setup.options
        )
        topics = [f"{setup.name}.{table}" for table in captured]
        for topic in topics:
            servers.kafka.create_topic(topic, 3)
        more = [setup.name, f"__debezium-heartbeat.{setup.name}"]  # changes of the schema; heartbeats
        for topic in more:
            servers.kafka.create_topic(topic)
        stack.enter_context(debezium)
        nodes = [servers.redis.url, servers.memcached.url]
        daemon = Daemon(
            folder,
            layout,
            nodes,
            source={"kind": "kafka"},
            kafka={"bootstrap": [servers.kafka.bootstrap]},
            kafka_source={"topics": [*topics, *more], "group": setup.name, "home": [SHOP]},
        )
        daemon.settings["namespace"] = setup.name
        daemon.settings["entities"] = [f"tests.mariadb.entities:{'VERSIONED' if setup.versioned else 'BARE'}"]
        daemon.write()
        stack.enter_context(daemon)
        store = stack.enter_context(SqlStore(layout))
        caches = [stack.enter_context(Cache(node, store=store, namespace=setup.name)) for node in nodes]
        mine = entities(mariadb.port, "row_version" if setup.versioned else None)
        made = MariaChain(setup, cursor, mine, caches, daemon)
        made.fill()
        yield made
