"""A shop that does what breaks caches: many clients, slow loads, late puts, evictions, a log that is read again.

`python -m tests.verifier.shop CONFIG BUG`: the daemon of that configuration and clients of its nodes, until it is
killed. BUG is "" or one of `bugs.BUGS`, made in this process only. It writes by the library and past it.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cachelib import Cache
from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.errors import CacheError
from cachelib.layout import decode_layout
from cachelib.model import Name, Op, Put
from cachelib.stores import SqlStore
from invalidator.config import load
from invalidator.daemon import Daemon
from invalidator.replay import replayed
from tests.verifier import entities
from tests.verifier.bugs import BUGS

KEYS, HOT, GROUPS = 300, 20, 10
SLOW_LOAD_S = 0.12
LATE_PUT_S = 0.5
"""The longest that a load takes between reading and handing on, and that a put is on its way."""
READERS, WRITERS = 4, 6
"""For each node."""


on_their_way: list[int] = []
"""Keys whose put has left and not arrived. The shop likes to change them once more meanwhile."""


class Late:
    """A backend whose puts are now and then long on their way. That is no bug: networks are so."""

    def __init__(self, backend: Backend) -> None:
        self.capability = backend.capability
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def execute(self, name: Name, op: Op, now_ms: int) -> Any:
        self._dawdle([(name, op)])
        return self._backend.execute(name, op, now_ms)

    def execute_many(self, batch: Sequence[tuple[Name, Op]], now_ms: int) -> Any:
        self._dawdle(batch)
        return self._backend.execute_many(batch, now_ms)

    @staticmethod
    def _dawdle(batch: Sequence[tuple[Name, Op]]) -> None:
        puts = [int(name.rpartition(b":")[2]) for name, op in batch if isinstance(op, Put)]
        if puts and random.random() < 0.4:
            on_their_way.extend(puts)
            time.sleep(random.uniform(0, LATE_PUT_S))
            for key in puts:
                on_their_way.remove(key)


class Shop:
    """One client of one node, and what its threads do."""

    def __init__(self, store: SqlStore, url: str, evict: Callable[[Name], object]) -> None:
        self.store = store
        self.cache = Cache(Late(from_url(url)), store=store, entities=entities.entities)
        self.evict = evict

    def read(self) -> None:
        key = a_key()
        chance = random.random()
        if chance < 0.2:
            self.cache.get(entities.things_of, key % GROUPS)
        elif chance < 0.5:
            self.cache.get_many(entities.things, {a_key() for _ in range(40)})
        else:
            self.cache.get(entities.things, key)
        time.sleep(random.uniform(0, 0.004))

    def write(self) -> None:
        key = a_key()
        if random.random() < 0.5:
            key = random.choice([key, *on_their_way])
            with self.store.transaction() as tx:
                tx.execute(*change(key))
            evicts = random.random() < 0.5
            for _ in range(6):  # while a put from before may still be on its way
                time.sleep(random.uniform(0, 0.06))
                self._meddle(key, evicts)
        else:
            with self.cache.transaction() as tx:
                tx.execute(*change(key))
        time.sleep(random.uniform(0, 0.03))

    def meddle(self) -> None:
        """What happens to items between any two steps of others."""
        self._meddle(a_key(), random.random() < 0.5)
        time.sleep(random.uniform(0, 0.03))

    def _meddle(self, key: int, evicts: bool) -> None:
        """The server evicts, or a person voids."""
        if evicts:
            self.evict(self._name(key))
        else:
            self.cache.invalidate(entities.things, key)

    def _name(self, key: int) -> Name:
        layout = decode_layout(self.store.read_layout() or b"")
        return layout.names("lc", "things", entities.things.text(key))[0]


def a_key() -> int:
    """Half of all is about a few."""
    return random.randrange(HOT if random.random() < 0.5 else KEYS)


def change(key: int) -> tuple[str, Mapping[str, Any]]:
    """Insert or update, or now and then delete."""
    if random.random() < 0.15:
        return "delete from things where id = :id", {"id": key}
    values = {"id": key, "note": random.randbytes(8).hex(), "grp": key % GROUPS}
    return "insert into things (id, note, grp) values (:id, :note, :grp) on conflict (id) do update set note = :note", (
        values
    )


def evicting(url: str) -> Callable[[Name], object]:
    """What a full server does by itself."""
    if url.startswith("redis"):
        import redis

        return redis.Redis.from_url(url).delete
    import pymemcache

    host, _, port = url.removeprefix("memcached://").partition(":")
    client = pymemcache.PooledClient((host, int(port)))
    return client.delete


def keep(what: Callable[[], Any]) -> None:
    """In a thread, for ever; what a busy store or node refuses is tried again."""

    def loop() -> None:
        while True:
            try:
                what()
            except CacheError as error:
                print(f"shop: {error}", file=sys.stderr, flush=True)
                time.sleep(0.1)

    threading.Thread(target=loop, daemon=True).start()


def main() -> None:
    """See the module."""
    config, bug = Path(sys.argv[1]), sys.argv[2]
    if bug:
        BUGS[bug].plant()
    entities.pause_s = SLOW_LOAD_S
    settings = load(config, {}, {})
    store = SqlStore(settings.store_url(), pool_size=20)
    with Daemon(lambda: load(config, {}, {})) as daemon:
        threading.Thread(target=daemon.service.run, daemon=True).start()
        for url in settings.cache_urls():
            shop = Shop(store, url, evicting(url))
            for what, times in ((shop.read, READERS), (shop.write, WRITERS), (shop.meddle, 1)):
                for _ in range(times):
                    keep(what)
        print("open", flush=True)
        while True:
            time.sleep(0.5)
            list(replayed(settings, "1s"))  # a log that is read twice, behind everything newer


if __name__ == "__main__":
    main()
