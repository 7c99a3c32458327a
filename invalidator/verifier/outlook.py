"""What the store says beside its rows: the layout, by which clients name keys now, and its clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cachelib.errors import StoreError
from cachelib.layout import REFRESH_MS, Layout, decode_layout
from cachelib.model import Name
from cachelib.places import node_name
from cachelib.policy import Mode
from cachelib.stores.base import Store
from invalidator.verifier.checks import Check

_CLOCK_EVERY_S = 10.0


class Outlook:
    """`layout` is None where no client has ever come: nothing is cached then."""

    def __init__(self, store: Store, namespace: str, clock_s: Callable[[], float], now_ms: Callable[[], int]) -> None:
        self.layout: Layout | None = None
        self._store = store
        self._namespace = namespace
        self._clock_s = clock_s
        self._now_ms = now_ms
        self._layout_until_s = self._clock_until_s = 0.0
        self._ahead_us = 0

    def look(self) -> None:
        """Read again what is due. Raises `StoreError`."""
        now_s = self._clock_s()
        if now_s >= self._layout_until_s:
            self._layout_until_s = now_s + REFRESH_MS / 1000
            document = self._store.read_layout()
            self.layout = None if document is None else decode_layout(document)
        if now_s >= self._clock_until_s:
            began_ms = self._now_ms()
            # Theirs was read after ours: so it is ahead by no more than this.
            self._ahead_us = self._store.now_us() - began_ms * 1000
            self._clock_until_s = now_s + _CLOCK_EVERY_S

    def read(self) -> Layout:
        """The layout, read now. Raises `StoreError`."""
        self._layout_until_s = 0.0
        self.look()
        if self.layout is None:
            raise StoreError("the layout has gone from the store")
        return self.layout

    def now_us(self) -> int:
        """The store's clock; rather ahead of it than behind."""
        return self._now_ms() * 1000 + self._ahead_us

    def named(self, layout: Layout, checks: Sequence[Check]) -> list[tuple[Check, Name]]:
        """What clients call the keys now, without those for which they do not ask the cache."""
        named = ((one, one.entity.name) for one in checks)
        return [
            (one, layout.names(self._namespace, entity, one.text)[0])
            for one, entity in named
            if layout.mode(entity) is not Mode.BYPASS
        ]

    def asked_of(self, node: str, layout: Layout, named: Sequence[tuple[Check, Name]]) -> Sequence[tuple[Check, Name]]:
        """Those for which clients ask this node: all, unless the layout spreads them over a pool."""
        if not layout.now.nodes:
            return named
        return [
            (check, name)
            for check, name in named
            if name in layout.told(node_name(node), self._namespace, check.entity.name, check.text)
        ]
