"""A herd: many readers of one key that is lost again and again, and a store that takes its time.

Each reading is done twice on the same server: through the library, whose leases let one reader load, and as a
look-aside cache without leases does it (get; on a miss load, then set). The readers of the library are spread
over several caches, each as if it were a process of its own: within one process equal loads are joined anyway.
Anchor: leases cut the peak of loads from 17 000 to 1 300 a second (Nishtala, NSDI 2013).
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TypeAlias

import msgspec

from cachelib import Cache
from cachelib.errors import CacheError, ConfigError
from loadgen.engine.summary import host, versions
from loadgen.histogram import Histogram
from loadgen.result import Host, Latency
from loadgen.servers import HOST, Memcached, Redis, cache_server

now_ns = time.monotonic_ns
Read: TypeAlias = Callable[[], Any]
VALUE = "x" * 200
KEY = "hot"
TTL_S = 3600
HERD_SCHEMA = "loadgen-herd/2"
LOADS_MOST = 2.0
"""More loads for each loss with leases than this: they did not hold the herd back."""


@dataclass(frozen=True, slots=True)
class HerdPlan:
    """`readers` threads read every `think_ms`; the key is lost every `lost_s`; a load takes `origin_ms`."""

    backend: str = "redis"
    readers: int = 40
    caches: int = 8
    seconds: float = 10.0
    lost_s: float = 1.0
    origin_ms: float = 100.0
    think_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.readers < 1 or not 1 <= self.caches <= self.readers:
            raise ConfigError(
                f"{self.readers} readers over {self.caches} caches: at least one of each, and no idle cache"
            )
        if min(self.seconds, self.lost_s, self.think_ms) <= 0 or self.origin_ms < 0:
            raise ConfigError("seconds, lost and think are times above 0, origin one of at least 0")


class HerdSide(msgspec.Struct, frozen=True):
    """What one way of reading did. A loss is one time that the key was lost; `at_once`: loads that ran together."""

    reads: int
    losses: int
    loads: int
    loads_per_loss: float
    loads_per_loss_max: int
    by_loss: list[int]
    """Loads that followed each loss, in order."""
    at_once_max: int
    latency: Latency
    errors: dict[str, int]


class HerdResult(msgspec.Struct, frozen=True, kw_only=True):
    """Both, and the plan. `started`: ISO 8601, UTC."""

    format: str = HERD_SCHEMA
    label: str
    started: str
    host: Host
    versions: dict[str, str]
    plan: HerdPlan
    leases: HerdSide
    without: HerdSide

    @property
    def fewer(self) -> float:
        """Loads without leases for each load with them."""
        return self.without.loads / self.leases.loads if self.leases.loads else 0.0

    @property
    def held(self) -> bool:
        """Leases held the herd back."""
        return self.leases.loads_per_loss <= LOADS_MOST


class Origin:
    """The slow store: it counts loads, by the loss that they follow."""

    def __init__(self, origin_ms: float) -> None:
        self._s = origin_ms / 1000
        self._lock = Lock()
        self._running = 0
        self.loss = 0
        self.by_loss: Counter[int] = Counter()
        self.at_once_max = 0

    def load(self) -> str:
        """Takes its time."""
        with self._lock:
            self.by_loss[self.loss] += 1
            self._running += 1
            self.at_once_max = max(self.at_once_max, self._running)
        try:
            time.sleep(self._s)
        finally:
            with self._lock:
                self._running -= 1
        return VALUE


def herd(plan: HerdPlan, said: Callable[[str], None]) -> HerdResult:
    """Both ways, one after the other. Raises `ServerFailed`."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="loadgen-herd-") as folder:
        server = cache_server(plan.backend, Path(folder))
        server.start()
        try:
            said(f"{plan.readers} readers of one key, lost every {plan.lost_s:g} s; a load takes {plan.origin_ms:g} ms")
            leases = _with_leases(plan, server)
            said(f"with leases: {leases.loads_per_loss:.2f} loads for each loss")
            without = _without(plan, server)
            said(f"without: {without.loads_per_loss:.2f} loads for each loss")
        finally:
            server.stop()
    return HerdResult(
        label=f"A herd of {plan.readers} readers on {plan.backend}",
        started=started,
        host=host(),
        versions=versions(),
        plan=plan,
        leases=leases,
        without=without,
    )


