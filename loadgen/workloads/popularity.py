"""Which key an operation takes. Drawn by the thousand, off the hot path.

A popularity is a setting (a struct, read from TOML by its `kind`); `over` makes of it something
that draws key numbers below a count. Popular keys are not neighbours (`scrambled`): which key has
which rank is shuffled by the seed, so all processes that share the seed agree on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Protocol, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from cachelib.errors import ConfigError

CHUNK = 8192
Keys: TypeAlias = NDArray[np.int64]
Times: TypeAlias = NDArray[np.float64]
Part: TypeAlias = tuple[int, int]
"""A worker's number, from 0 on, and how many there are."""
ALONE: Part = (0, 1)
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class Drawer(Protocol):
    """Draws keys."""

    def draw(self, random: np.random.Generator, at_s: Times, newest: Keys) -> Keys:
        """A key for each operation, meant to start `at_s`, when keys below `newest` existed."""


class Zipf:
    """Key numbers 0 … keys-1, the one of rank r (from 1) with weight 1 / r ** exponent; exponent 0 is uniform."""

    def __init__(self, keys: int, exponent: float, seed: int, *, scrambled: bool = True) -> None:
        # The logarithm keeps large exponents from vanishing before they are normed.
        weights = np.exp(-exponent * np.log(np.arange(1, keys + 1, dtype=np.float64)))
        self._cdf: NDArray[np.float64] = np.cumsum(weights / weights.sum())
        order = np.random.default_rng(seed).permutation(keys) if scrambled else np.arange(keys)
        self.by_rank: Keys = order

    def ranks(self, random: np.random.Generator, count: int) -> Keys:
        """So many ranks, from 0 on."""
        ranks = np.searchsorted(self._cdf, random.random(count), side="right")
        # The last sum may be a hair below 1, and a draw above it.
        return np.minimum(ranks, len(self.by_rank) - 1)

    def sample(self, random: np.random.Generator, count: int) -> Keys:
        """So many keys."""
        keys: Keys = self.by_rank[self.ranks(random, count)]
        return keys

    def draw(self, random: np.random.Generator, at_s: Times, newest: Keys) -> Keys:
        """See `Drawer.draw`."""
        return self.sample(random, len(at_s))


def choices(zipfs: list[Zipf], shares: list[float], random: np.random.Generator) -> Iterator[tuple[int, int]]:
    """For ever: the number of a subject, chosen by its share, and of a key in it."""
    cumulated = np.cumsum(np.asarray(shares, dtype=np.float64) / sum(shares))
    while True:
        subjects = np.minimum(np.searchsorted(cumulated, random.random(CHUNK), side="right"), len(shares) - 1)
        keys = np.empty(CHUNK, dtype=np.int64)
        for number, zipf in enumerate(zipfs):
            chosen = subjects == number
            keys[chosen] = zipf.sample(random, int(chosen.sum()))
        yield from zip(subjects.tolist(), keys.tolist(), strict=True)


# --- settings -----------------------------------------------------------------------------------


class Uniform(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="uniform"):
    """Every key alike."""

    def over(self, keys: int, seed: int, part: Part = ALONE) -> Drawer:
        """A drawer of so many keys."""
        return Zipf(keys, 0.0, seed)


class Zipfian(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="zipf"):
    """Zipf's law with any exponent (YCSB's 0.99; Twitter's clusters 0.02 to 2.7)."""

    exponent: Annotated[float, Meta(ge=0, le=20)] = 0.99
    scrambled: bool = True

    def over(self, keys: int, seed: int, part: Part = ALONE) -> Drawer:
        """A drawer of so many keys."""
        return Zipf(keys, self.exponent, seed, scrambled=self.scrambled)


