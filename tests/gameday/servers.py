"""What all incidents of one backend share: the store, the cache, and the log that the daemon reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from cachelib.stores import SqlStore
from tests.charts.generate import CHART
from tests.gameday import shop
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.memcached import MemcachedServer
from tests.servers.postgresql import USER, PostgresServer
from tests.servers.process import Server, ServerFailed
from tests.servers.proxy import FaultyProxy
from tests.servers.redis import RedisServer
from tests.servers.together import Together

DAEMON, APP = "shop_daemon", "shop_app"
"""Roles of the store, as a platform has them: neither owns what it works with."""
DEAD, RELAYED = "shop.dead", "shop.changes"
APPS_RIGHTS = (
    f"create role {APP} login",
    f"grant select, insert, update, delete on customers, boards to {APP}",
    # As stores/README.md says of who runs transactions, and publishes layouts.
    f"grant select on leasecache_changes, leasecache_tables, leasecache_meta, leasecache_version to {APP}",
    f"grant select, insert, update on leasecache_layout to {APP}",
)
_TRIES = 6


@dataclass
class Servers(Together):
    """`log`: what the daemon reads, the store's own log, or topics that the connector or the relay fills."""

    backend: str
    factor: float
    stack: ExitStack
    log: Literal["outbox", "connector", "relay"] = "connector"
    kafka: KafkaServer | None = None
    debezium: Debezium | None = None
    database: str = ""
    postgres: PostgresServer = field(init=False)
    cache: RedisServer | MemcachedServer = field(init=False)
    second: RedisServer | MemcachedServer = field(init=False)
    network: FaultyProxy = field(init=False)

    def _start(self) -> None:
        self.postgres = self.stack.enter_context(PostgresServer())
        # One for all: a node that the daemon does not know, with a log that has begun, would be voided by right.
        self.cache = self.stack.enter_context(self._node())
        self.database = self.postgres.create_database("shop")
        with self.connect() as connection, SqlStore(self.store_url) as store:
            for statement in shop.SCHEMA:
                connection.execute(statement)
            for table in ("customers", "boards"):
                store.install(table, key="id", watch="tier")  # what a refreshed customer is made of
                fill = f"insert into {table} (id, tier) select g, 'first' from generate_series(0, {shop.ROWS - 1}) g"
                connection.execute(fill)
            for statement in (*daemons_rights(), *APPS_RIGHTS):
                connection.execute(statement)  # type: ignore[call-overload]
        if self.log != "outbox":
            self.kafka = self.stack.enter_context(KafkaServer())
            self.kafka.create_topic(DEAD)
        if self.log == "connector":
            self.new_connector()
        elif self.kafka is not None:
            self.kafka.create_topic(RELAYED, 2)

    def new_connector(self) -> None:
        """Debezium, from now on; a slot of its own."""
        assert self.kafka is not None
        options = {"heartbeat.interval.ms": 100, "topic.creation.default.partitions": 2}
        tables = ["public.customers", "public.boards"]
        self.debezium = Debezium(self.kafka, self.postgres, self.database, tables, options=options)
        for table in ("customers", "boards"):
            if not self._exists(self.debezium.topic(table)):
                self.kafka.create_topic(self.debezium.topic(table), 2)
        start(self.debezium)
        self.stack.callback(self.debezium.close)

    def _exists(self, topic: str) -> bool:
        assert self.kafka is not None
        with self.kafka.admin() as admin:
            return topic in admin.list_topics()

    def add_node(self) -> str:
        """A second node, behind a network that may become slow or end; its URL."""
        self.second = self.stack.enter_context(self._node())
        self.network = FaultyProxy(self.second.port)
        self.stack.callback(self.network.close)
        return self.second.url.replace(f":{self.second.port}", f":{self.network.port}")

    def _node(self) -> RedisServer | MemcachedServer:
        return RedisServer() if self.backend == "redis" else MemcachedServer()

    @property
    def store_url(self) -> str:
        """For its owner."""
        return self.postgres.url_of(self.database)

    def url_for(self, role: str) -> str:
        """For one of the roles."""
        return self.store_url.replace(f"{USER}@", f"{role}@")

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """The store, for whoever works on it by hand."""
        with self.postgres.connect(self.database) as connection:
            yield connection

    def whole(self) -> None:
        """Everything runs that an incident may have ended."""
        if not self.cache.running:
            start(self.cache)
        if self.kafka is not None and not self.kafka.running:
            start(self.kafka)
        if self.debezium is not None:
            self.mend_connect()

    def mend_connect(self) -> None:
        """Connect's own people start a task again that gave up while its broker was away."""
        assert self.debezium is not None
        try:
            if self.debezium.running and self.debezium.answers():
                return
        except (ServerFailed, OSError):
            pass  # it must be started again
        self.debezium.kill()
        start(self.debezium)


def daemons_rights() -> list[str]:
    """What the chart's README says that is enough for the daemon and the verifier: so it is."""
    block = re.search(r"```sql\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    assert block, "the chart's README names no rights"
    told = [line.replace("USER", DAEMON) for line in block[1].splitlines()]
    return [f"create role {DAEMON} login", *told, f"grant select on customers, boards to {DAEMON}"]


def start(server: Server) -> None:
    """Start it; on a busy machine that may take more than one try."""
    for tried in range(_TRIES):
        try:
            server.start()
            return
        except ServerFailed:
            if tried == _TRIES - 1:
                raise
