"""Which puts of after-images were of use: read before the key changed again.

A hit is a bare GET, of which nobody is told. So one in so many puts is *watched*: its item is due for an early refresh
from the start (`soft_expire`), and its first reader takes the lease, loads and fills, as any early refresh goes. That
costs one load of the store for each watched put that is read. Before the key is told of its next change, or after
`LOOK_AFTER_S`, the item is looked at: as it was put, nobody has read it; leased or filled anew, somebody has. Where it
is gone, or somebody else wrote it, or its connection was lost, nobody can say. (A read whose load failed leaves the
item as it was, and counts as none.)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, TypeAlias

from cachelib.backends.base import Backend
from cachelib.envelope import decode
from cachelib.errors import CacheError, DecodeError
from cachelib.model import Item, Kind, Name, Op, Put, Stored

LOOK_AFTER_S = 300.0
_WATCHED_MAX = 10_000
_AT_ONCE = 200
_DUE_MS = 1

Verdict: TypeAlias = Literal["read", "unread", "unknown"]


@dataclass(frozen=True, slots=True)
class Watched:
    """A put as the node has stored it."""

    version: int
    due_ms: int
    """The item's `soft_expire_ms`, as long as nobody has filled it."""
    as_of_us: int
    since_s: float


@dataclass(slots=True)
class Told:
    """What became of a node's puts: by the node's answer, and how useful the watched ones were."""

    puts: Counter[str]
    verdicts: Counter[Verdict]


class Refreshes:
    """Of one connection to a node. `one_in` 0: none is watched."""

    def __init__(self, one_in: int, clock_s: Callable[[], float]) -> None:
        self._one_in = one_in
        self._clock_s = clock_s
        self._watched: dict[Name, Watched] = {}
        self.told = Told(Counter(), Counter())

    def __len__(self) -> int:
        return len(self._watched)

    def chosen(self, put: Put) -> Put:
        """The put as it is to be sent: marked, if it is one of those that are watched."""
        watch = self._one_in and put.content.kind is Kind.VALUE and random.random() * self._one_in < 1
        return replace(put, soft_ttl_ms=_DUE_MS) if watch else put

    def look(self, backend: Backend, names: Iterable[Name]) -> None:
        """Before these are told of something: how the watched ones among them fared. Raises `CacheUnavailable`."""
        now_s = self._clock_s()
        asked = [name for name in names if name in self._watched]
        first = islice(self._watched.items(), _AT_ONCE)  # the oldest: who is put again was looked at, and left, before
        asked += [name for name, one in first if now_s - one.since_s >= LOOK_AFTER_S and name not in asked]
        if not asked:
            return
        for name, raw in zip(asked, backend.get_many(asked), strict=True):
            self.told.verdicts[verdict(self._watched.pop(name), raw)] += 1

    def answered(self, batch: Sequence[tuple[Name, Op]], answers: Sequence[object], now_ms: int) -> None:
        """The node has answered these."""
        for (name, op), answer in zip(batch, answers, strict=True):
            if not isinstance(op, Put) or isinstance(answer, CacheError):
                continue
            self.told.puts[type(answer).__name__.lower()] += 1
            if isinstance(answer, Stored) and op.soft_ttl_ms == _DUE_MS and len(self._watched) < _WATCHED_MAX:
                self._watched[name] = Watched(op.version, now_ms + _DUE_MS, op.as_of_us, self._clock_s())

    def lost(self) -> None:
        """The connection is gone, and perhaps what it led to."""
        self.told.verdicts["unknown"] += len(self._watched)
        self._watched.clear()

    def take(self) -> Told:
        """What was told since the last time."""
        told, self.told = self.told, Told(Counter(), Counter())
        return told


def verdict(put: Watched, raw: bytes | None) -> Verdict:
    """Whether somebody has read the item since it was put."""
    if raw is None:
        return "unknown"
    try:
        item = decode(raw)
    except DecodeError:
        return "unknown"
    if item.version != put.version or item.content.kind is not Kind.VALUE:
        return "unknown"
    if (item.soft_expire_ms, item.as_of_us) != (put.due_ms, put.as_of_us):
        return "read"
    # A reader of what somebody else has made stale takes the lease, too, and was shown nothing of the put.
    return _of_lease(item)


def _of_lease(item: Item) -> Verdict:
    if not item.lease:
        return "unread"
    return "read" if item.fresh else "unknown"
