"""Shares with honest intervals."""

from __future__ import annotations

from math import log10, sqrt

import numpy as np

from loadgen.history import Flags, Numbers
from loadgen.result import Ratio

Z95 = 1.959964
RULE_OF_THREE = 3.0
"""None in n: fewer than 3/n with 95 % confidence."""


def wilson(part: float, whole: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); (0, 1) of nothing."""
    if whole <= 0:
        return 0.0, 1.0
    share, z2 = part / whole, Z95 * Z95
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = Z95 * sqrt(share * (1 - share) / whole + z2 / (4 * whole * whole)) / (1 + z2 / whole)
    return max(0.0, middle - half), min(1.0, middle + half)


def ratio(part: int, whole: int, effect: float = 1.0) -> Ratio:
    """`effect`: how many of the whole tell as much as one that is independent of the others."""
    low, high = wilson(part / effect, whole / effect)
    return Ratio(part, whole, part / whole if whole else 0.0, low, high)


def design_effect(flagged: Flags, cluster: Numbers) -> float:
    """Reads of one key are old together: how much wider that makes the interval of their share (Kish; linearised
    variance of a ratio over clusters). At least 1; 1 where nothing can be told.
    """
    _, number = np.unique(cluster, return_inverse=True)
    whole = np.bincount(number).astype(np.float64)
    part = np.bincount(number, weights=flagged)
    clusters, total = len(whole), whole.sum()
    share = float(part.sum() / total) if total else 0.0
    simple = share * (1 - share) / float(total) if total else 0.0
    if clusters < 2 or not simple:
        return 1.0
    residuals = part - share * whole
    variance = clusters / (clusters - 1) * float((residuals**2).sum()) / float(total) ** 2
    return max(1.0, variance / simple)


def nines(late: int, of: int) -> tuple[float, float]:
    """-log10 of the share that was late, and what so many can resolve; the first is never more than the second."""
    if of <= 0:
        return 0.0, 0.0
    resolvable = max(0.0, log10(of / RULE_OF_THREE))
    return min(-log10(late / of) if late else resolvable, resolvable), resolvable
