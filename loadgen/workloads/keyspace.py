"""The keys of a workload: their names, the sizes of their values, their lives. All processes make the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from loadgen.workloads.sizes import Sizes
from loadgen.workloads.workload import Workload

ABSENT_MAX = 100_000
INSERTS_MAX = 1_000_000
NAME_BYTES_MAX = 250
"""memcached takes no longer key."""


@dataclass(frozen=True)
class KeySpace:
    """Numbers from 0 on: `keys` that exist before the run, then `inserts` that the run may add, then `absent` ones
    that never exist, for lone gets. It depends on nothing but workload and seed, so runs on one bench share it.
    """

    workload: Workload
    seed: int = 1

    @property
    def keys(self) -> int:
        """Those that exist at first."""
        return self.workload.keys

    @property
    def inserts(self) -> int:
        """Those that may be inserted: as many again. A run that inserts more begins again with the first of them."""
        return min(self.keys, INSERTS_MAX) if self.workload.mix.insert else 0

    @property
    def absent(self) -> int:
        """Those that never exist."""
        return min(self.keys, ABSENT_MAX) if self.workload.mix.lone_get else 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.keys + self.inserts + self.absent

    @property
    def first_absent(self) -> int:
        """The number of the first key that never exists."""
        return self.keys + self.inserts

    @cached_property
    def value_bytes(self) -> Sizes:
        """The size of each key's value."""
        return self.workload.value_bytes.sample(self._random(1), self.total)

    @cached_property
    def ttl_s(self) -> Sizes:
        """The life of each key's value; at least a second."""
        return np.maximum(self.workload.ttl_s.sample(self._random(2), self.total), 1)

    @cached_property
    def names(self) -> Sequence[str]:
        """The name of each key: its number, drawn out to the length that it was given (or as short as it can be)."""
        return named(self.workload.key_bytes.sample(self._random(3), self.total))

    def _random(self, what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, what, 7])


def named(lengths: Sizes) -> list[str]:
    """A name for each number from 0 on, of these lengths, or as short as it can be."""
    digits = len(f"{len(lengths):x}")
    long = np.clip(lengths, digits + 1, NAME_BYTES_MAX).tolist()
    # The number first: names of one length are one key each, and those of two lengths differ by it as well.
    return [f"k{number:0{digits}x}".ljust(length, "-") for number, length in enumerate(long)]
