"""From values to places on paper, and where the ticks stand: linear, logarithmic (of bytes by two), or in nines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["linear", "log", "bytes", "nines"]
NICE = (1.0, 2.0, 5.0, 10.0)
LOG_TICKS_MOST = 12


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high`. In nines: 90, 99, 99.9 % stand equally far apart; values are percentages."""

    low: float
    high: float
    kind: Kind = "linear"

    @classmethod
    def over(cls, values: Iterable[float], kind: Kind = "linear", *, zero: bool = True) -> Scale:
        """Wide enough for all of them, to the next round numbers; of nothing, or of one value, still a scale."""
        found = [value for value in values if math.isfinite(value) and (kind != "log" or value > 0)]
        if kind == "log":
            low, high = (min(found), max(found)) if found else (1.0, 10.0)
            low, high = _step_down(low), _step_up(high)
            return cls(low, high if high > low else low * 10, kind)
        low = 0.0 if zero or not found else min(found)
        high = max(found, default=1.0)
        step = nice_step((high - low) or abs(high) or 1.0, 5)
        high = math.ceil(high / step - 1e-9) * step
        return cls(math.floor(low / step + 1e-9) * step, high if high > low else low + step, kind)

    def share(self, value: float) -> float:
        """From 0 at `low` to 1 at `high`; what lies outside is at the edge."""
        place = self._place(value)
        low, high = self._place(self.low), self._place(self.high)
        return min(1.0, max(0.0, (place - low) / (high - low)))

    def _place(self, value: float) -> float:
        match self.kind:
            case "linear":
                return value
            case "log" | "bytes":
                return math.log10(max(value, self.low * 1e-3, 1e-300))
            case "nines":
                return -math.log10(max(1e-12, 1 - value / 100))

    def ticks(self, most: int = 6, crowd: int = LOG_TICKS_MOST) -> list[float]:
        """Round values within, rising: at most so many, or of a logarithm about `crowd`."""
        match self.kind:
            case "linear":
                step = nice_step(self.high - self.low, most)
                first = math.ceil(self.low / step - 1e-9)
                last = math.floor(self.high / step + 1e-9)
                return [number * step for number in range(first, last + 1)]
            case "log":
                return _log_ticks(self.low, self.high, crowd)
            case "bytes":
                return _binary_ticks(self.low, self.high, most)
            case "nines":
                every = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
                return [one for one in every if self.low <= one <= self.high]


def nice_step(width: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides a width into at most so many."""
    rough = width / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in NICE if factor * power >= rough * (1 - 1e-9))


def _binary_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / max(1, most)))
    return [2.0**power for power in range(math.ceil(first / step) * step, last + 1, step)]


def _log_ticks(low: float, high: float, crowd: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        within = [one for one in found if low * (1 - 1e-9) <= one <= high * (1 + 1e-9)]
        if len(within) <= crowd or factors == (1,):
            return within
    raise AssertionError("the last of them returned")


def _step_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in NICE[:3] if factor * power <= value * (1 + 1e-9))


def _step_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(factor * power for factor in NICE if factor * power >= value * (1 - 1e-9))


# --- words for values ----------------------------------------------------------------------------

Words: TypeAlias = Callable[[float], str]


def plain(value: float) -> str:
    """1234567 as 1.2M, 2500 as 2.5k, 0.001 as it is."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def milliseconds(value: float) -> str:
    """With the unit that fits."""
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    return f"{value:.3g} ms" if value >= 1 or value == 0 else f"{value * 1000:.3g} µs"


def percent(value: float) -> str:
    """Of a percentage: as many digits as it has."""
    return f"{value:.6g} %"


def share(value: float) -> str:
    """Of a share from 0 to 1."""
    return f"{value * 100:.4g} %"


def size(value: float) -> str:
    """Bytes."""
    for limit, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def spread(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, at least so far apart, within the bounds: for labels beside lines."""
    order = sorted(range(len(wanted)), key=lambda one: wanted[one])
    placed = [0.0] * len(wanted)
    at = low - least
    for one in order:
        at = placed[one] = max(wanted[one], at + least)
    at = high + least
    for one in reversed(order):
        at = placed[one] = min(placed[one], at - least)
    return placed
