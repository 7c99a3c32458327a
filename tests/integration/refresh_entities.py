"""What the tests of refresh cache; the daemon imports it as an application's module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachelib import Entity


def _value(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "tier": row["tier"]}


CUSTOMERS = Entity.from_table("customers", key="id", refresh=_value)
entities = [CUSTOMERS]
