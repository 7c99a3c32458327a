"""A linearizable cache in the manner of Dropbox's Chrono, as a second implementation describes it (OSDI '26).

A writer registers a time some seconds ahead, by which its commit is over, and then commits. A reader asks for the
value, with the time it was read at in the store, and for the highest registered time, and is served only what was
read after that. So after each write of a key nobody is served from the cache until that time has passed.
"""

from __future__ import annotations

import json
import time
from typing import Any

import redis

from cachelib.model import Row
from cachelib.stores import SqlStore

BLIND_S = 5.0
"""What its implementers took as the default."""


class Chrono:
    """One table `hot (id, count)`. For one thread, or several: clients are pooled."""

    def __init__(self, url: str, store: SqlStore) -> None:
        self._redis = redis.Redis.from_url(url)
        self._store = store

    def read(self, key: int) -> tuple[int, bool]:
        """The row's count, and whether it came from the cache."""
        attempt, raw = self._redis.mget(f"attempt:{key}", f"value:{key}")
        if raw is not None:
            kept = json.loads(raw)
            if kept["read_at"] > float(attempt or 0):
                return int(kept["count"]), True
        read_at = time.time()
        count = self._load(key)
        self._redis.set(f"value:{key}", json.dumps({"count": count, "read_at": read_at}))
        return count, False

    def _load(self, key: int) -> int:
        loaded = self._store.load(lambda tx, keys: {one: Row(count_of(tx, one), None) for one in keys}, [key])
        return int(loaded.rows[key].value)

    def write(self, key: int) -> None:
        """Count one up."""
        self._redis.set(f"attempt:{key}", time.time() + BLIND_S)
        with self._store.transaction() as tx:
            tx.execute("update hot set count = count + 1 where id = :id", {"id": key})

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def count_of(tx: Any, key: int) -> int:
    """A row's count."""
    return int(tx.execute("select count from hot where id = :id", {"id": key}).scalar_one())
