"""Which key an operation takes: popularity by Zipf's law, drawn by the thousand off the hot path."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK = 8192


class Zipf:
    """Key numbers 0 … keys-1, the one of rank r (from 1) with weight 1 / r ** exponent.

    Which key has which rank is shuffled by `seed`, so that popular keys are not neighbours, and
    all processes that share the seed agree on it. Exponent 0 is uniform.
    """

    def __init__(self, keys: int, exponent: float, seed: int) -> None:
        weights = np.arange(1, keys + 1, dtype=np.float64) ** -exponent
        self._cdf: NDArray[np.float64] = np.cumsum(weights / weights.sum())
        self.by_rank: NDArray[np.int64] = np.random.default_rng(seed).permutation(keys)

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """So many keys."""
        ranks = np.searchsorted(self._cdf, random.random(count), side="right")
        # The last sum may be a hair below 1, and a draw above it.
        drawn: NDArray[np.int64] = self.by_rank[np.minimum(ranks, len(self.by_rank) - 1)]
        return drawn


def choices(zipfs: list[Zipf], shares: list[float], random: np.random.Generator) -> Iterator[tuple[int, int]]:
    """For ever: the number of a subject, chosen by its share, and of a key in it."""
    cumulated = np.cumsum(np.asarray(shares, dtype=np.float64) / sum(shares))
    while True:
        subjects = np.minimum(np.searchsorted(cumulated, random.random(CHUNK), side="right"), len(shares) - 1)
        keys = np.empty(CHUNK, dtype=np.int64)
        for number, zipf in enumerate(zipfs):
            chosen = subjects == number
            keys[chosen] = zipf.draw(random, int(chosen.sum()))
        yield from zip(subjects.tolist(), keys.tolist(), strict=True)
