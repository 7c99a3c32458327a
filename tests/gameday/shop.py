"""What the shop caches; the daemon mounts this file as a module, and the application imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cachelib import Entity, LeasePolicy
from cachelib.model import Row

STALE_TTL = os.environ.get("SHOP_STALE_TTL", "0s")
"""How long a reader may be shown the row as it was: what the runbook advises for a hot key."""
HOLD, BOARD_TTL = os.environ.get("SHOP_HOLD", "3s"), os.environ.get("SHOP_BOARD_TTL", "1h")
FORMAT = int(os.environ.get("SHOP_FORMAT", "1"))
"""Which format of values this release writes."""


def _load_board(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Row]:
    """A query that takes its time, as those of dashboards do."""
    found = {}
    for key in keys:
        asked = "select id, tier, row_version, pg_sleep(0.15) from boards where id = :id"
        for number, tier, version, _ in tx.execute(asked, {"id": key}):
            found[key] = Row({"id": number, "tier": tier}, version)
    return found


def _customer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "tier": row["tier"]}


customers = Entity.from_table("customers", key="id", ttl="1h", refresh=_customer, schema=FORMAT)
boards = Entity(
    "boards:{id:int}",
    table="boards",
    key="id",
    version="row_version",
    load=_load_board,
    ttl=BOARD_TTL,
    stale_ttl=STALE_TTL,
    lease=LeasePolicy(hold=HOLD),
)
entities = [customers, boards]
SCHEMA = (
    "create table customers (id integer primary key, tier text not null)",
    "create table boards (id integer primary key, tier text not null)",
)
ROWS = 60
