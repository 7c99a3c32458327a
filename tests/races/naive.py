"""A look-aside cache as it is usually written: get, set, delete, a TTL, and perhaps a lock. Kept to fail.

Read: get; on a miss load and set. Write: commit, then set or delete. Invalidate: delete. It has the
surface of `tests.races.world.Ours`, so one scenario runs on both.
"""

from __future__ import annotations

from typing import Any

from cachelib.errors import CacheError
from tests.races.world import HOLD_MS, Clock, Commit, Store

MISS = object()
STUCK = "nobody may load this key"


class Naive:
    """`writer` sets or deletes. With `lock`, one reader loads; "for ever" is a lock without an end."""

    naive = True

    def __init__(self, *, writer: str = "put", lock: str = "", **_: Any) -> None:
        self.store, self.clock = Store(), Clock()
        self.writer, self.lock = writer, lock
        self.value: Any = MISS
        self.locked_until_ms = 0
        self.full = False
        self.notes: list[str] = []

    def reader(self, *, strong: bool = True, skew_ms: int = 0) -> NaiveReader:
        return NaiveReader(self, skew_ms)

    def read(self) -> Any:
        return self.reader().fill()

    def tell(self, commit: Commit) -> bool:
        if self.full:
            return False  # the error is logged, and the old value stays
        self.value = commit.value if self.writer == "put" else MISS
        return True

    def write(self, value: str | None, version: int | None = None) -> Commit:
        commit = self.store.commit(value, version)
        self.tell(commit)
        return commit

    def apply_log(self, commit: Commit) -> None:
        self.value = commit.value if self.writer == "refresh" else MISS

    def unknown_commit(self) -> None:
        """The exception is raised to the caller; nobody thinks of the cache."""

    def evict(self) -> None:
        self.value = MISS

    def restart(self) -> None:
        self.value, self.locked_until_ms = MISS, 0

    @property
    def item(self) -> Any:
        return self.value

    def come_back_with(self, value: Any) -> None:
        self.value, self.locked_until_ms = value, 0

    def let_the_lease_end(self) -> None:
        self.clock.now_ms += HOLD_MS + 1


class NaiveReader:
    """One read, moved by hand."""

    def __init__(self, world: Naive, skew_ms: int) -> None:
        self._world, self._skew_ms = world, skew_ms
        self._asked = self._loaded = self._done = False
        self._value: Any = MISS

    def ask(self) -> NaiveReader:
        if self._asked:
            return self
        self._asked, world = True, self._world
        now_ms = world.clock.now_ms + self._skew_ms
        if world.value is not MISS:
            self._done, self._value = True, world.value
        elif world.lock and now_ms < world.locked_until_ms:
            self._done, self._value = True, STUCK
        elif world.lock:
            world.locked_until_ms = now_ms + (1 << 60 if world.lock == "for ever" else HOLD_MS)
        return self

    ask_once = ask

    def load(self, behind: int = 0) -> NaiveReader:
        self.ask()
        if not self._done and not self._loaded:
            self._loaded, self._value = True, self._world.store.load(behind).value
        return self

    def fill(self) -> Any:
        self.load()
        if not self._done:
            self._done, self._world.value = True, self._value
            self._world.locked_until_ms = 0
        return self._value

    def die(self) -> None:
        self._done = True

    def fail(self, error: CacheError) -> None:
        self._done = True
