"""Bounded reads over a real server and a real invalidator: nothing older than the bound, whoever stands still."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachelib import Bounded, Entity, Eventual, StoreBudget
from cachelib.drivers import run_now
from cachelib.model import ANY
from tests.integration.client_world import World, sqlite_template, until
from tests.integration.invalidator_daemon import Daemon
from tests.servers.process import ask
from tests.servers.redis import RedisServer

KEYS = range(1, 101)
BOUND_S = 2.0
CUSTOMERS = Entity.from_table("customers", key="id", ttl="1h")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(redis_url: str, template: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copy(template, tmp_path / "store.db")
    made = World("sync", redis_url, f"sqlite:///{tmp_path / 'store.db'}")
    made.sql("insert into customers (id, name, tier) values " + ", ".join(f"({key}, '0', 'iron')" for key in KEYS))
    yield made
    made.close()


class Writer(threading.Thread):
    """Changes rows past the library, and remembers when each value was there for everybody. Monotonic seconds."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._go_on = True
        self.committed: dict[int, list[float]] = {key: [float("-inf")] for key in KEYS}

    def run(self) -> None:
        rng = random.Random(3)
        while self._go_on:
            key = rng.choice(KEYS)
            value = len(self.committed[key])
            self._world.sql("update customers set name = :name where id = :id", id=key, name=str(value))
            self.committed[key].append(time.monotonic())
            time.sleep(0.02)

    def stop(self) -> None:
        self._go_on = False
        self.join()

    def age_s(self, key: int, value: int, began: float) -> float:
        """How long before `began` the next value was committed already; 0 where it was not."""
        later = self.committed[key][value + 1 : value + 2]
        return max(0.0, began - later[0]) if later else 0.0


def ages(cache: Any, writer: Writer, seconds: float, level: Any, rate: float = 150) -> tuple[list[float], list[str]]:
    """Read at random, and say how old each value was, and where it came from."""
    rng, found, sources = random.Random(5), [], []
    until_s = time.monotonic() + seconds
    while (began := time.monotonic()) < until_s:
        key = rng.choice(KEYS)
        read = cache.read(CUSTOMERS, key, consistency=level)
        found.append(writer.age_s(key, int(read.value["name"]), began))
        sources.append(read.source)
        time.sleep(max(0.0, 1 / rate - (time.monotonic() - began)))
    return found, sources


def warmed(cache: Any) -> None:
    for _ in range(2):
        cache.get_many(CUSTOMERS, KEYS)


def test_bounded_reads_hit_while_the_invalidator_runs(world: World, tmp_path: Path) -> None:
    """The watermark proves items that are older than the bound: else a level that always loads would pass the rest."""
    with Daemon(tmp_path, world.store_url, [world.cache_url]):
        cache = world.cache(CUSTOMERS)
        warmed(cache)
        time.sleep(BOUND_S + 0.5)
        until(lambda: cache.read(CUSTOMERS, 1, consistency=Bounded(BOUND_S)).source == "hit", "the first proof")
        reads = cache.read_many(CUSTOMERS, KEYS, consistency=Bounded(BOUND_S))
        assert [read.source for read in reads.values()].count("hit") >= 0.95 * len(KEYS)
        assert all(read.age_ms is not None and read.age_ms <= BOUND_S * 1000 for read in reads.values())
        plain = cache.read_many(CUSTOMERS, KEYS)
        assert max(read.age_ms for read in plain.values()) > BOUND_S * 1000, "these are older, by when they were loaded"


@pytest.mark.slow
def test_bounded_reads_keep_their_bound_while_the_invalidator_stands_still(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.store_url, [world.cache_url]) as daemon:
        cache = world.cache(CUSTOMERS, budget=StoreBudget(per_s=600))
        warmed(cache)
        until(lambda: cache.read(CUSTOMERS, 1, consistency=Bounded(BOUND_S)).source == "hit", "the first proof")
        writer = Writer(world)
        writer.start()
        try:
            daemon.signal(signal.SIGSTOP)
            time.sleep(BOUND_S)
            late, sources = ages(cache, writer, 8.0, Bounded(BOUND_S))
            behind, _ = ages(cache, writer, 4.5, Eventual())
        finally:
            writer.stop()
            daemon.signal(signal.SIGCONT)
    assert len(late) > 100
    assert max(late) <= BOUND_S, f"{sum(age > BOUND_S for age in late)} of {len(late)} reads were too old"
    assert "hit" in sources, "what was loaded within the bound is hit"
    assert max(behind) > BOUND_S, "eventual reads were as new: the test shows nothing"


def test_bounded_reads_without_an_invalidator_are_loaded_when_they_are_due(world: World) -> None:
    cache = world.cache(CUSTOMERS)
    bound = Bounded("60s")
    assert [cache.read(CUSTOMERS, 1, consistency=bound).source for _ in range(3)] == ["filled", "hit", "hit"]
    short = Bounded("1ms")
    time.sleep(0.005)
    assert cache.read(CUSTOMERS, 1, consistency=short).source == "filled"
    assert cache.read(CUSTOMERS, 1, consistency=bound).source == "hit"


def test_entity_whose_level_is_bounded_is_read_so_by_every_call(world: World) -> None:
    """Also by the hit path that plain calls have."""
    entity = Entity.from_table("customers", key="id", ttl="1h", consistency=Bounded("1ms"))
    cache = world.cache(entity)
    session = cache.session()
    reads = (
        lambda: cache.get(entity, 1),
        lambda: cache.get_many(entity, [1])[1],
        lambda: cache.read(entity, 1).value,
        lambda: session.get(entity, 1),
    )
    for turn, read in enumerate(reads * 2):
        world.sql("update customers set name = :name where id = 1", name=f"turn {turn}")
        time.sleep(0.005)
        assert read()["name"] == f"turn {turn}"


def test_watermark_of_another_start_of_the_server_proves_nothing(world: World, tmp_path: Path) -> None:
    """The server comes back with the old items and the old note, which is as new as a minute could ask for."""
    minute = Bounded("60s")
    with RedisServer() as server:
        cache = world.cache(CUSTOMERS, backend=server.url)
        with Daemon(tmp_path, world.store_url, [server.url]):
            warmed(cache)
            time.sleep(0.05)
            until(lambda: proven(cache, minute), "the first proof")
            assert ask(server.port, b"SAVE\r\n", timeout_s=10).startswith(b"+OK")
        server.kill()
        server.start()
        until(lambda: not proven(cache, minute), "the new start was met")
        assert cache.read(CUSTOMERS, 1, consistency=Bounded("10ms")).source != "hit"


def proven(cache: Any, level: Bounded) -> bool:
    """The read stands on a watermark."""
    plan = run_now(cache._core.plan(cache._layout.view, CUSTOMERS, 1, CUSTOMERS.text(1), level))
    return bool(plan.requirement == ANY)
