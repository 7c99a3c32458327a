"""How sure one may be of a share that was counted. Pure."""

from __future__ import annotations

import math

_Z = 1.6449
"""One-sided 95 %."""


def upper_bound(bad: int, asked: int) -> float:
    """The largest share of bad answers that still fits so many of so many, at 95 %.

    With none it is the rule of three, 3/n; else Wilson's bound.
    """
    if not asked:
        return 1.0
    if not bad:
        return min(1.0, 3 / asked)
    share, z2 = bad / asked, _Z * _Z
    middle = share + z2 / (2 * asked)
    spread = _Z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked))
    return min(1.0, (middle + spread) / (1 + z2 / asked))


def nines(share: float) -> float:
    """1e-6 bad is six nines. A share of nought cannot be counted: give its bound."""
    return round(-math.log10(share), 1) + 0.0 if share > 0 else math.inf
