"""What a search for capacity is told, asks and answers; the machine itself is `search.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from cachelib.errors import ConfigError

Phase: TypeAlias = Literal["ramp", "bisect", "confirm", "climb", "again"]
LONG: tuple[Phase, ...] = ("confirm", "climb", "again")
"""Phases whose probes are `confirm_times` as long."""
NEVER = float("inf")
LONG_SHARE = 2 / 3
"""Of the windows of a long probe that must hold."""
CLEAR = 0.8
"""Of those of one above what was confirmed."""
MISSES = 2
"""So many more long probes of a rate miss than hold before the search ends below it."""
HOLDS = 2
"""So many long probes in a row hold at the rate that is found."""
SPOILED_STEP = 0.75
"""A long probe that the generator spoiled is tried again at this share of its rate."""
NEAR = 1e-9


class Window(Enum):
    """How one window ended."""

    HELD = "held"
    MISSED = "missed"
    INVALID = "invalid"
    """The generator was late."""
    DISTURBED = "disturbed"
    """Other work had the processors."""


class End(Enum):
    """How a search ended."""

    FOUND = "found"
    NOTHING_HOLDS = "nothing holds"
    """Not even at the lowest rate: the objective is missed for a reason that is not load."""
    GENERATOR = "generator"
    """It held at the highest rate that this generator may offer: the capacity is at least that."""
    NO_RECOVERY = "no recovery"
    """The system did not come back to rest between probes."""
    DISTURBED = "disturbed"
    """Other work had the processors, probe after probe."""
    SPOILED = "spoiled"
    """Probe after probe was invalid: the generator, or its machine, was too late."""
    UNSETTLED = "unsettled"
    """The answers contradict each other for longer than `probes_most`."""
    INTERRUPTED = "interrupted"
    """From outside; what had been found by then is kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Rates are operations a second. `ceiling`: what the generator alone reaches (`loadgen calibrate`)."""

    start: float
    ceiling: float
    share: float = 0.7
    growth: float = 2.0
    tolerance: float = 0.05
    step_down: float = 0.02
    windows: int = 3
    windows_most: int = 7
    confirm_times: int = 3
    drains_most: int = 10
    spoiled_most: int = 3
    disturbed_most: int = 10
    """Times the windows of a probe in which other work is waited for to end."""
    again_most: int = 5
    """Times that refuted rates are asked again before the search ends."""
    quick: bool = False
    """Fewer probes near the knee, and a rate further below it: for tolerances from a tenth on."""
    lower_most: int = 8
    """Steps down, for a rate that held once and not again, before the search ends."""
    probes_most: int = 60
    lowest: float = 1.0

    def __post_init__(self) -> None:
        if self.start <= 0 or self.ceiling <= 0:
            raise ConfigError(f"start ({self.start:g}/s) and ceiling ({self.ceiling:g}/s) are rates above 0")
        if not 0 < self.tolerance < 1 or not 0 < self.step_down < 1 or not 0 < self.share <= 1 or self.growth <= 1:
            raise ConfigError("tolerance and step_down are shares between 0 and 1, growth a factor above 1")
        if self.start > self.limit:
            raise ConfigError(
                f"the first rate, {self.start:,.0f}/s, is more than {self.share:.0%} of what this generator reaches"
                f" ({self.ceiling:,.0f}/s): start lower, or use more workers"
            )

    @property
    def limit(self) -> float:
        """The highest rate that may be asked for."""
        return self.share * self.ceiling

    @property
    def near(self) -> float:
        """How near to each other what holds and what misses come, as a share."""
        return self.tolerance if self.quick else self.tolerance / 2

    @property
    def clear(self) -> float:
        """Of the windows of the last two long probes of the rate that is found, so many hold."""
        return 0.85 if self.quick else 0.75


@dataclass(frozen=True, slots=True)
class Drain:
    """Let the system come to rest; answered by `State.drained`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Offer this rate for so many windows; answered by `State.probed`."""

    rate: float
    windows: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Finding:
    """The end: `rate` held in two long probes in a row, `above` was refuted; between them the system is at its knee.

    Operations a second. Where the search did not end with `FOUND` or `GENERATOR`, `rate` held once at most.
    """

    end: End
    rate: float
    above: float
    binding: str
    low: float
    high: float
    """What all votes together leave open: the capacity is between these."""

    @property
    def found(self) -> bool:
        """A rate that held again, with a refuted one above it."""
        return self.end is End.FOUND


Ask: TypeAlias = Drain | Probe | Finding


@dataclass(frozen=True, slots=True)
class Probed:
    """A line of the log."""

    phase: Phase
    rate: float
    held: int
    missed: int
    spoiled: int
    binding: str
    verdict: Window


def without_aftermath(windows: Sequence[tuple[Window, str]]) -> list[tuple[Window, str]]:
    """What misses after a window in which other work had the processors may be the backlog that it left: no vote."""
    kinds = [kind for kind, _ in windows]
    first = kinds.index(Window.DISTURBED) if Window.DISTURBED in kinds else len(kinds)
    after = [(Window.DISTURBED, "") if kind is Window.MISSED else (kind, why) for kind, why in windows[first:]]
    return [*windows[:first], *after]
