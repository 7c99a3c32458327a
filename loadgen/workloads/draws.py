"""What is to be done, and when: a worker's operations of a stretch of time, drawn at once before they are due."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.arrivals import Seconds
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.popularity import Keys
from loadgen.workloads.workload import DELETE, INSERT, LONE_GET, MULTIGET, SCAN

BATCH_MAX = 1000


@dataclass(frozen=True, slots=True)
class Operations:
    """Rising in time. Operation i is `kind[i]`, meant to start `at_s[i]` after the shared start, and asks
    `keys[first[i]:first[i + 1]]`.
    """

    at_s: Seconds
    kind: NDArray[np.int64]
    keys: Keys
    first: Keys

    def __len__(self) -> int:
        return len(self.at_s)

    @property
    def key(self) -> Keys:
        """The first key of each."""
        return self.keys[self.first[:-1]]

    def first_ones(self, count: int) -> Operations:
        """So many from the beginning."""
        first = self.first[: count + 1]
        return Operations(self.at_s[:count], self.kind[:count], self.keys[: first[-1]], first)

    def every(self, step: int, offset: int) -> Operations:
        """Each `step`th, from `offset` on."""
        places = np.arange(offset, len(self), step)
        lengths = self.first[places + 1] - self.first[places]
        first = np.concatenate(([0], np.cumsum(lengths)))
        within = np.arange(first[-1]) - np.repeat(first[:-1], lengths)
        keys = self.keys[np.repeat(self.first[places], lengths) + within]
        return Operations(self.at_s[places], self.kind[places], keys, first)


class Draws:
    """Draws one worker's operations; workers draw apart, from one popularity."""

    def __init__(self, space: KeySpace, *, seed: int, worker: int, workers: int) -> None:
        self._space, self._worker, self._workers = space, worker, workers
        workload = space.workload
        self._random = np.random.default_rng([seed, worker + 1, 2])
        self._drawer = workload.popularity.over(space.keys, space.seed, (worker, workers))
        self._cdf = np.cumsum(list(workload.mix.shares().values()))
        self._batch = workload.batch
        self._inserted = 0

    def at(self, at_s: Seconds) -> Operations:
        """An operation for each time. To be called with rising times."""
        random, count = self._random, len(at_s)
        kind = np.minimum(np.searchsorted(self._cdf, random.random(count), side="right"), DELETE)
        lengths = np.ones(count, dtype=np.int64)
        many = np.flatnonzero((kind == MULTIGET) | (kind == SCAN))
        lengths[many] = np.clip(self._batch.sample(random, len(many)), 1, BATCH_MAX)
        first = np.concatenate(([0], np.cumsum(lengths)))
        owner = np.repeat(np.arange(count), lengths)
        keys = self._keys(at_s, kind, owner, np.arange(len(owner)) - first[owner])
        return Operations(at_s, kind, keys, first)

    def _keys(self, at_s: Seconds, kind: Keys, owner: Keys, place: Keys) -> Keys:
        """`owner`: whose each key is; `place`: which of its keys."""
        space = self._space
        inserts = np.cumsum(kind == INSERT)
        newest = space.keys + (self._inserted + inserts) * self._workers
        # What was inserted before this operation; its own number comes from the same count, one less.
        before = np.minimum(newest - (kind == INSERT) * self._workers, space.first_absent)
        drawn = self._drawer.draw(self._random, at_s[owner], before[owner])
        kinds = kind[owner]
        scanned = np.flatnonzero(kinds == SCAN)
        starts = drawn[np.searchsorted(owner, owner[scanned])]
        drawn[scanned] = (starts + place[scanned]) % space.keys
        new = np.flatnonzero(kinds == INSERT)
        number = space.keys + (self._inserted + inserts[owner[new]] - 1) * self._workers + self._worker
        drawn[new] = space.keys + (number - space.keys) % max(1, space.inserts)
        lone = np.flatnonzero(kinds == LONE_GET)
        drawn[lone] = space.first_absent + drawn[lone] % max(1, space.absent)
        self._inserted += int(inserts[-1]) if len(inserts) else 0
        return drawn
