"""How large keys and values are, how long they live, how many keys one call asks: distributions of whole numbers.

A distribution is a setting (a struct, read from TOML by its `kind`) that draws by the thousand.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

Sizes: TypeAlias = NDArray[np.int64]
Above0: TypeAlias = Annotated[float, Meta(gt=0)]
LEAST_CHANCE = 1e-12


class Constant(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="constant"):
    """Always the same."""

    value: Annotated[int, Meta(ge=0)]

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        return np.full(count, self.value, dtype=np.int64)


class Between(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="uniform"):
    """From `low` to `high`, both included, all alike."""

    low: Annotated[int, Meta(ge=0)]
    high: Annotated[int, Meta(ge=0)]

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high is {self.high}, below low, {self.low}")

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        return random.integers(self.low, self.high + 1, count)


class Table(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="table"):
    """Pairs of a number and its weight; weights need not sum to 1."""

    values: list[tuple[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=0)]]]

    def __post_init__(self) -> None:
        if not sum(weight for _, weight in self.values) > 0:
            raise ValueError("values must hold a weight above 0")

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        values, weights = np.asarray(self.values, dtype=np.float64).T
        cdf = np.cumsum(weights / weights.sum())
        place = np.minimum(np.searchsorted(cdf, random.random(count), side="right"), len(values) - 1)
        sizes: Sizes = values[place].astype(np.int64)
        return sizes


class GeneralisedPareto(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gpareto"):
    """location + scale / shape * (U ** -shape - 1), cut to [location, high]."""

    scale: Above0
    shape: float
    location: float = 0.0
    high: int = 1 << 20

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        return _cut(self.location + gpareto(random, count, self.scale, self.shape), self.location, self.high)


class GeneralisedExtreme(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gev"):
    """location + scale / shape * ((-ln U) ** -shape - 1), cut to [low, high]."""

    location: float
    scale: Above0
    shape: float
    low: int = 1
    high: int = 250

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        surprise = -np.log(_chance(random, count))
        drawn = -np.log(surprise) if not self.shape else (surprise**-self.shape - 1) / self.shape
        return _cut(self.location + self.scale * drawn, self.low, self.high)


class Quantiles(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="quantiles"):
    """Published quantiles: pairs of a share and the number that this share does not exceed, both rising, from share
    0 to 1. Between two points the logarithm grows evenly.
    """

    points: list[tuple[Annotated[float, Meta(ge=0, le=1)], Annotated[int, Meta(ge=1)]]]

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.points]
        rising = self.points == sorted(self.points) and len(set(shares)) == len(shares)
        if not rising or shares[:1] != [0.0] or shares[-1:] != [1.0]:
            raise ValueError("points must rise in share and number, from share 0 to share 1")

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        shares, numbers = np.asarray(self.points, dtype=np.float64).T
        drawn = np.exp(np.interp(random.random(count), shares, np.log(numbers)))
        sizes: Sizes = np.rint(drawn).astype(np.int64)
        return sizes


Simple: TypeAlias = Constant | Between | Table | GeneralisedPareto | GeneralisedExtreme | Quantiles


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution and its weight in a mixture."""

    weight: Above0
    of: Simple


class Mixture(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mixture"):
    """Each number from one of several distributions, chosen by weight."""

    parts: list[Part]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a mixture needs at least one part")

    def sample(self, random: np.random.Generator, count: int) -> Sizes:
        """So many numbers."""
        cdf = np.cumsum([part.weight for part in self.parts])
        chosen = np.minimum(np.searchsorted(cdf / cdf[-1], random.random(count), side="right"), len(cdf) - 1)
        sizes = np.zeros(count, dtype=np.int64)
        for number, part in enumerate(self.parts):
            own = np.flatnonzero(chosen == number)
            sizes[own] = part.of.sample(random, len(own))
        return sizes


Distribution: TypeAlias = Simple | Mixture


def gpareto(random: np.random.Generator, count: int, scale: float, shape: float) -> NDArray[np.float64]:
    """Generalised Pareto from 0 on, not rounded; shape 0 is exponential."""
    chance = _chance(random, count)
    drawn: NDArray[np.float64] = -np.log(chance) if not shape else (chance**-shape - 1) / shape
    return scale * drawn


def _chance(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Uniform, never 0: its logarithm is taken."""
    return np.maximum(random.random(count), LEAST_CHANCE)


def _cut(drawn: NDArray[np.float64], low: float, high: float) -> Sizes:
    sizes: Sizes = np.clip(np.floor(drawn), low, high).astype(np.int64)
    return sizes
