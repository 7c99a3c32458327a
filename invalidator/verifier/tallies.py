"""How many answers of which kind there were at each age, and what that comes to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from invalidator.verifier.nines import nines, upper_bound

Outcome: TypeAlias = Literal["empty", "fresh", "stale", "unresolved", "moved", "unreadable", "unanswered"]
"""`empty`: nothing is served. `unresolved`: suspect, and the store was not asked (its budget, or absence that is
still young), or its answer left it open. `moved`: the key has got another name meanwhile. `unreadable`: a read takes
it for a miss. `unanswered`: the node did not answer."""


class Tallies:
    """By age: "1s", "10s" …, and "hot" for keys compared with the store in turn."""

    def __init__(self, ages: Sequence[str]) -> None:
        self._counts: dict[str, Counter[str]] = {age: Counter() for age in ages}
        self.late_s_max = 0.0

    def add(self, age: str, outcome: Outcome, times: int = 1) -> None:
        """So many answers."""
        self._counts[age][outcome] += times

    @property
    def checks(self) -> int:
        """All answers there were."""
        return sum(self._answered(counts) for counts in self._counts.values())

    def rows(self) -> list[dict[str, Any]]:
        """One for each age: counts, the share that was stale, the bound on it, both in nines."""
        return [self._row(age, counts) for age, counts in self._counts.items()]

    def _row(self, age: str, counts: Counter[str]) -> dict[str, Any]:
        served, stale = counts["fresh"] + counts["stale"], counts["stale"]
        bound = upper_bound(stale, served)
        return {
            "after": age,
            "asked": sum(counts.values()),
            "served": served,
            "stale": stale,
            **{name: counts[name] for name in ("empty", "unresolved", "moved", "unreadable", "unanswered")},
            "nines": nines(stale / served) if stale else None,
            "nines_at_least": nines(bound),
            "stale_share_at_most": bound,
        }

    @staticmethod
    def _answered(counts: Counter[str]) -> int:
        return sum(counts.values()) - counts["unanswered"]
