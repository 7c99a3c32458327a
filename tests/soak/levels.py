"""`make verify-levels`: what the levels cost and what they keep, at size; the last line is the verdict.

Two parts, over Redis, PostgreSQL and a real daemon. *Hits*: the daemon runs, one operation in twenty is a write; what
share of the reads of each level is a hit. *Paused*: the daemon stands still for 30 s while rows change past the
library; no bounded read may show what was replaced for longer than the bound, none may fail, and the loads stay within
their budget. LEVELS_SECONDS (30), LEVELS_KEYS (1000), LEVELS_RATE (500 reads/s). The result is `build/levels.json`;
exit code 1 where a promise was not kept.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cachelib import Bounded, Cache, Entity, Eventual, StoreBudget, Strong
from cachelib.errors import CacheError
from cachelib.stores import SqlStore
from loadgen.servers import Invalidator
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer
from tests.soak.paced import THREADS, in_threads, paced

RESULT = Path("build/levels.json")
BOUND_S = 2.0
BUDGET_PER_S = 600.0
NAMESPACE = "levels"
PLAIN = Entity.from_table("plain", key="id", ttl="1h")
STRONG = Entity.from_table("plain", key="id", ttl="1h", name="strong", template="strong:{id}", consistency=Strong())
ENTITIES = [PLAIN, STRONG]
LEVELS = ("eventual", "bounded", "session", "strong")
AT_LEAST = {"bounded": 0.95, "session": 0.8, "strong": 0.8}
"""Of bounded reads: of the hit ratio of eventual ones."""
_WRITE_EVERY = 20
_PAST_PER_S = 25.0
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Size:
    """How much: `rate` reads a second in all. The hits of each level are counted for a third of the time."""

    seconds: float = 30.0
    keys: int = 1000
    rate: float = 500.0


@dataclass
class Paused:
    """What bounded reads did while the daemon stood still."""

    reads: int = 0
    per_s: float = 0.0
    violations: int = 0
    oldest_s: float = 0.0
    errors: int = 0
    loads_per_s: float = 0.0
    hits: int = 0
    eventual_oldest_s: float = 0.0
    """Read at the end, to show that there was something to be stale."""
    examples: list[str] = field(default_factory=list)


class Shop:
    """The servers, the store, and who writes past the library."""

    def __init__(self, size: Size, stack: ExitStack) -> None:
        self.size = size
        self.redis = stack.enter_context(RedisServer())
        postgres = stack.enter_context(PostgresServer())
        database = postgres.create_database("levels")
        url = postgres.url_of(database)
        self.store = stack.enter_context(SqlStore(url))
        self.connection = stack.enter_context(postgres.connect(database))
        self.connection.execute("create table plain (id int primary key, count bigint not null)")
        self.connection.execute(f"insert into plain select g, 0 from generate_series(1, {size.keys}) g")
        self.store.install("plain", key="id")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="levels-")))
        self.daemon = Invalidator(folder, url, self.redis.url, "tests.soak.levels:ENTITIES", NAMESPACE)
        self.daemon.environment = {"PYTHONPATH": str(_ROOT)}
        self.daemon.start()
        stack.callback(self.daemon.kill)

    def signal(self, number: signal.Signals) -> None:
        """To the daemon."""
        assert self.daemon.pid is not None
        os.kill(self.daemon.pid, number)

    @contextmanager
    def cache(self, **settings: Any) -> Iterator[Cache]:
        """A client, with every key of both entities cached."""
        with Cache(self.redis.url, store=self.store, entities=ENTITIES, namespace=NAMESPACE, **settings) as cache:
            for entity in ENTITIES:
                for _ in range(2):
                    cache.get_many(entity, range(1, self.size.keys + 1))
            yield cache


# --- hits ------------------------------------------------------------------------------------


def hit_ratio(shop: Shop, level: str) -> float:
    """The share of hits among the reads, one operation in twenty being a write through the library."""
    with shop.cache() as cache:
        if level == "bounded":  # older than the bound, so that only a proof lets them be served
            time.sleep(BOUND_S + 0.5)
        counts: Counter[bool] = Counter()
        lock = threading.Lock()
        per_thread = shop.size.rate / THREADS

        def work(number: int) -> None:
            own: Counter[bool] = Counter()
            chance, read = random.Random(number), reader_of(cache, level)
            for _ in paced(per_thread, shop.size.seconds / 3):
                key = chance.randint(1, shop.size.keys)
                if chance.randrange(_WRITE_EVERY) == 0:
                    with read.transaction() as tx:
                        tx.execute("update plain set count = count + 1 where id = :id", id=key)
                else:
                    own[read(key).source == "hit"] += 1
            with lock:
                counts.update(own)

        in_threads(work)
    return counts[True] / max(1, counts.total())


class reader_of:  # noqa: N801 - called as a function, it carries whose transactions these are
    """Reads of a level, and the transactions of who reads so: a session's writes are its own."""

    def __init__(self, cache: Cache, level: str) -> None:
        asked: dict[str, Any] = {"bounded": Bounded(BOUND_S), "eventual": Eventual()}
        self._entity = STRONG if level == "strong" else PLAIN
        self._from: Any = cache.session() if level == "session" else cache
        self._named = {"consistency": asked[level]} if level in asked else {}
        self.transaction: Callable[[], Any] = self._from.transaction

    def __call__(self, key: int) -> Any:
        """One read."""
        return self._from.read(self._entity, key, **self._named)


