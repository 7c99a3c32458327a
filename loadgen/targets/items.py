"""The rows that the library's target reads and writes: a table for each life and level.

A life (TTL) belongs to an entity, so keys of several lives are rows of several tables. The invalidator
learns of the same entities by `--entities loadgen.targets.items:ENTITIES` and its environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cachelib import Bounded, Entity, Eventual, Strong
from loadgen.levels import Level
from loadgen.plan import RunPlan
from loadgen.tables import STAMPS, Dataset, Subject
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.sizes import Sizes
from loadgen.workloads.values import Values

ENVIRONMENT = "LOADGEN_ITEMS"
LIVES_MAX = 8
"""A workload with more lives than this gets those at its quantiles."""


def subject_of(life_s: int, level: Level, bounded_ms: float) -> Subject:
    """The table of one life and level."""
    table = f"loadgen_items_{life_s}s" + ("" if level is Level.EVENTUAL else f"_{level.name.lower()}")
    promise: Strong | Bounded | Eventual = Eventual()
    if level is Level.STRONG:
        promise = Strong()
    elif level is Level.BOUNDED:
        promise = Bounded(bounded_ms / 1000)
    return Subject(
        Entity.from_table(table, key="name", ttl=life_s, consistency=promise),
        table=table,
        key="name",
        create=f"create table {table} (name text primary key, payload text default '', {STAMPS})",
        change="payload = payload",
        behind=level is not Level.STRONG,
        filled=("payload",),
        session=level is Level.SESSION,
    )


def named(text: str) -> tuple[Subject, ...]:
    """From what `Items.text` gives."""
    parts = [part.split(":") for part in text.split(",") if part]
    return tuple(subject_of(int(life), Level[level.upper()], float(bounded)) for life, level, bounded in parts)


ENTITIES = [subject.entity for subject in named(os.environ.get(ENVIRONMENT, ""))]


@dataclass(frozen=True)
class Items:
    """Which table each key of a plan is in. The same in every process of a run."""

    plan: RunPlan
    space: KeySpace

    @cached_property
    def lives_s(self) -> Sizes:
        """The lives there are."""
        lives = np.unique(self.space.ttl_s)
        if len(lives) <= LIVES_MAX:
            return lives
        ranks = np.linspace(0, 1, LIVES_MAX)
        return np.unique(np.quantile(self.space.ttl_s, ranks, method="inverted_cdf").astype(np.int64))

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """For each life the eventual table, and one of each other level that some keys have."""
        return named(self.text)

    @cached_property
    def text(self) -> str:
        """How another process is told of the subjects."""
        bounded_ms = self.plan.target.bounded_ms
        names = [level.name.lower() for level in self.levels]
        return ",".join(f"{life}:{name}:{bounded_ms:g}" for life in self.lives_s.tolist() for name in names)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Eventual, and those that some keys have."""
        return (Level.EVENTUAL, *(level for level, share in self._shares if share))

    @property
    def _shares(self) -> tuple[tuple[Level, float], ...]:
        target = self.plan.target
        shares = (target.strong_share, target.session_share, target.bounded_share)
        return tuple(zip((Level.STRONG, Level.SESSION, Level.BOUNDED), shares, strict=True))

    @cached_property
    def subject(self) -> Sizes:
        """The number of each key's subject."""
        nearest: Sizes = np.abs(self.space.ttl_s[:, None] - self.lives_s[None, :]).argmin(axis=1)
        chosen = [share for _, share in self._shares if share]
        drawn = np.random.default_rng([self.space.seed, 11]).random(self.space.total)
        # The level's place: 1 below the first share, 2 below the first two together, ..., 0 beyond them all.
        place = (np.searchsorted(np.cumsum(chosen), drawn, side="right") + 1) % (len(chosen) + 1)
        number: Sizes = nearest * len(self.levels) + place
        return number

    @cached_property
    def level(self) -> Sizes:
        """Of each key, as a number."""
        return np.asarray([subject.level for subject in self.subjects], dtype=np.int64)[self.subject]

    @property
    def dataset(self) -> Dataset:
        """For the stage."""
        return Dataset("items", "loadgen.targets.items:ENTITIES", self.subjects)

    @cached_property
    def _values(self) -> Values:
        return Values(self.space)

    def payload(self, key: int) -> str:
        """A key's value, of its size."""
        return self._values.of(key).decode()
