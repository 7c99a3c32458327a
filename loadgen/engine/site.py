"""What a target stands on: servers and data that are set up once for a bench, and what is judged after each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from loadgen.engine.crew import Heard
from loadgen.plan import RunPlan, TargetPlan
from loadgen.result import Consistency, Origin

Advance = Callable[[str, int, int], None]
"""Told of a long work: what, how much of it is done, how much there is."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a site says of a run. By second since the shared start: reads checked, stale, and the store's load."""

    consistency: Consistency | None = None
    origin: Origin | None = None
    checked: Mapping[int, int] = field(default_factory=dict)
    stale: Mapping[int, int] = field(default_factory=dict)
    origin_reads: Mapping[int, int] = field(default_factory=dict)
    origin_writes: Mapping[int, int] = field(default_factory=dict)


class Site(Protocol):
    """See the module."""

    def open(self, advance: Advance) -> None:
        """Set it up. Raises `CacheError` where something is missing or does not start."""

    @property
    def target(self) -> TargetPlan:
        """The plan's target, with the URLs of what was started."""

    def pids(self) -> Mapping[str, int]:
        """The servers that were started, by name."""

    def begin(self) -> None:
        """Before each run."""

    def verdict(self, plan: RunPlan, heard: Sequence[Heard], start_ns: int) -> Verdict:
        """After each run. Raises `CacheError` where a server has ended by itself."""

    def close(self) -> None:
        """Stop what was started."""


class Nowhere:
    """Of a target that stands on nothing."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan

    def open(self, advance: Advance) -> None:
        """See `Site.open`."""

    @property
    def target(self) -> TargetPlan:
        """See `Site.target`."""
        return self._plan.target

    def pids(self) -> Mapping[str, int]:
        """See `Site.pids`."""
        return {}

    def begin(self) -> None:
        """See `Site.begin`."""

    def verdict(self, plan: RunPlan, heard: Sequence[Heard], start_ns: int) -> Verdict:
        """See `Site.verdict`."""
        return Verdict()

    def close(self) -> None:
        """See `Site.close`."""


def rows_of(heard: Sequence[Heard], log: str, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A log of all workers together."""
    parts = [b"".join(one.logs.get(log, [])) for one in heard]
    return np.frombuffer(b"".join(parts), dtype=np.int64).reshape(-1, columns)