# --- paused ----------------------------------------------------------------------------------


class PastWriter(threading.Thread):
    """Changes rows past the library. `replaced[key][n]`: when count n was surely there no more, monotonic seconds."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(daemon=True)
        self._shop = shop
        self._go_on = threading.Event()
        self._first: dict[int, int] = dict(shop.connection.execute("select id, count from plain").fetchall())
        self._replaced: dict[int, list[float]] = {key: [] for key in self._first}

    def run(self) -> None:
        """Until it is stopped."""
        chance = random.Random(3)
        while not self._go_on.wait(1 / _PAST_PER_S):
            key = chance.randint(1, self._shop.size.keys)
            self._shop.connection.execute("update plain set count = count + 1 where id = %s", [key])
            self._replaced[key].append(time.monotonic())

    def stop(self) -> None:
        """And wait."""
        self._go_on.set()
        self.join()

    def age_s(self, key: int, count: int, began_s: float) -> float:
        """For how long the count had been replaced when a read began; 0 where it had not."""
        at = self._replaced[key][count - self._first[key] :][:1]
        return max(0.0, began_s - at[0]) if at else 0.0


def paused(shop: Shop) -> Paused:
    """Bounded reads of a client while the daemon stands still; then, to compare, eventual ones."""
    found, lock = Paused(), threading.Lock()
    with shop.cache(budget=StoreBudget(per_s=BUDGET_PER_S)) as cache:
        writer = PastWriter(shop)
        writer.start()
        shop.signal(signal.SIGSTOP)
        began_s = time.monotonic()
        sources: Counter[str] = Counter()

        def work(number: int) -> None:
            chance = random.Random(number)
            for _ in paced(shop.size.rate / THREADS, shop.size.seconds):
                key, at_s = chance.randint(1, shop.size.keys), time.monotonic()
                try:
                    read = cache.read(PLAIN, key, consistency=Bounded(BOUND_S))
                except CacheError as error:
                    with lock:
                        found.errors += 1
                        found.examples = [*found.examples[:4], f"key {key}: {error}"]
                    continue
                _judge(found, sources, lock, key, read, writer.age_s(key, read.value["count"], at_s))

        try:
            in_threads(work)
            took_s = time.monotonic() - began_s
            keys = range(1, shop.size.keys + 1)
            now_s = time.monotonic()
            plain = cache.get_many(PLAIN, keys)
            found.eventual_oldest_s = max(writer.age_s(key, row["count"], now_s) for key, row in plain.items())
        finally:
            shop.signal(signal.SIGCONT)
            writer.stop()
    found.reads, found.hits = sources.total(), sources["hit"]
    found.per_s = round(found.reads / took_s, 1)
    found.loads_per_s = round((sources["filled"] + sources["store"]) / took_s, 1)
    return found


def _judge(found: Paused, sources: Counter[str], lock: Any, key: int, read: Any, age_s: float) -> None:
    with lock:
        sources[read.source] += 1
        found.oldest_s = max(found.oldest_s, round(age_s, 3))
        if age_s > BOUND_S:
            found.violations += 1
            found.examples = [*found.examples[:4], f"key {key}: {read}, replaced {age_s:.3f} s before"]


# --- both -----------------------------------------------------------------------------------


def ran(size: Size) -> dict[str, Any]:
    """Both parts; what was found, and what was not kept."""
    with ExitStack() as stack:
        shop = Shop(size, stack)
        ratios = {level: round(hit_ratio(shop, level), 4) for level in LEVELS}
        still = paused(shop)
    return {"date": time.strftime("%Y-%m-%d %H:%M"), **asdict(size), "hits": ratios, "paused": asdict(still)}


def missed(result: dict[str, Any]) -> list[str]:
    """The promises that were not kept."""
    ratios, still = result["hits"], result["paused"]
    said = [
        f"{level}: {ratios[level]:.1%} hits"
        for level, least in AT_LEAST.items()
        if ratios[level] < least * (ratios["eventual"] if level == "bounded" else 1.0)
    ]
    said += [f"{still[name]} {name}" for name in ("violations", "errors") if still[name]]
    if still["loads_per_s"] > BUDGET_PER_S:
        said.append(f"{still['loads_per_s']} loads/s")
    if still["eventual_oldest_s"] <= BOUND_S:
        said.append("eventual reads were as new: the pause shows nothing")
    return said


def main() -> int:
    """From the environment."""
    asked = os.environ.get
    size = Size(
        float(asked("LEVELS_SECONDS", "30")), int(asked("LEVELS_KEYS", "1000")), float(asked("LEVELS_RATE", "500"))
    )
    result = ran(size)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    said = missed(result)
    print(f"FAILED: {'; '.join(said)}" if said else "PASSED: every level kept its promise, and hit")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
