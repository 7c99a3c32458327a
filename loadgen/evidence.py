"""What all probes of a search say together: between which rates the capacity lies.

A search follows its last answers, and one of them may have been wrong: every vote counts here. The share of
windows that hold falls as the rate rises, and that is all that is assumed; the capacity is where it crosses a half.
Pool-adjacent-violators fits such a curve; a place for the crossing is left open where the best curve through it is
not much less likely than the best one at all (Banerjee & Wellner, "Likelihood ratio tests for monotone functions",
2001: 95 % of their statistic lies below 2.27).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log
from typing import TypeAlias

Vote: TypeAlias = tuple[float, float, float]
"""A rate, and how much says that it held and that it missed. Windows of one probe share its luck: give a short
probe the weight of one."""
OPEN = 2.27 / 2
"""In log-likelihood."""
HALF = 0.5
NEVER = float("inf")


def between(votes: Iterable[Vote]) -> tuple[float, float]:
    """The lowest and the highest rate between which the capacity lies, with about 95 %.

    0 and infinity where nothing bounds it.
    """
    by_rate = _by_rate(votes)
    # The crossing is between two rates that were asked: before the first, after the last, or in a gap.
    likely = [_likelihood(by_rate, held) for held in range(len(by_rate) + 1)]
    least = max(likely) - OPEN
    still = [gap for gap, value in enumerate(likely) if value >= least]
    low = by_rate[still[0] - 1][0] if still[0] else 0.0
    high = by_rate[still[-1]][0] if still[-1] < len(by_rate) else NEVER
    return low, high


def _by_rate(votes: Iterable[Vote]) -> list[Vote]:
    found: dict[float, tuple[float, float]] = {}
    for rate, held, missed in votes:
        before = found.get(rate, (0.0, 0.0))
        found[rate] = before[0] + held, before[1] + missed
    return [(rate, *found[rate]) for rate in sorted(found) if sum(found[rate])]


def _likelihood(votes: Sequence[Vote], held: int) -> float:
    """Logarithm, of the best curve that is at least a half on the first so many rates and at most a half after."""
    below = [max(share, HALF) for share in falling(votes[:held])]
    above = [min(share, HALF) for share in falling(votes[held:])]
    return sum(_term(good, p) + _term(bad, 1 - p) for (_, good, bad), p in zip(votes, below + above, strict=True))


def _term(weight: float, share: float) -> float:
    return weight * log(share) if weight else 0.0


def falling(votes: Sequence[Vote]) -> list[float]:
    """The share that held at each rate, pooled with its neighbours wherever it would rise."""
    pools: list[tuple[float, float, int]] = []
    for _, held, missed in votes:
        pools.append((held, held + missed, 1))
        while len(pools) > 1 and pools[-1][0] * pools[-2][1] > pools[-2][0] * pools[-1][1]:
            last = pools.pop()
            pools[-1] = (pools[-1][0] + last[0], pools[-1][1] + last[1], pools[-1][2] + last[2])
    return [held / total for held, total, count in pools for _ in range(count)]
