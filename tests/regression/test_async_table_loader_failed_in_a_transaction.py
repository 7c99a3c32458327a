"""Every write of a `from_table` entity failed on the async face.

A commit reads the changed rows with the entity's loader, inside the transaction. The async table
loader took the blocking transaction out of what it was given by a name that only the load
transaction had: AttributeError, and the transaction was rolled back.

Of its class: scenarios that are written once and run on both faces; they are `tests/integration/test_client_*`.
"""

from __future__ import annotations

import asyncio

from cachelib import AsyncCache, Entity
from cachelib.stores import AsyncSqlStore


def test_an_async_write_of_whole_rows_is_told_to_the_cache(sqlite_url: str) -> None:
    async def main() -> None:
        items = Entity.from_table("items")
        async with AsyncSqlStore(sqlite_url) as store, AsyncCache("memory://", store=store, entities=[items]) as cache:
            async with store.transaction() as tx:
                await tx.execute("create table items (id integer primary key, name text)")
            await store.install("items")
            async with cache.transaction() as tx:
                await tx.execute("insert into items (id, name) values (1, 'a')")
                assert await tx.get(items, 1) == {"id": 1, "name": "a"}
            assert await cache.get(items, 1) == {"id": 1, "name": "a"}

    asyncio.run(main())
