"""A look-aside cache over a real Redis, as it is usually written: what the check of registers has to find out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import redis

from cachelib.errors import CacheUnavailable
from cachelib.stores import SqlStore

_TTL_S = 10


class LookAside:
    """Get; on a miss load and set. After a commit, delete. The surface of `cachelib.Cache` that registers need."""

    def __init__(self, url: str, *, store: SqlStore, **_: Any) -> None:
        self._redis = redis.Redis.from_url(url)
        self._store = store

    def get(self, entity: Any, key: int) -> Any:
        """See `Cache.get`."""
        try:
            raw = self._redis.get(str(key))
            if raw is not None:
                return json.loads(raw)
            with self._store.transaction() as tx:
                found = tx.execute("select id, count from registers where id = :id", {"id": key}).first()
            row = None if found is None else {"id": found[0], "count": found[1]}
            self._redis.set(str(key), json.dumps(row), ex=_TTL_S)
        except redis.RedisError as error:
            raise CacheUnavailable(str(error)) from error
        return row

    def get_many(self, entity: Any, keys: list[int]) -> dict[int, Any]:
        """See `Cache.get_many`."""
        return {key: self.get(entity, key) for key in keys}

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """See `Cache.transaction`."""
        noted = _Noted()
        with self._store.transaction() as tx:
            noted.tx = tx
            yield noted
        for key in noted.keys:
            self.invalidate(None, key)

    def invalidate(self, entity: Any, key: int) -> None:
        """See `Cache.invalidate`."""
        try:
            self._redis.delete(str(key))
        except redis.RedisError as error:
            raise CacheUnavailable(str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()


class _Noted:
    """A transaction that knows which keys were named in it."""

    def __init__(self) -> None:
        self.tx: Any = None
        self.keys: set[int] = set()

    def execute(self, statement: str, named: Any) -> Any:
        """Run a statement."""
        self.keys.add(named["id"])
        return self.tx.execute(statement, named)