class Hotspot(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hotspot"):
    """A share of the keys gets a share of the operations (YCSB: 20 % get 80 %).

    With `move_every_s` the hot keys are others after each such time: `move_keys` of them are
    replaced (0: all), so that a cache has to follow.
    """

    hot_keys: Share = 0.2
    hot_operations: Share = 0.8
    move_every_s: Annotated[float, Meta(ge=0)] = 0.0
    move_keys: Annotated[int, Meta(ge=0)] = 0

    def over(self, keys: int, seed: int, part: Part = ALONE) -> Drawer:
        """A drawer of so many keys."""
        return _Spot(self, keys, seed)


class _Spot:
    def __init__(self, setting: Hotspot, keys: int, seed: int) -> None:
        self._keys = keys
        self._hot = max(1, round(setting.hot_keys * keys))
        self._share = setting.hot_operations if self._hot < keys else 1.0
        self._every_s = setting.move_every_s
        self._step = setting.move_keys or self._hot
        self._order = np.random.default_rng(seed).permutation(keys)

    def draw(self, random: np.random.Generator, at_s: Times, newest: Keys) -> Keys:
        """See `Drawer.draw`."""
        count = len(at_s)
        hot = random.random(count) < self._share
        place = np.where(
            hot, random.integers(0, self._hot, count), random.integers(self._hot, max(self._keys, self._hot + 1), count)
        )
        if self._every_s:
            place = place + np.floor(at_s / self._every_s).astype(np.int64) * self._step
        keys: Keys = self._order[place % self._keys]
        return keys


class Latest(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="latest"):
    """The newest keys are the most popular (YCSB d): by Zipf's law, counted back from the newest."""

    exponent: Annotated[float, Meta(ge=0, le=20)] = 0.99

    def over(self, keys: int, seed: int, part: Part = ALONE) -> Drawer:
        """A drawer of so many keys."""
        return _Back(Zipf(keys, self.exponent, seed, scrambled=False))


class _Back:
    def __init__(self, zipf: Zipf) -> None:
        self._zipf = zipf

    def draw(self, random: np.random.Generator, at_s: Times, newest: Keys) -> Keys:
        """See `Drawer.draw`."""
        return newest - 1 - self._zipf.ranks(random, len(at_s))


class Lorenz(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lorenz"):
    """Popularity as a Lorenz curve: `[share of keys, share of operations]` of the most popular keys, rising to
    [1, 1]; between two points keys are alike. `one_hit`: the share of operations on keys that are asked only
    once; they are taken in turn from the last `one_hit_keys` of the keys, and come again only after all of those.
    """

    curve: list[tuple[float, float]]
    one_hit: Share = 0.0
    one_hit_keys: Share = 0.5

    def __post_init__(self) -> None:
        shares = [(0.0, 0.0), *self.curve]
        rising = all(a < c and b <= d for (a, b), (c, d) in pairwise(shares))
        if not rising or shares[-1] != (1.0, 1.0):
            raise ValueError("the curve must rise in both shares and end at [1, 1]")

    def over(self, keys: int, seed: int, part: Part = ALONE) -> Drawer:
        """A drawer of so many keys."""
        return _Buckets(self, keys, seed, part)


class _Buckets:
    def __init__(self, setting: Lorenz, keys: int, seed: int, part: Part) -> None:
        self._worker, self._workers = part
        self._one_hit = setting.one_hit
        self._once = min(keys - 1, max(1, round(keys * setting.one_hit_keys))) if setting.one_hit else 0
        self._often = keys - self._once
        # Of few keys the first buckets hold less than one key: the curve is read where each key ends.
        at = np.arange(1, self._often + 1, dtype=np.float64) / self._often
        x, y = np.asarray([(0.0, 0.0), *setting.curve]).T
        self._cdf = np.interp(at, x, y)
        order = np.random.default_rng(seed)
        self._order = order.permutation(self._often)
        self._turn = 0

    def draw(self, random: np.random.Generator, at_s: Times, newest: Keys) -> Keys:
        """See `Drawer.draw`."""
        count = len(at_s)
        ranks = np.minimum(np.searchsorted(self._cdf, random.random(count), side="right"), self._often - 1)
        keys: Keys = self._order[ranks]
        once = np.flatnonzero(random.random(count) < self._one_hit)
        # Each worker has its own: a key that two of them ask is asked twice.
        turns = (self._turn + np.arange(len(once))) * self._workers + self._worker
        keys[once] = self._often + turns % max(1, self._once)
        self._turn += len(once)
        return keys


class Empirical(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="empirical"):
    """Keys as counted: `counts[i]` operations on key i of each block of `len(counts)` keys, blocks alike."""

    counts: list[Annotated[float, Meta(ge=0)]]

    def __post_init__(self) -> None:
        if sum(self.counts) <= 0:
            raise ValueError("counts must hold at least one number above 0")

    def over(self, keys: int, seed: int, part: Part = ALONE) -> Drawer:
        """A drawer of so many keys."""
        return _Counted(self.counts, keys, seed)


class _Counted:
    def __init__(self, counts: list[float], keys: int, seed: int) -> None:
        weights = np.resize(np.asarray(counts, dtype=np.float64), keys)
        if weights.sum() <= 0:
            raise ConfigError(f"popularity: the first {keys} counts are all 0")
        self._cdf = np.cumsum(weights / weights.sum())

    def draw(self, random: np.random.Generator, at_s: Times, newest: Keys) -> Keys:
        """See `Drawer.draw`."""
        keys = np.searchsorted(self._cdf, random.random(len(at_s)), side="right")
        return np.minimum(keys, len(self._cdf) - 1)


Popularity: TypeAlias = Uniform | Zipfian | Hotspot | Latest | Lorenz | Empirical