def _with_leases(plan: HerdPlan, server: Redis | Memcached) -> HerdSide:
    origin = Origin(plan.origin_ms)
    caches = [Cache(server.url, namespace="herd") for _ in range(plan.caches)]

    def load(key: str) -> str:
        return origin.load() if key == KEY else ""

    try:
        reads = [cache.cached("hot:{key}", ttl=TTL_S)(load) for cache in caches]
        readers = [partial(reads[number % plan.caches], KEY) for number in range(plan.readers)]
        entity = reads[0].entity  # type: ignore[attr-defined]
        return _measured(plan, origin, readers, lambda: caches[0].invalidate(entity, KEY))
    finally:
        for cache in caches:
            cache.close()


def _without(plan: HerdPlan, server: Redis | Memcached) -> HerdSide:
    origin = Origin(plan.origin_ms)
    aside = LookAside(server)

    def read() -> str:
        value = aside.get(KEY)
        if value is None:
            value = origin.load()
            aside.set(KEY, value)
        return value

    try:
        return _measured(plan, origin, [read] * plan.readers, lambda: aside.delete(KEY))
    finally:
        aside.close()


class LookAside:
    """The cache server's own client: get, set, delete, and nothing that holds readers back."""

    def __init__(self, server: Redis | Memcached) -> None:
        self._client: Any
        if isinstance(server, Memcached):
            from pymemcache.client.base import PooledClient

            self._client = PooledClient((HOST, server.port))
        else:
            import redis

            self._client = redis.Redis(host=HOST, port=server.port)

    def get(self, key: str) -> str | None:
        """None: not there."""
        value = self._client.get(key)
        return None if value is None else value.decode()

    def set(self, key: str, value: str) -> None:
        """Store it."""
        self._client.set(key, value)

    def delete(self, key: str) -> None:
        """Remove it."""
        self._client.delete(key)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


def _measured(plan: HerdPlan, origin: Origin, readers: Sequence[Read], lose: Callable[[], Any]) -> HerdSide:
    stop, start = Event(), Event()
    times: list[list[int]] = [[] for _ in readers]
    errors: Counter[str] = Counter()

    def work(read: Read, own: list[int]) -> None:
        start.wait()
        while not stop.is_set():
            began_ns = now_ns()
            try:
                if read() != VALUE:
                    errors["WrongValue"] += 1
            except CacheError as error:
                errors[type(error).__name__] += 1
            own.append(now_ns() - began_ns)
            stop.wait(plan.think_ms / 1000)

    readers[0]()  # the first load is nobody's loss
    origin.by_loss.clear()
    threads = [Thread(target=work, args=pair) for pair in zip(readers, times, strict=True)]
    for thread in threads:
        thread.start()
    start.set()
    end = time.monotonic() + plan.seconds
    while time.monotonic() < end:
        origin.loss += 1
        lose()
        stop.wait(plan.lost_s)
    stop.set()
    for thread in threads:
        thread.join()
    loads, losses = origin.by_loss.total(), origin.loss
    every = Histogram.of([one for own in times for one in own])
    return HerdSide(
        reads=every.count,
        losses=losses,
        loads=loads,
        loads_per_loss=loads / losses,
        loads_per_loss_max=max(origin.by_loss.values(), default=0),
        by_loss=[origin.by_loss[number] for number in range(1, losses + 1)],
        at_once_max=origin.at_once_max,
        latency=Latency.of(every),
        errors=dict(errors),
    )
