"""A strong read hit under a layout whose lease had lapsed.

Order of events: this process cannot reach the store, others can · an eventual read renews the
view without a lease, so that the hit path stays open for a second more, again and again · others
clear the entity and write to its new names · here `get` of a strong entity goes on to serve the
old ones: its hit path looks at `refresh_at` only, and a kept view has one in the future (I13).

Of its class: a test that takes the store away and waits longer than the lease, for every level,
on the hit path; it is `tests/unit/test_view.py` now.
"""

from __future__ import annotations

import pytest

from cachelib import Cache, Entity, Eventual, Row, StoreError, Strong
from cachelib.layout import LEASE_MS, encode_layout, first_layout, with_strong
from cachelib.stores.base import Loaded

ACCOUNTS = Entity("account:{id}", table="accounts", load=lambda tx, keys: {}, consistency=Strong())
ORDERS = Entity("order:{id}", table="orders", load=lambda tx, keys: {})


class PartedStore:
    """A store that this process loses contact with."""

    def __init__(self) -> None:
        self.down = False
        layout = first_layout()
        for entity in (ACCOUNTS, ORDERS):
            layout = with_strong(layout, entity.name, [entity.table or ""])
        self.document = encode_layout(layout)

    def read_layout(self) -> bytes:
        if self.down:
            raise StoreError("parted")
        return self.document

    def now_us(self) -> int:
        return 1

    def load(self, loader: object, keys: list[object], *, timeout_s: float | None = None) -> Loaded:
        if self.down:
            raise StoreError("parted")
        return Loaded({key: Row("value", 1) for key in keys}, 1)


def test_a_strong_hit_needs_a_lease_that_has_not_lapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    store = PartedStore()
    with Cache("memory://", store=store, entities=[ACCOUNTS, ORDERS]) as cache:  # type: ignore[arg-type]
        for entity in (ACCOUNTS, ORDERS):
            assert [cache.get(entity, 1) for _ in range(3)] == ["value"] * 3
        store.down = True
        now[0] += LEASE_MS / 1000 + 0.1
        assert cache.get(ORDERS, 1) == "value"
        assert cache.get(ACCOUNTS, 1, consistency=Eventual()) == "value"
        with pytest.raises(StoreError):
            cache.get(ACCOUNTS, 1)
