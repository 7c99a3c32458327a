"""The miss ratio of a cache of every size at once, of a sequence of requests.

Of each read it is asked how many bytes of other items were asked for since its key was last: its stack
distance (Mattson 1970). An LRU cache of that size or more has it still. Distances are counted with a Fenwick
tree over the keys that a hash samples, and scaled (SHARDS, Waldspurger 2015, with the correction for hot keys
that the sample holds too many or too few of). A read whose item has outlived its TTL misses at every size.

What it is of: least recently used over one pool of memory. Redis samples its candidates and memcached keeps
pools by size, so that both need a little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

SAMPLE = 150_000
"""About so many requests are looked at; more cost more time and change little."""
WARM_SHARE = 1 / 3
"""Of the requests only fill the cache: what they miss is the beginning's."""
HASH_SPACE = 1 << 24


@dataclass(frozen=True, slots=True)
class Requests:
    """In order. `write`: it leaves the key in the cache, whatever was there; `gone`: it removes it."""

    key: Numbers
    at_s: Floats
    write: NDArray[np.bool_]
    gone: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class Curve:
    """Miss ratio (0 to 1) of reads by bytes of cache; `least`: of a cache without end (first asked for, expired)."""

    bytes: Floats
    miss: Floats
    least: float
    reads: int
    footprint: float
    """Bytes of everything that is asked for."""

    def bytes_for(self, hit_ratio: float) -> float | None:
        """The least cache with this share of hits; None: none has it."""
        found = np.flatnonzero(self.miss <= 1 - hit_ratio + 1e-12)
        return float(self.bytes[found[0]]) if len(found) else None

    def miss_at(self, size: float) -> float:
        """Of a cache of so many bytes."""
        at = int(np.searchsorted(self.bytes, size, side="right")) - 1
        return float(self.miss[at]) if at >= 0 else 1.0


def miss_ratio_curve(
    requests: Requests, item_bytes: Floats, ttl_s: Floats, *, sample: int = SAMPLE, points: int = 200
) -> Curve:
    """`item_bytes` and `ttl_s` by key number."""
    share = min(1.0, sample / max(1, len(requests)))
    taken = np.flatnonzero(hashed(requests.key) < share * HASH_SPACE)
    warm = int(len(requests) * WARM_SHARE)
    distance, counts = distances(requests, taken, item_bytes, ttl_s)
    counted = counts & (taken >= warm)
    found = np.sort(distance[counted]) / share
    reads = int((~requests.write & ~requests.gone)[warm:].sum())
    missing = reads * share - len(found)  # of hot keys, that the sample has too few (or too many) of
    total = max(1.0, reads * share)
    finite = found[np.isfinite(found)]
    footprint = float(item_bytes[np.unique(requests.key)].sum())
    largest = max(footprint, float(finite[-1]) if len(finite) else 1.0)
    smallest = float(np.min(item_bytes)) if len(item_bytes) else 1.0
    sizes = np.geomspace(max(1.0, smallest), max(largest, smallest * 2), points)
    hits = np.searchsorted(finite, sizes, side="right") + missing
    miss = np.clip(1 - hits / total, 0.0, 1.0)
    least = float(np.clip(1 - (len(finite) + missing) / total, 0.0, 1.0))
    return Curve(sizes, np.minimum.accumulate(np.maximum(miss, least)), least, reads, footprint)


def hashed(key: Numbers) -> Numbers:
    """A number below `HASH_SPACE` for each key: which are sampled must not follow from how they are numbered."""
    mixed = key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(40)).astype(np.int64)


def distances(
    requests: Requests, taken: Numbers, item_bytes: Floats, ttl_s: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Of each sampled request its stack distance in bytes (infinite: a miss at every size), and whether it reads."""
    tree = Fenwick(len(taken))
    keys, times = requests.key[taken].tolist(), requests.at_s[taken].tolist()
    writes, gones = requests.write[taken].tolist(), requests.gone[taken].tolist()
    sizes, lives = item_bytes[requests.key[taken]].tolist(), ttl_s[requests.key[taken]].tolist()
    last: dict[int, int] = {}
    filled: dict[int, float] = {}
    found = np.full(len(taken), np.inf)
    for at, (key, now, write, gone, size, life) in enumerate(
        zip(keys, times, writes, gones, sizes, lives, strict=True)
    ):
        before = last.pop(key, None)
        if before is not None:
            if not write and not gone and now - filled[key] < life:
                # What was asked for since, and the item itself.
                found[at] = tree.between(before + 1, at) + size
            else:
                filled[key] = now
            tree.add(before, -size)
        else:
            filled[key] = now
        if not gone:
            last[key] = at
            tree.add(at, size)
    return found, ~(requests.write[taken] | requests.gone[taken])


class Fenwick:
    """Sums over ranges of numbers that change (Fenwick 1994)."""

    def __init__(self, length: int) -> None:
        self._tree = [0.0] * (length + 1)

    def add(self, place: int, value: float) -> None:
        """To the number at a place."""
        tree, at = self._tree, place + 1
        while at < len(tree):
            tree[at] += value
            at += at & -at

    def upto(self, place: int) -> float:
        """The sum of those before a place."""
        tree, at, total = self._tree, place, 0.0
        while at > 0:
            total += tree[at]
            at &= at - 1
        return total

    def between(self, first: int, last: int) -> float:
        """The sum from `first` up to, and without, `last`."""
        return self.upto(last) - self.upto(first)


def requests_of(key: Sequence[int], at_s: Sequence[float] | None = None) -> Requests:
    """Reads only, one a second unless told."""
    keys = np.asarray(key, dtype=np.int64)
    times = np.arange(len(keys), dtype=np.float64) if at_s is None else np.asarray(at_s, dtype=np.float64)
    none = np.zeros(len(keys), dtype=np.bool_)
    return Requests(keys, times, none, none)
