"""The rows that the library's target reads and writes: a table for each life and level.

A life (TTL) belongs to an entity, so keys of several lives are rows of several tables. The invalidator
learns of the same entities by `--entities loadgen.targets.items:ENTITIES` and its environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cachelib import Entity, Eventual, Strong
from loadgen.plan import RunPlan
from loadgen.tables import STAMPS, Dataset, Subject
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.sizes import Sizes
from loadgen.workloads.values import Values

ENVIRONMENT = "LOADGEN_ITEMS"
LIVES_MAX = 8
"""A workload with more lives than this gets those at its quantiles."""


def subject_of(life_s: int, *, strong: bool) -> Subject:
    """The table of one life and level."""
    table = f"loadgen_items_{life_s}s" + ("_strong" if strong else "")
    return Subject(
        Entity.from_table(table, key="name", ttl=life_s, consistency=Strong() if strong else Eventual()),
        table=table,
        key="name",
        create=f"create table {table} (name text primary key, payload text default '', {STAMPS})",
        change="payload = payload",
        behind=not strong,
        filled=("payload",),
    )


def named(text: str) -> tuple[Subject, ...]:
    """From what `Items.text` gives."""
    parts = [part.partition(":") for part in text.split(",") if part]
    return tuple(subject_of(int(life), strong=level == "strong") for life, _, level in parts)


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
        """For each life the eventual table and, where there are strong keys, the strong one."""
        return named(self.text)

    @cached_property
    def text(self) -> str:
        """How another process is told of the subjects."""
        levels = ["", ":strong"] if self.plan.target.strong_share else [""]
        return ",".join(f"{life}{level}" for life in self.lives_s.tolist() for level in levels)

    @cached_property
    def subject(self) -> Sizes:
        """The number of each key's subject."""
        nearest: Sizes = np.abs(self.space.ttl_s[:, None] - self.lives_s[None, :]).argmin(axis=1)
        share = self.plan.target.strong_share
        if not share:
            return nearest
        random = np.random.default_rng([self.space.seed, 11])
        number: Sizes = nearest * 2 + (random.random(self.space.total) < share)
        return number

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
