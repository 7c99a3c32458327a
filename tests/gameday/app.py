"""`python -m tests.gameday.app CONTROL`: the application. Reads and writes through the library, shows its metrics.

What it does stands in the JSON file CONTROL, looked at all the time: addresses, its port, and rates, which may change.
Its own writes go through the library; `sql_rate` are changes behind its back, as other programs make them.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy import create_engine, text

from cachelib import Cache, CacheError
from cachelib.stores import SqlStore
from tests.gameday.shop import ROWS, boards, customers, entities

THREADS = 6


class App:
    """See the module."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self.now: dict[str, Any] = json.loads(control.read_text())
        self._store = SqlStore(self.now["store"])
        self._cache = Cache(
            self.now["cache"], store=self._store, entities=entities, compare=0.05, namespace=self.now["namespace"]
        )
        self._engine = create_engine(self.now["store"])

    def run(self) -> None:
        """Until somebody ends it."""
        registry = CollectorRegistry()
        registry.register(self._cache.metrics)  # type: ignore[arg-type]
        start_http_server(self.now["port"], addr="127.0.0.1", registry=registry)
        loops = [*(self._read for _ in range(THREADS)), self._hot, self._write, self._sql]
        for loop in loops:
            threading.Thread(target=self._again, args=(loop,), daemon=True).start()
        while True:
            time.sleep(0.2)
            try:
                self.now = json.loads(self._control.read_text())
            except ValueError:
                pass  # it is being written

    def _again(self, loop: Any) -> None:
        while True:
            try:
                loop()
            except (CacheError, OSError) as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                time.sleep(0.2)
            except Exception as error:  # noqa: BLE001 - the driver's own, where the store is away
                print(f"{type(error).__name__}: {error}", flush=True)
                time.sleep(0.2)

    def _pause(self, rate: float) -> bool:
        """Wait for the next turn at so many a second; whether there is one."""
        time.sleep(1 / rate if rate else 0.2)
        return bool(rate)

    def _read(self) -> None:
        if self._pause(self.now["read_rate"] / THREADS):
            wide = random.random() < self.now["wide"]  # customers that nobody has asked for lately
            key = random.randrange(ROWS, 1_000_000) if wide else self._some()
            self._cache.get(customers, key, deadline=self.now["deadline"])

    def _hot(self) -> None:
        """A herd: many threads on one key."""
        if not self._pause(1.0 if self.now["herd"] else 0):
            return
        until = time.monotonic() + 1.0
        herd = [threading.Thread(target=self._hot_reader, args=(until,)) for _ in range(self.now["herd"])]
        for one in herd:
            one.start()
        for one in herd:
            one.join()

    def _hot_reader(self, until: float) -> None:
        while time.monotonic() < until:
            self._cache.get(boards, random.randint(1, self.now["boards"]))
            time.sleep(0.05)

    def _write(self) -> None:
        if self._pause(self.now["write_rate"]):
            with self._cache.transaction() as tx:
                tier = f"w{time.time_ns()}"
                tx.execute("update customers set tier = :tier where id = :id", {"tier": tier, "id": self._some()})

    def _sql(self) -> None:
        if self._pause(self.now["sql_rate"]):
            with self._engine.begin() as conn:
                tier = f"s{time.time_ns()}"
                conn.execute(text("update customers set tier = :t where id = :i"), {"t": tier, "i": self._some()})
                if self.now["herd"] and self.now["board_changes"]:
                    conn.execute(text("update boards set tier = :t where id = 1"), {"t": tier})

    def _some(self) -> int:
        return random.randrange(self.now["rows"])


if __name__ == "__main__":
    App(Path(sys.argv[1])).run()
