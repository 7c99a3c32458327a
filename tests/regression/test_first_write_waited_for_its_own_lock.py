"""The first write to a new SQLite store waited five seconds for itself, and failed.

Order of events: a transaction takes SQLite's write lock · at its end the commit looks at the layout
· there is none yet, so it writes the first one, on a connection of its own · which waits for the
lock until "database is locked": rolled back. It never showed where something was read first.

Of its class: every scenario of a fresh store beginning with a write; `tests/integration/test_client_writes.py`.
"""

from __future__ import annotations

import sqlalchemy as sa

from cachelib import Cache, Entity
from cachelib.stores import SqlStore


def test_the_first_thing_a_program_does_may_be_a_write(sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as conn:
        conn.exec_driver_sql("create table items (id integer primary key, name text)")
    engine.dispose()
    items = Entity.from_table("items")
    with SqlStore(sqlite_url, connect_timeout="200ms") as store:
        store.install("items")
        with Cache("memory://", store=store, entities=[items]) as cache, cache.transaction() as tx:
            tx.execute("insert into items (id, name) values (1, 'a')")
    assert tx.written is not None
    assert tx.written.confirmed
