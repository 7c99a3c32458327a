"""What a level costs in hits: one that always asked the store would keep any promise. `make verify-levels` in short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from cachelib import Cache
from cachelib.stores import SqlStore
from tests.soak.levels import AT_LEAST, ENTITIES, LEVELS, Size, hit_ratio, missed

SIZE = Size(seconds=3.0, keys=50, rate=160.0)


@pytest.mark.parametrize("level", ["session", "strong"])
def test_level_hits_while_one_operation_in_twenty_writes(level: str, redis_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as conn:
        conn.exec_driver_sql("create table plain (id integer primary key, count integer not null)")
        rows = ", ".join(f"({key}, 0)" for key in range(1, SIZE.keys + 1))
        conn.exec_driver_sql(f"insert into plain values {rows}")
    engine.dispose()
    with SqlStore(url) as store:
        store.install("plain", key="id")

        @contextmanager
        def cache() -> Iterator[Cache]:
            with Cache(redis_url, store=store, entities=ENTITIES) as made:
                for entity in ENTITIES:
                    made.get_many(entity, range(1, SIZE.keys + 1))
                yield made

        shop: Any = SimpleNamespace(size=SIZE, cache=cache)
        assert hit_ratio(shop, level) >= AT_LEAST[level]


def result(**changed: Any) -> dict[str, Any]:
    kept = {"violations": 0, "errors": 0, "loads_per_s": 500.0, "eventual_oldest_s": 20.0}
    hits = dict.fromkeys(LEVELS, 0.96)
    return {
        "hits": {level: changed.get(level, hit) for level, hit in hits.items()},
        "paused": {name: changed.get(name, value) for name, value in kept.items()},
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"bounded": 0.9}, ["bounded: 90.0% hits"]),
        ({"bounded": 0.92, "eventual": 0.95}, []),
        ({"strong": 0.0}, ["strong: 0.0% hits"]),
        ({"violations": 1}, ["1 violations"]),
        ({"errors": 2}, ["2 errors"]),
        ({"loads_per_s": 601.0}, ["601.0 loads/s"]),
        ({"eventual_oldest_s": 1.0}, ["eventual reads were as new: the pause shows nothing"]),
    ],
)
def test_promise_that_was_not_kept_is_named(changed: dict[str, Any], said: list[str]) -> None:
    assert missed(result(**changed)) == said
