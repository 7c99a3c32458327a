"""Everything that a game day needs: store, log, cache, the chart's pods, an application, and Prometheus."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
import yaml

from cachelib import Cache
from cachelib.stores import SqlStore
from tests.charts.pod import ROOT
from tests.gameday import shop
from tests.gameday.cluster import NAMESPACE, Cluster
from tests.gameday.factor import groups
from tests.integration.invalidator_daemon import until
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import free_port
from tests.servers.postgresql import PostgresServer
from tests.servers.process import Server, ServerFailed
from tests.servers.prometheus import PrometheusServer
from tests.servers.redis import RedisServer

DEAD, RELAYED = "shop.dead", "shop.changes"
_TRIES = 6
SHOP_MODULE = Path(shop.__file__).read_text()
LOAD = {"read_rate": 60, "write_rate": 5, "sql_rate": 5, "herd": 0, "wide": 0.0, "deadline": None}


@dataclass
class Servers:
    """What all incidents of one backend share. `log`: what the daemon reads, the store's own log, or topics that the
    connector or the relay fills.
    """

    backend: str
    factor: float
    stack: ExitStack
    log: Literal["outbox", "connector", "relay"] = "connector"
    kafka: KafkaServer | None = None
    debezium: Debezium | None = None
    database: str = ""
    postgres: PostgresServer = field(init=False)
    cache: RedisServer | MemcachedServer = field(init=False)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _start(self) -> None:
        self.postgres = self.stack.enter_context(PostgresServer())
        # One for all: a node that the daemon does not know, with a log that has begun, would be voided by right.
        self.cache = self.stack.enter_context(RedisServer() if self.backend == "redis" else MemcachedServer())
        self.database = self.postgres.create_database("shop")
        with self.connect() as connection, SqlStore(self.store_url) as store:
            for statement in shop.SCHEMA:
                connection.execute(statement)
            for table in ("customers", "boards"):
                store.install(table, key="id")
                fill = f"insert into {table} (id, tier) select g, 'first' from generate_series(0, {shop.ROWS - 1}) g"
                connection.execute(fill)
        if self.log != "outbox":
            self.kafka = self.stack.enter_context(KafkaServer())
            self.kafka.create_topic(DEAD)
        if self.log == "connector":
            self.new_connector()
        elif self.kafka is not None:
            self.kafka.create_topic(RELAYED, 2)

    def warm_up(self, folder: Path) -> None:
        """A first life: a group that has committed nothing yet begins with new epochs, which is an alert of its own."""
        folder.mkdir(parents=True)
        with World(self, folder) as world:
            until(lambda: world.value("min(invalidator_commits_total)") > 1, 60)

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

    @property
    def store_url(self) -> str:
        """As the pods are told."""
        return self.postgres.url_of(self.database)

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


def start(server: Server) -> None:
    """Start it; on a busy machine that may take more than one try."""
    for tried in range(_TRIES):
        try:
            server.start()
            return
        except ServerFailed:
            if tried == _TRIES - 1:
                raise


class World:
    """One incident's: a cache server, the chart's pods, an application and a Prometheus, all new."""

    def __init__(self, servers: Servers, folder: Path, *, pending_max: int = 1000, **more: Any) -> None:
        self.servers, self.folder, self.factor = servers, folder, servers.factor
        self._pending_max = pending_max
        self._more = more
        self.stack = ExitStack()
        self.cache = servers.cache
        self.control = folder / "app.json"
        self.app_port = free_port()
        self._app: subprocess.Popen[bytes] | None = None

    # --- life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _start(self) -> None:
        enter = self.stack.enter_context
        self.servers.whole()
        secrets = {"shop-store": {"url": self.servers.store_url}, "shop-caches": {"urls": self.cache.url + "\n"}}
        self.cluster = enter(Cluster(self.folder / "cluster", self.values(), secrets))
        # Before anything is cached: a node with something on it that nobody knows would be voided by right.
        self.cluster.first().ready()
        self.start_app()
        self.stack.callback(self.stop_app)
        rules = yaml.safe_dump({"groups": groups(self.cluster.rules, self.factor)})
        pod = self.cluster.first()
        jobs = {
            # The pod's port is another one after it was made anew; a service would hide that.
            "invalidator": [(self._front(), {"namespace": NAMESPACE, "pod": pod.name, "instance": pod.name})],
            **{
                name: [(f"127.0.0.1:{one.port}", {"namespace": NAMESPACE, "pod": one.name, "instance": one.name})]
                for name, one in self.cluster.beside.items()
            },
            "app": [(f"127.0.0.1:{self.app_port}", {"namespace": NAMESPACE, "instance": "app"})],
        }
        self.prometheus = enter(PrometheusServer(jobs, rules=rules, every="1s"))
        until(lambda: len(self.prometheus.query("up == 1")) == len(jobs), 60)
        until(lambda: self.value("sum(rate(leasecache_reads_total[5s]))") > 5, 60)
        until(lambda: self.value("sum(rate(invalidator_changes_total[5s]))") > 1, 60)

    def _front(self) -> str:
        front = Front(self.cluster)
        self.stack.callback(front.close)
        return f"127.0.0.1:{front.port}"

    def values(self) -> dict[str, Any]:
        """Those of the chart, with the daemon's durations that alerts rest on made shorter as the alerts are."""
        faster = f"{max(1.0, 60 / self.factor):g}s"
        config: dict[str, Any] = {
            "entities": ["gameday_shop:entities"],
            "apply": {"node_dead_after": faster, "retry_max": "500ms"},
            "source": {"poll": "100ms"},
        }
        if self.servers.kafka is not None:
            config["source"]["kind"] = "kafka"
            config["kafka"] = {"bootstrap": [self.servers.kafka.bootstrap]}
            config["kafka_source"] = {
                "topics": self._topics(),
                "group": "shop",
                "rebuild_max": "500ms",
            }
            config["dead_letters"] = {"topic": DEAD, "pending_max": self._pending_max}
        if self.servers.log == "relay":
            config["relay"] = {"topic": RELAYED, "partitions": 2, "replicas": 1}
        return {
            "relay": {"enabled": self.servers.log == "relay"},
            **self._more,
            "replicas": 1,
            "secrets": {"store": {"name": "shop-store"}, "caches": {"name": "shop-caches"}},
            "config": config | self._more.get("config", {}),
            "modules": {"gameday_shop.py": SHOP_MODULE},
            "prometheusRule": {"enabled": True},
        }

    def _topics(self) -> list[str]:
        if self.servers.debezium is None:
            return [RELAYED]
        return [self.servers.debezium.topic(table) for table in ("customers", "boards")]

    # --- the application ---------------------------------------------------------------------

    def load(self, **rates: Any) -> None:
        """What the application does from now on; the rest as always."""
        it = {"store": self.servers.store_url, "cache": self.cache.url, "port": self.app_port, **LOAD, **rates}
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps(it))
        new.rename(self.control)

    def start_app(self, **environment: str) -> None:
        """As it is deployed, or with other settings."""
        if not self.control.exists():
            self.load()
        with (self.folder / "app.log").open("ab") as log:
            self._app = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "tests.gameday.app", str(self.control)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop_app(self) -> None:
        """End it."""
        if self._app is not None:
            self._app.kill()
            self._app.wait()
            self._app = None

    # --- looking -----------------------------------------------------------------------------

    def value(self, expression: str) -> float:
        """A number, or nothing known: -1."""
        found = self.prometheus.query(expression)
        return float(found[0]["value"][1]) if found else -1.0

    def stale(self) -> Mapping[int, tuple[str, str]]:
        """Rows that the cache would serve otherwise than the store has them: served, true."""
        with self.servers.connect() as connection, SqlStore(self.servers.store_url) as store:
            truth = dict(connection.execute("select id, tier from customers").fetchall())
            with Cache(self.cache.url, store=store) as cache:
                served = cache.get_many(shop.customers, list(truth))
        return {key: (served[key]["tier"], tier) for key, tier in truth.items() if served[key]["tier"] != tier}

    def agrees(self, wait_s: float = 30.0) -> None:
        """Nobody writes, and the cache serves what the store has; and it stays so."""
        self.load(write_rate=0, sql_rate=0)
        time.sleep(1.0)
        until(lambda: not self.stale(), wait_s)
        assert not self.stale()
        self.load()


class Front:
    """One address for a pod that may be made anew with another port, as a Service is."""

    def __init__(self, cluster: Cluster) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from threading import Thread

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pods = cluster.pods
                code, text = cluster.first().get(self.path) if pods else (0, "")
                if not code:
                    self.close_connection = True
                    return
                with suppress(BrokenPipeError, ConnectionResetError):  # a scrape that took too long was given up
                    self.send_response(code)
                    self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Answer no longer."""
        self._server.shutdown()
        self._server.server_close()
