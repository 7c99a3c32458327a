"""How many of our files one call crosses: no room exists to pass calls through.

A newcomer should read one `get` forward, in a handful of files. The lists are written out so
that a new file on the way is a decision that somebody sees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cachelib import Cache, Entity
from cachelib.stores import SqlStore

PACKAGE = Path(__file__).parents[1] / "cachelib"

HIT = ["client.py", "straight.py"]
MISS_OF_THE_CACHE = {
    *("client.py", "asked.py", "core.py", "plans.py", "view.py", "overlap.py", "steps.py", "shown.py", "call.py"),
    *(
        "loading.py",
        "readplan.py",
        "nodes.py",
        "pool.py",
        "breaker.py",
        "threads.py",
        "flights.py",
        "budget.py",
        "keys.py",
        "codecs.py",
        "entity.py",
        "layout.py",
        "metrics.py",
        "l1.py",
        "levels.py",
        "lane.py",
        "straight.py",
    ),
    *("policy.py", "model.py", "item.py", "envelope.py"),
}


def files_crossed(call: Callable[[], Any]) -> list[str]:
    """Our files in the order in which the call first enters them."""
    crossed: dict[str, None] = {}

    def note(frame: FrameType, event: str, arg: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            crossed.setdefault(str(path.relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(crossed)


@pytest.fixture
def shop(sqlite_url: str, redis_url: str) -> Any:
    with SqlStore(sqlite_url) as store:
        with store.transaction() as tx:
            tx.execute("create table customers (id integer primary key, name text)")
            tx.execute("insert into customers values (7, 'seven')")
            tx.commit()
        store.install("customers", key="id")
        customers = Entity.from_table("customers", key="id")
        with Cache(redis_url, store=store, entities=[customers]) as cache:
            cache.get(customers, 8)  # the layout is read, the connection is made
            yield cache, customers


def test_a_hit_crosses_two_files(shop: tuple[Cache, Entity]) -> None:
    cache, customers = shop
    for _ in range(3):  # fills, then hits: the first is one whose duration is counted
        cache.get(customers, 7)
    assert files_crossed(lambda: cache.get(customers, 7)) == HIT


def test_a_miss_stays_within_the_core_the_store_and_the_backend(shop: tuple[Cache, Entity]) -> None:
    cache, customers = shop
    crossed = files_crossed(lambda: cache.get(customers, 7))
    outside = {name for name in crossed if not name.startswith(("stores/", "backends/"))}
    assert outside <= MISS_OF_THE_CACHE
