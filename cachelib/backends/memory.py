"""The backend that keeps its items in this process: `item.apply` under a lock.

For tests, for one process on its own, and as the plainest example of a backend. It keeps encoded
bytes as a server does, so that nobody shares a mutable object with it.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TypeAlias

from cachelib.backends.base import VOIDING, Batch, Capability, Results
from cachelib.envelope import decode, encode
from cachelib.errors import ConfigError, DecodeError
from cachelib.item import apply
from cachelib.model import Answer, Item, Name, Op
from cachelib.policy import LIFE_MS_MAX
from cachelib.proof import Seen, tell

ITEMS_MAX = 100_000
NAME_BYTES_MAX = 64 * 1024
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024

Clock = Callable[[], int]
Snapshot: TypeAlias = tuple[Mapping[Name, tuple[bytes, int]], Mapping[Name, bytes]]


def monotonic_ms() -> int:
    """How this process counts an item's life: no clock that somebody can set."""
    return time.monotonic_ns() // 1_000_000


class Memory:
    """A `Backend` over a dictionary. At most `items_max` items: beyond, the least recently used one goes.

    `clock_ms` counts lives; it need not agree with the `now_ms` of the operations. As on a server,
    an item lives for `expires_ms - now_ms` from the operation that wrote it.
    """

    capability = Capability(
        "memory",
        NAME_BYTES_MAX,
        PAYLOAD_BYTES_MAX,
        ttl_step_ms=1,
        life_ms_max=LIFE_MS_MAX,
        names_printable=False,
        shared=False,
    )

    def __init__(self, *, items_max: int = ITEMS_MAX, clock_ms: Clock = monotonic_ms) -> None:
        if items_max < 1:
            raise ConfigError(f"items_max must be at least 1, not {items_max}")
        self._items_max = items_max
        self._clock_ms = clock_ms
        self._lock = Lock()
        self._items: OrderedDict[Name, tuple[bytes, int]] = OrderedDict()
        self._notes: dict[Name, bytes] = {}
        self._instance = secrets.token_hex(8)
        self._old = False
        self._watchers: list[Seen] = []

    def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        with self._lock:
            return self._read(name)

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        with self._lock:
            return [self._read(name) for name in names]

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        with self._lock:
            return self._execute(name, op, now_ms)

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return [self.execute(name, op, now_ms) for name, op in batch]

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        results = self.execute_many(batch, now_ms)
        self._notes.update(notes)  # I11: behind the batch
        return results

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return [self._notes.get(name) for name in names]

    def instance(self) -> str:
        """See `Backend.instance`."""
        return self._instance

    def began_empty(self) -> bool:
        """This start has nothing from before it."""
        return not self._old

    def watch(self, seen: Seen) -> None:
        """See `Backend.watch`; the one connection there is leads to this process."""
        self._watchers.append(seen)
        seen(self._instance)

    def close(self) -> None:
        """Nothing to close; the items stay."""

    # --- what a server does on its own, at a test's command ------------------------------------

    def evict(self, name: Name) -> None:
        """Drop one item."""
        with self._lock:
            self._items.pop(name, None)

    def restart(self, old: Snapshot = ({}, {})) -> None:
        """Lose everything, notes too, and come up as another instance: empty, or with what it had once."""
        with self._lock:
            self._instance = secrets.token_hex(8)
            tell(self._watchers, self._instance)
            self._items, self._notes = OrderedDict(old[0]), dict(old[1])
            self._old = bool(self._items)

    def snapshot(self) -> Snapshot:
        """Items and notes as they are now, to come back with."""
        with self._lock:
            return dict(self._items), dict(self._notes)

    def plant(self, name: Name, raw: bytes, life_ms: int = 3_600_000) -> None:
        """Keep these bytes for `name`, whatever they are."""
        with self._lock:
            self._write(name, raw, life_ms)

    def life_ms(self, name: Name) -> int | None:
        """How long the item has left; None where there is none."""
        with self._lock:
            kept = self._items.get(name)
            return None if kept is None else kept[1] - self._clock_ms()

    # --- how -----------------------------------------------------------------------------------

    def _execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        raw = self._read(name)
        before = _readable(raw)
        after, answer = apply(before, op, now_ms)
        if after is not None and after is not before:
            self._write(name, encode(after), after.expires_ms - now_ms)
        elif raw is not None and before is None and isinstance(op, VOIDING):
            del self._items[name]  # another program may be able to read it, and must not find it fresh
        return answer

    def _read(self, name: Name) -> bytes | None:
        kept = self._items.get(name)
        if kept is None:
            return None
        if kept[1] <= self._clock_ms():
            del self._items[name]
            return None
        self._items.move_to_end(name)
        return kept[0]

    def _write(self, name: Name, raw: bytes, life_ms: int) -> None:
        self._items[name] = raw, self._clock_ms() + max(1, min(life_ms, LIFE_MS_MAX))
        self._items.move_to_end(name)
        if len(self._items) > self._items_max:
            self._items.popitem(last=False)


class AsyncMemory:
    """The async face of a `Memory`; both faces of one see the same items."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.capability = self.memory.capability

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return self.memory.get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return self.memory.get_many(names)

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return self.memory.execute(name, op, now_ms)

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return self.memory.execute_many(batch, now_ms)

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return self.memory.apply(batch, notes, now_ms)

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return self.memory.read_notes(names)

    async def instance(self) -> str:
        """See `Backend.instance`."""
        return self.memory.instance()

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self.memory.watch(seen)

    async def close(self) -> None:
        """See `Memory.close`."""
        self.memory.close()


def _readable(raw: bytes | None) -> Item | None:
    """The item, or None where the bytes are none of ours (I12)."""
    if raw is None:
        return None
    try:
        return decode(raw)
    except DecodeError:
        return None
