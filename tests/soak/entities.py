"""What the soak caches; the daemon imports it as an application's module.

`ledger` is how a lost event is found: each of its rows is cached as absent *before* it is inserted, so every single
event has a key of its own that stays wrong where it is lost. `items` are few, and written again and again.
"""

from __future__ import annotations

from cachelib import Entity

SCHEMA = (
    "create table ledger (id bigint primary key, note text)",
    "create table items (id int primary key, note text)",
)
LEDGER = Entity.from_table("ledger", key="id", ttl="2h", negative_ttl="2h")
ITEMS = Entity.from_table("items", key="id", ttl="2h", negative_ttl="2h")
ENTITIES = [LEDGER, ITEMS]
ITEM_KEYS = 2000
