"""Does the cache say anything else than the store?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import psycopg

from cachelib import Cache
from cachelib.errors import CacheError
from cachelib.stores import SqlStore
from tests.soak.entities import ITEM_KEYS, ITEMS, LEDGER
from tests.soak.world import NAMESPACE, World

_CHUNK = 1000


@dataclass
class Compared:
    """What one comparison of every key found."""

    keys: int = 0
    hits: int = 0
    stale: int = 0
    example: str = ""


def compare(world: World) -> Compared:
    """Every key of both tables; a key that is not cached is loaded, and right."""
    found = Compared()
    with (
        psycopg.connect(world.dsn, autocommit=True) as connection,
        SqlStore(world.store_url) as store,
        Cache(world.redis.url, store=store, namespace=NAMESPACE) as cache,
    ):
        for entity, table, keys in (
            (ITEMS, "items", range(ITEM_KEYS)),
            (LEDGER, "ledger", range(_rows(connection))),
        ):
            for chunk in _chunks(keys):
                asked = f"select id, note, row_version from {table} where id between %s and %s"
                truth = {row[0]: row[1:] for row in connection.execute(asked, [chunk[0], chunk[-1]])}
                for key, read in cache.read_many(entity, chunk).items():
                    served = (read.value["note"], read.version) if read.found else None
                    found.keys += 1
                    found.hits += read.source == "hit"
                    if served != truth.get(key):
                        found.stale += 1
                        found.example = f"{table} {key}: the cache has {served}, the store {truth.get(key)}"
    return found


def _rows(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("select coalesce(max(id), -1) + 1 from ledger").fetchone()
    return row[0] if row else 0


def _chunks(keys: Sequence[int]) -> Iterator[list[int]]:
    rest = iter(keys)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def settle(world: World, within_s: float) -> tuple[Compared, float]:
    """Compare until nothing differs, or the time is up; what the last one found, and how long it took."""
    began_s = time.monotonic()
    while True:
        try:
            found = compare(world)
        except CacheError as error:
            found = Compared(stale=-1, example=str(error))
        took_s = time.monotonic() - began_s
        if not found.stale or took_s > within_s:
            return found, took_s
        time.sleep(0.5)
