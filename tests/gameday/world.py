"""Everything that a game day needs: store, log, cache, the chart's pods, an application, and Prometheus."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from cachelib import Cache
from cachelib.stores import SqlStore
from tests.charts.pod import ROOT
from tests.gameday import shop
from tests.gameday.cluster import NAMESPACE, Cluster
from tests.gameday.factor import factor_of, groups
from tests.gameday.front import Front
from tests.gameday.servers import APP, DAEMON, DEAD, RELAYED, Servers
from tests.integration.invalidator_daemon import until
from tests.servers.ports import free_port
from tests.servers.prometheus import PrometheusServer
from tests.servers.together import Together

SHOP = "app"
SHOP_MODULE = Path(shop.__file__).read_text()
LOAD: Mapping[str, Any] = {
    **{"read_rate": 60, "write_rate": 5, "sql_rate": 5, "herd": 0, "wide": 0.0, "deadline": None},
    **{"namespace": "lc", "board_changes": True, "boards": 1, "rows": shop.ROWS},
}


class World(Together):
    """One incident's, or that of several: the chart's pods, an application and a Prometheus, all new.

    `long`: see `factor.groups`. `every`: how often is scraped. `load`: what the application does where nobody says
    otherwise. `second`: another node that the daemon tells, which no application asks. `more`: values of the chart.
    """

    def __init__(
        self,
        servers: Servers,
        folder: Path,
        *,
        pending_max: int = 1000,
        long: float | None = None,
        every: str = "1s",
        load: Mapping[str, Any] | None = None,
        second: str = "",
        **more: Any,
    ) -> None:
        self.servers, self.folder, self.factor = servers, folder, servers.factor
        self._pending_max, self._long, self._every = pending_max, long, every
        self._more, self._second = more, second
        self._usual = {**LOAD, **(load or {})}
        self._rates: dict[str, dict[str, Any]] = {}
        self.stack = ExitStack()
        self.cache = servers.cache
        self._apps: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}

    # --- life --------------------------------------------------------------------------------

    def _start(self) -> None:
        enter = self.stack.enter_context
        self.servers.whole()
        urls = "".join(f"{url}\n" for url in (self.cache.url, self._second) if url)
        secrets = {"shop-store": {"url": self.servers.url_for(DAEMON)}, "shop-caches": {"urls": urls}}
        self.cluster = enter(Cluster(self.folder / "cluster", self.values(), secrets))
        # Before anything is cached: a node with something on it that nobody knows would be voided by right.
        self.cluster.first().ready()
        self.start_app()
        self.stack.callback(self._stop_apps)
        rules = yaml.safe_dump({"groups": groups(self.cluster.rules, self.factor, self._long)})
        pod = self.cluster.first()
        jobs = {
            # The pod's port is another one after it was made anew; a service would hide that.
            "invalidator": [(self._front(), {"namespace": NAMESPACE, "pod": pod.name, "instance": pod.name})],
            **{
                name: [(f"127.0.0.1:{one.port}", {"namespace": NAMESPACE, "pod": one.name, "instance": one.name})]
                for name, one in self.cluster.beside.items()
            },
            "app": [(f"127.0.0.1:{self._ports[SHOP]}", {"namespace": NAMESPACE, "instance": "app"})],
        }
        self.prometheus = enter(PrometheusServer(jobs, rules=rules, every=self._every))
        until(lambda: len(self.prometheus.query("up == 1")) == len(jobs), 60)
        until(lambda: self.value("sum(rate(leasecache_reads_total[5s]))") > 5, 60)
        until(lambda: self.value("sum(rate(invalidator_changes_total[5s]))") > 1, 60)

    def _front(self) -> str:
        front = Front(self.cluster)
        self.stack.callback(front.close)
        return f"127.0.0.1:{front.port}"

    def deploy(self, **environment: str) -> None:
        """Application and daemon with other settings: both have the entities."""
        self._more["extraEnv"] = [{"name": name, "value": value} for name, value in environment.items()]
        self.cluster.upgrade(self.values())
        self.stop_app()
        self.start_app(**environment)

    def values(self) -> dict[str, Any]:
        """Those of the chart, with the daemon's durations that alerts rest on made shorter as the alerts are."""
        faster = f"{max(1.0, 60 / self.factor):g}s"
        config: dict[str, Any] = {
            "entities": ["gameday_shop:entities"],
            # One put in a hundred, watched, would be one in many seconds at these rates.
            "apply": {"node_dead_after": faster, "retry_max": "500ms", "refresh_watch": 10},
            "source": {"poll": "100ms"},
        }
        if self._second:
            # What a busy job writes in a few seconds, and not in minutes: else a node would be behind by hours first.
            config["apply"] |= {"window": 8000, "batch": 100}
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

    def load(self, app: str = SHOP, **rates: Any) -> None:
        """What an application does from now on; the rest as always."""
        self._rates[app] = rates
        port = self._ports.setdefault(app, free_port())
        it = {"store": self.servers.url_for(APP), "cache": self.cache.url, "port": port, **self._usual, **rates}
        control = self._control(app)
        new = control.with_suffix(".new")
        new.write_text(json.dumps(it))
        new.rename(control)

    def _control(self, app: str) -> Path:
        return self.folder / f"{app}.json"

    def start_app(self, app: str = SHOP, **environment: str) -> None:
        """As it is deployed, or with other settings; only `SHOP` is scraped."""
        if not self._control(app).exists():
            self.load(app)
        with (self.folder / f"{app}.log").open("ab") as log:
            self._apps[app] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "tests.gameday.app", str(self._control(app))],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def herd_elsewhere(self, readers: int) -> None:
        """Another process whose readers want the same board: those of one process join each other, and hold no leases
        against each other."""
        self.load("other", herd=readers, board_changes=False, read_rate=5, write_rate=0, sql_rate=0)
        self.start_app("other")

    def stop_app(self, app: str = SHOP) -> None:
        """End it; nothing where it does not run."""
        process = self._apps.pop(app, None)
        if process is not None:
            process.kill()
            process.wait()

    def _stop_apps(self) -> None:
        for app in list(self._apps):
            self.stop_app(app)

    # --- looking -----------------------------------------------------------------------------

    def factor_of(self, alert: str) -> float:
        """By what an alert's times are divided."""
        return factor_of(alert, self.factor, self._long)

    def value(self, expression: str) -> float:
        """A number, or nothing known: -1."""
        found = self.prometheus.query(expression)
        return float(found[0]["value"][1]) if found else -1.0

    def stale(self) -> Mapping[int, tuple[str, str]]:
        """Rows that the cache would serve otherwise than the store has them: served, true."""
        with self.servers.connect() as connection, SqlStore(self.servers.url_for(APP)) as store:
            truth = dict(connection.execute("select id, tier from customers").fetchall())
            with Cache(self.cache.url, store=store) as cache:
                served = cache.get_many(shop.customers, list(truth))
        return {key: (served[key]["tier"], tier) for key, tier in truth.items() if served[key]["tier"] != tier}

    def agrees(self, wait_s: float = 30.0) -> None:
        """Nobody writes for a moment, and the cache serves what the store has; and it stays so."""
        before = dict(self._rates)
        for app, rates in before.items():
            self.load(app, **{**({} if app == SHOP else rates), "write_rate": 0, "sql_rate": 0})
        time.sleep(1.0)
        until(lambda: not self.stale(), wait_s)
        assert not self.stale()
        for app, rates in before.items():
            self.load(app, **rates)  # the alert must end though the load goes on


def warm_up(servers: Servers, folder: Path) -> None:
    """A first life: a group that has committed nothing yet begins with new epochs, which is an alert of its own."""
    folder.mkdir(parents=True)
    with World(servers, folder) as world:
        until(lambda: world.value("min(invalidator_commits_total)") > 1, 60)
