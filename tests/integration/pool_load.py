"""Load on a pool, and a checker: every value carries its key and a number, so a wrong or a stale one shows.

Each key has one writer, whose numbers rise; `acked` is the last that was acknowledged. A strong read must not be
behind what was acknowledged before it began, and no read may show another key's value or a number never written.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from cachelib import CacheError, Unconfirmed
from cachelib.metrics import READS
from cachelib.slots import ranked, slot_of

KEYS = range(1, 41)


class Client(Protocol):
    """One process of the application."""

    def get(self, key: int) -> int:
        """The number that the key shows."""

    def put(self, key: int, number: int) -> None:
        """Write it; returns when it is acknowledged. Raises `CacheError`."""


class Ours:
    """Over a `Cache`, or an `AsyncCache` that blocks."""

    def __init__(self, cache: Any, entity: Any, **reading: Any) -> None:
        self._cache, self._entity, self._reading = cache, entity, reading

    def get(self, key: int) -> int:
        return number_of(key, self._cache.get(self._entity, key, **self._reading)["name"])

    @property
    def hits(self) -> int:
        """How many reads the cache itself answered."""
        counted = self._cache.metrics.values()
        return sum(times for (metric, _, source), times in counted.items() if (metric, source) == (READS, "hit"))

    def put(self, key: int, number: int) -> None:
        self._cache.put(self._entity, key, {"name": f"{key}:{number}", "tier": "iron"})


class NaiveNodes:
    """A look-aside cache over the node list that its process was given: rendezvous hashing, and nothing else.

    `locks` are shared by all processes, so no fill overtakes a write: what is left to fail is the list of nodes.
    """

    def __init__(self, world: Any, nodes: dict[str, Any], locks: dict[int, threading.Lock]) -> None:
        self._world, self.nodes, self._locks = world, nodes, locks

    def _node(self, key: int) -> Any:
        text = f"customer:{key}".encode()
        return self.nodes[ranked(self.nodes, slot_of(text))[0]]

    def get(self, key: int) -> int:
        raw = self._node(key).get(f"naive:{key}")
        if raw is not None:
            return number_of(key, raw.decode())
        with self._locks[key]:
            ((name,),) = self._world.sql("select name from customers where id = :id", id=key)
            self._node(key).set(f"naive:{key}", name, ex=60)
        return number_of(key, name)

    def put(self, key: int, number: int) -> None:
        with self._locks[key]:
            self._world.customer(key, f"{key}:{number}")
            self._node(key).set(f"naive:{key}", f"{key}:{number}", ex=60)


class WrongValue(AssertionError):
    """A key showed what is not its own."""


def number_of(key: int, name: str) -> int:
    own, _, number = name.partition(":")
    if int(own) != key:
        raise WrongValue(f"key {key} showed {name!r}")
    return int(number)


class Load:
    """`with Load(clients) as load:`; afterwards nothing runs any more. `strong`: the readers ask for it."""

    def __init__(self, clients: Sequence[Client], *, strong: bool = True, pause_s: float = 0.001) -> None:
        self._clients, self._strong, self._pause_s = clients, strong, pause_s
        self.acked = dict.fromkeys(KEYS, 0)
        self.tried = dict.fromkeys(KEYS, 0)
        self.stale: list[str] = []
        self.wrong: list[str] = []
        self.errors: Counter[str] = Counter()
        self.took_s: list[float] = []
        self.writes = self.unconfirmed = 0
        self._stop = threading.Event()
        own = [list(KEYS)[at :: len(clients)] for at in range(len(clients))]
        jobs = [(self._write, client, keys) for client, keys in zip(clients, own, strict=True)]
        jobs += [(self._read, client, list(KEYS)) for client in clients]
        self._threads = [threading.Thread(target=self._run, args=job) for job in jobs]

    def _run(self, deed: Callable[[Client, int], None], client: Client, keys: list[int]) -> None:
        draw = random.Random(repr(keys))
        while not self._stop.wait(self._pause_s):
            try:
                deed(client, draw.choice(keys))
            except WrongValue as wrong:
                self.wrong.append(str(wrong))
            except CacheError as error:
                self.errors[type(error).__name__] += 1

    def _write(self, client: Client, key: int) -> None:
        number = self.tried[key] = self.tried[key] + 1
        try:
            client.put(key, number)
        except Unconfirmed:
            self.unconfirmed += 1
        else:
            self.acked[key] = number
            self.writes += 1

    def _read(self, client: Client, key: int) -> None:
        acked, began = self.acked[key], time.monotonic()
        number = client.get(key)
        self.took_s.append(time.monotonic() - began)
        if self._strong and number < acked:
            self.stale.append(f"key {key} showed {number} after {acked} was acknowledged")
        if number > self.tried[key]:
            self.wrong.append(f"key {key} showed {number}, which nobody wrote")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
