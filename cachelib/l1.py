"""L1: decoded values kept in this process for a moment, for `eventual` reads.

A copy is served without asking anybody, so within its `ttl` (a second at most, unless a person
says otherwise) it may be behind the item that it was taken from. What it is never behind is this
process's own writes, as an order of events:

    reader takes the shelf's stamp · reader gets the item's bytes · writer changes the item ·
    writer drops the key and moves the stamp · writer is answered · reader comes to keep what it has: refused

A shelf belongs to one layout: a new epoch begins with an empty one. `drop` is also the place
for whoever learns of changes from elsewhere.

Source of the idea: dogpile's and FusionCache's first level, with the stamp for the race that they lose.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cachelib.entity import Entity
from cachelib.keys import Key
from cachelib.policy import L1, Eventual, duration_ms

PLAIN_KEYS = frozenset((int, str))
"""Types of keys that name their copy as they are; the others by their text (no two of them are equal)."""

_guard = threading.Lock()
"""One for all shelves: it is held for a few microseconds, and only where something is kept or dropped."""


def _after_fork() -> None:
    """Another thread may have held it at the fork; in the child nobody would give it back."""
    global _guard  # noqa: PLW0603 - the old one cannot be used again
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Copy:
    """One value. `until`: of the monotonic clock, seconds."""

    __slots__ = ("as_of_us", "size", "text", "until", "value", "version")

    def __init__(self, value: Any, until: float, text: bytes, size: int, version: int, as_of_us: int) -> None:
        self.value = value
        self.until = until
        self.text = text
        self.size = size
        self.version = version
        self.as_of_us = as_of_us


class Shelf:
    """The copies of one entity under one layout. Reading is `look`, and whether `until` is to come."""

    __slots__ = ("_at", "_copies", "_near", "bytes", "look", "number", "retired", "stamp", "ttl_s")

    def __init__(self, near: Near, number: int, ttl_s: float, copies: MutableMapping[Key, Copy]) -> None:
        self._near = near
        self._copies = copies
        self._at: dict[bytes, set[Key]] = {}
        """Under which keys the copies of a text stand: 7 and "7" are one row."""
        self.look: Callable[[Key], Copy | None] = copies.get
        """The copy under a key (of `PLAIN_KEYS`, or the key's text). One C call; takes no lock."""
        self.stamp = 0
        """Moves with every drop; see the module."""
        self.number = number
        """Of the layout."""
        self.retired = False
        """A later layout has a shelf of its own."""
        self.bytes = 0
        self.ttl_s = ttl_s

    def keep(self, key: Key, text: bytes, stamp: int, copy: Copy) -> None:
        """Keep a value that was read after `stamp` was taken, unless something was dropped since."""
        with _guard:
            if self.stamp != stamp or self.retired or copy.size > self._near.bytes_max:
                return
            self._forget(key)
            self._near.make_room(copy.size)
            self._copies[key] = copy
            self._at.setdefault(text, set()).add(key)
            self._count(copy.size, 1)

    def drop(self, text: bytes) -> None:
        """Forget what is kept for a key, under all its spellings."""
        with _guard:
            self.stamp += 1
            for key in tuple(self._at.get(text, ())):
                self._forget(key)

    def clear(self) -> None:
        """Forget everything. The guard is held."""
        self.stamp += 1
        self._count(-self.bytes, -len(self._copies))
        self._copies.clear()
        self._at.clear()

    def forget_one(self) -> None:
        """Make room: the one used longest ago (cachebox), or kept longest. The guard is held."""
        copies = self._copies
        key, copy = copies.popitem(last=False) if isinstance(copies, OrderedDict) else copies.popitem()
        self._gone(key, copy)

    def _forget(self, key: Key) -> None:
        copy = self._copies.pop(key, None)
        if copy is not None:
            self._gone(key, copy)

    def _gone(self, key: Key, copy: Copy) -> None:
        keys = self._at[copy.text]
        keys.discard(key)
        if not keys:
            del self._at[copy.text]
        self._count(-copy.size, -1)

    def _count(self, size: int, copies: int) -> None:
        self.bytes += size
        self._near.bytes += size
        self._near.copies += copies


class Near:
    """All shelves of one cache, within the bounds of its `L1`; without one it keeps nothing."""

    def __init__(self, policy: L1 | None) -> None:
        self.policy = policy
        self.bytes = self.copies = 0
        self.bytes_max = policy.bytes_max if policy else 0
        self._shelves: dict[Entity, Shelf] = {}

    def shelf(self, entity: Entity, number: int) -> Shelf | None:
        """The shelf of an entity under the layout of this number; None where nothing is kept (any more)."""
        if self.policy is None or not isinstance(entity.consistency, Eventual):
            return None
        with _guard:
            old = self._shelves.get(entity)
            if old is not None and old.number >= number:
                return old if old.number == number else None
            if old is not None:
                old.retired = True
                old.clear()
            ttl_s = duration_ms("L1.ttl", self.policy.ttl) / 1000
            shelf = self._shelves[entity] = Shelf(self, number, ttl_s, _copies(self.policy.entries_max))
            return shelf

    def drop(self, entity: Entity, text: bytes) -> None:
        """A key has changed: forget its copies, also those that are on their way here."""
        shelf = self._shelves.get(entity)
        if shelf is not None:
            shelf.drop(text)

    def drop_all(self) -> None:
        """Forget everything, also what is on its way here."""
        with _guard:
            for shelf in self._shelves.values():
                shelf.clear()

    def make_room(self, size: int) -> None:
        """Forget until a copy of this size fits. The guard is held."""
        assert self.policy is not None
        while self.copies and (self.copies >= self.policy.entries_max or self.bytes + size > self.bytes_max):
            max(self._shelves.values(), key=lambda shelf: shelf.bytes).forget_one()


def _copies(entries_max: int) -> MutableMapping[Key, Copy]:
    """Where copies stand: cachebox knows which one was used last; without it the one kept longest goes first,
    which is the one that ends first."""
    if find_spec("cachebox") is None:
        return OrderedDict()
    kept: MutableMapping[Key, Copy] = import_module("cachebox").LRUCache(entries_max)
    return kept
