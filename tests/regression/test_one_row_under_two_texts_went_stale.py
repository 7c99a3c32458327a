"""`get(customers, "07")` was served an old value for ever, as Strong() too.

Order of events: somebody asks for "07", a text from a URL · the database takes it for 7 and gives
that row · it is kept under the text "07" · row 7 is written: its change log says 7, so the item of
7 is put and that of "07" never hears of it.

And two entities whose templates can give one text shared their items: one was served for the other.

Of its class: asking for the same row in every spelling that a database accepts, then writing it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from cachelib import BadKey, Cache, ConfigError, Entity, Strong
from cachelib.entity import FunctionLoader
from cachelib.stores import SqlStore


@pytest.fixture(params=["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.server)])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    url = str(request.getfixturevalue(request.param))
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        conn.exec_driver_sql("create table items (id integer primary key, name text)")
        conn.exec_driver_sql("insert into items values (7, 'old')")
    engine.dispose()
    with SqlStore(url) as store:
        store.install("items")
        with Cache("memory://", store=store) as cache:
            yield cache


def refused_or_absent(cache: Cache, entity: Entity, key: str) -> bool:
    try:
        return cache.get(entity, key) is None
    except BadKey:
        return True


@pytest.mark.parametrize("spelling", ["07", " 7", "+7", "7 "])
def test_a_row_is_kept_under_one_text_only(cache: Cache, spelling: str) -> None:
    items = Entity.from_table("items", consistency=Strong())
    assert refused_or_absent(cache, items, spelling)
    assert cache.get(items, "7") == {"id": 7, "name": "old"}
    with cache.transaction() as tx:
        tx.execute("update items set name = 'new'")
    assert cache.get(items, 7) == cache.get(items, "7") == {"id": 7, "name": "new"}


def test_two_entities_that_can_share_a_key_are_refused() -> None:
    with Cache("memory://") as cache:
        cache.get(Entity("order:{id}", load=FunctionLoader(lambda id: "A"), name="a"), 7)
        with pytest.raises(ConfigError, match="can have the same key"):
            cache.get(Entity("order:{no}", load=FunctionLoader(lambda no: "B"), name="b"), 7)
