"""The invalidator as a real process, and a shop for it: tables, entities, a cache client."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, create_engine, text

from cachelib import Cache, Entity
from cachelib.stores import SqlStore

ENTITIES = """
from cachelib import Entity
customers = Entity.from_table("customers", key="id")
orders_of = Entity("orders-of:{customer_id}", depends_on={"orders": "customer_id"})
entities = [customers, orders_of]
"""
CUSTOMERS = Entity.from_table("customers", key="id")
WAIT_S = 20.0
QUICK = {"source": {"poll": "50ms"}, "apply": {"commit": "100ms", "positions": "100ms", "retry_max": "300ms"}}


def until(said: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """Wait until something is true; what it is."""
    deadline = time.monotonic() + wait_s
    while not (found := said()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)
    return found


class Shop:
    """A store with customers and their orders, changed by plain SQL behind the library's back."""

    def __init__(self, url: str, customers: int = 20) -> None:
        self.url = url
        self.engine: Engine = create_engine(url)
        self.sql("create table customers (id integer primary key, tier text)")
        self.sql("create table orders (id integer primary key, customer_id integer)")
        with self.engine.begin() as conn:
            rows = [{"id": number} for number in range(customers)]
            conn.execute(text("insert into customers values (:id, 'plain')"), rows)
        self.store = SqlStore(url)
        self.store.install("customers", key="id")
        self.store.install("orders", key="id", watch="customer_id")

    def sql(self, statement: str, **params: Any) -> None:
        with self.engine.begin() as conn:
            conn.execute(text(statement), params)

    def committed(self, name: str = "invalidator") -> str | None:
        return self.store.load_consumer(name)

    def close(self) -> None:
        self.store.close()
        self.engine.dispose()


@contextmanager
def client(shop: Shop, cache_url: str) -> Iterator[Cache]:
    """A cache over the shop."""
    with Cache(cache_url, store=shop.store) as cache:
        yield cache


def tier(cache: Cache, number: int = 7) -> str:
    return str(cache.get(CUSTOMERS, number)["tier"])


def cached(cache: Cache, number: int = 7) -> str:
    """Read it into the cache; the second read is a hit."""
    cache.get(CUSTOMERS, number)
    until(lambda: cache.read(CUSTOMERS, number).source == "hit")
    return tier(cache, number)


class Daemon:
    """`with Daemon(folder, store=..., caches=[...]) as daemon:`; its settings are those of the TOML file."""

    def __init__(self, folder: Path, store: str, caches: list[str], **settings: Mapping[str, Any]) -> None:
        self.folder = folder
        (folder / "shop_entities.py").write_text(ENTITIES)
        self.config = folder / "invalidator.toml"
        self.settings: dict[str, Any] = {
            "caches": caches,
            "entities": ["shop_entities:entities"],
            "store": {"url": store},
            "http": {"port": 0},
            "log": {"format": "json"},
        }
        for section, values in (QUICK | settings).items():
            self.settings[section] = {**QUICK.get(section, {}), **self.settings.get(section, {}), **values}
        self.write()
        self.log_file = folder / "invalidator.log"
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def write(self) -> None:
        self.config.write_text("\n".join(_toml(self.settings)) + "\n")

    def start(self) -> Self:
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "invalidator", "run", "--config", str(self.config), "--debug"],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready:"), f"it said {line!r}\n{self.log_file.read_text()}"
        self.url = re.findall(r"http://\S+", line)[0]
        return self

    def ready(self) -> Self:
        until(lambda: self.get("/readyz")[0] == 200)
        return self

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/status")[1]))

    def metric(self, name: str, **labels: str) -> float:
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        found = 0.0
        for line in self.get("/metrics")[1].splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == f"invalidator_{name}" and all(one in head for one in wanted):
                found += float(value)
        return found

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """As an orchestrator does; the exit code."""
        self.signal(signal.SIGTERM)
        return self._end()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._end()

    def _end(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(20)
        self.process.stdout.close()
        self.process = None
        return code

    def __enter__(self) -> Self:
        self.start()
        try:
            return self.ready()
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self.process is None:
            return
        if failed is not None:
            self._tell()
        self.kill()

    def _tell(self) -> None:
        """A test fails: what the daemon says of itself, for whoever reads the report."""
        with suppress(OSError):
            print(self.get("/status")[1])
        print("\n".join(self.log_file.read_text().splitlines()[-60:]))


def _toml(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if not isinstance(value, Mapping):
            yield f"{name} = {json.dumps(value)}"
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"[{name}]"
            yield from (f"{inner} = {json.dumps(given)}" for inner, given in value.items())


def invalidator(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "invalidator", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
