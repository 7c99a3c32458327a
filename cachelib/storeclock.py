"""What the store's clock says now, without asking it each time; and who the store is.

The clock was asked at some moment between the question and the answer, so it is known with an error of as much;
since then both clocks have run on, and may have drifted apart.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from cachelib.errors import StoreError
from cachelib.stores.base import AsyncStore

ASK_S = 10.0
"""The store is asked again this often, while somebody wants to know."""
DRIFT = 500e-6
"""Two clocks run apart by this share of the time at most: five times what a machine without any discipline does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and its answer. `before_us` and `after_us` are of the monotonic clock."""

    before_us: int
    after_us: int
    store_us: int
    mark: str


class StoreClock:
    """Of one store, as one process sees it. Times are microseconds since the epoch, by the store."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._asked: Asked | None = None
        self._due_at = 0.0

    @property
    def mark(self) -> str:
        """Who the store is, as a short text. `ready` comes first."""
        return self._known.mark

    async def ready(self) -> None:
        """Ask, where that is due. Raises `StoreError` where it never answered; else the old answer does for longer."""
        now = time.monotonic()
        if self._asked is not None:
            if now < self._due_at:
                return
            self._due_at = now + ASK_S  # others go on by what is known
        try:
            self._asked = await self._ask()
            self._due_at = now + ASK_S
        except StoreError:
            if self._asked is None:
                raise

    async def _ask(self) -> Asked:
        identity = await self._store.identity()
        before_us = _mono_us()
        store_us = await self._store.now_us()
        return Asked(before_us, _mono_us(), store_us, store_mark(identity))

    @property
    def _known(self) -> Asked:
        assert self._asked is not None, "ready() comes first"
        return self._asked

    def latest_us(self) -> int:
        """It is not later than this."""
        asked, now_us = self._known, _mono_us()
        return asked.store_us + (now_us - asked.before_us) + int((now_us - asked.before_us) * DRIFT) + 1

    def earliest_us(self) -> int:
        """It is not earlier than this."""
        asked, now_us = self._known, _mono_us()
        return asked.store_us + (now_us - asked.after_us) - int((now_us - asked.before_us) * DRIFT) - 1


def store_mark(identity: str) -> str:
    """Of a store's identity, 8 bytes as hexadecimal digits."""
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def _mono_us() -> int:
    return time.monotonic_ns() // 1000
