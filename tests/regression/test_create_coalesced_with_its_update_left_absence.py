"""A row that was inserted and updated in one transaction stayed "absent" in the cache.

Order of events, with a version that restarts after delete and re-insert: the cache holds absence
of version 6 · one transaction inserts the row (version 1) and updates it (2) · the two changes
are coalesced to the update alone · its version is below the floor: nothing happens, and the
absence is served for its life. The create must not be lost: it voids absence whatever its version.

Of its class: a property that compares `coalesce` with all changes in their order. There was none;
it is `tests/unit/test_effects.py` now.
"""

from __future__ import annotations

from cachelib.effects import coalesce, effects
from cachelib.entity import Entity
from cachelib.item import apply, serves
from cachelib.model import ABSENCE, ANY, Item, RowChange

ENTITY = Entity("order:{id}", table="orders")
ABSENT = Item(ABSENCE, known=True, version=6, floor=6, expires_ms=10_000)


def test_insert_and_update_in_one_transaction_void_cached_absence() -> None:
    changes = [RowChange("orders", "create", {"id": 7}, 1), RowChange("orders", "update", {"id": 7}, 2)]
    (left,) = coalesce(effect for change in changes for effect in effects(ENTITY, change))
    item, _ = apply(ABSENT, left.op(), 1_000)
    assert item is not None
    assert not serves(item, ANY)
