"""Objectives: what must hold for a run to pass, in one line that an engineer can read.

    get.p99<5ms & stale.ratio<1e-4 & vis.p99<500ms & origin.qps<2000 & errors<0.1% & achieved>=0.98*offered

A clause is a measure, one of `< <= > >=`, and a bound: a number with the unit of the measure, or a number
times another measure. Times want a unit (`us ms s`), so that nobody means seconds and gets milliseconds.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cachelib.errors import ConfigError


class Kind(Enum):
    """What a measure is, and so which units its bound takes. Times are held in milliseconds, ratios from 0."""

    TIME = "a time"
    RATIO = "a ratio"
    RATE = "a number a second"
    COUNT = "a number"


UNITS: Final[dict[str, tuple[Kind, float]]] = {
    "us": (Kind.TIME, 1e-3),
    "ms": (Kind.TIME, 1.0),
    "s": (Kind.TIME, 1e3),
    "m": (Kind.TIME, 6e4),
    "%": (Kind.RATIO, 1e-2),
    "k": (Kind.RATE, 1e3),
    "/s": (Kind.RATE, 1.0),
}
EXAMPLE_UNIT: Final = {Kind.TIME: "5ms", Kind.RATIO: "0.1% or 1e-3", Kind.RATE: "2000 or 2k", Kind.COUNT: "3"}

PLAIN: Final[dict[str, Kind]] = {
    "errors": Kind.RATIO,
    "offered": Kind.RATE,
    "achieved": Kind.RATE,
    "hit.ratio": Kind.RATIO,
    "stale.ratio": Kind.RATIO,
    "origin.qps": Kind.RATE,
    "origin.amplification": Kind.COUNT,
    "herd.factor": Kind.COUNT,
    "monotonic.violations": Kind.COUNT,
    "ryw.violations": Kind.COUNT,
    "wrong.values": Kind.COUNT,
    "promises.broken": Kind.COUNT,
}
"""Measures of one number. All others are a distribution and a place in it, as `get.p99`."""
DISTRIBUTIONS: Final = ("vis", "stale.age", "lag")
OPERATIONS: Final = ("all", "get", "multiget", "scan", "lone_get", "set", "insert", "rmw", "delete")
"""What a run times, and all of it together: from the intended start (`get.p99`), or the actual (`get.service.p99`)."""
PLACES: Final = ("p50", "p90", "p95", "p99", "p99.9", "p99.99", "mean", "max")

_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CLAUSE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|<|>)\s*(.+?)\s*")
_BOUND = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:\*\s*([A-Za-z_][\w.]*)|([A-Za-z%/]+))?")
_PLACE = re.compile(r"p\d{1,2}(\.\d+)?|p100|mean|max")
RESOLVE: Final = 3.0
"""Nought in n says at most: below 3/n, with 95 % (the rule of three)."""
TAIL: Final = 10
"""A percentile with fewer samples than this beyond it is told, but not resolved."""


class NotMeasured(ConfigError):
    """An objective asks for what the run did not measure: it can be neither held nor missed."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What a run or a window measured, by the names above; `samples`: of how many operations each was made."""

    values: Mapping[str, float]
    samples: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClauseVerdict:
    """One clause on one run. `excess`: how far the value is towards or beyond its bound, 1 being on it."""

    text: str
    measure: str
    kind: Kind
    value: float
    bound: float
    holds: bool
    excess: float
    resolved: bool
    """False: there were too few samples to tell the bound from zero, or to know the tail."""

    def sentence(self) -> str:
        """For people: `get.p99<5ms missed: 7.2 ms`."""
        unsure = "" if self.resolved or not self.holds else " (too few samples to be sure)"
        return f"{self.text} {'holds' if self.holds else 'missed'}: {shown(self.value, self.kind)}{unsure}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All clauses on one run."""

    clauses: tuple[ClauseVerdict, ...]

    @property
    def holds(self) -> bool:
        """Every clause does."""
        return all(one.holds for one in self.clauses)

    @property
    def binding(self) -> str:
        """The clause that is missed by the most, or that is nearest to its bound; nothing where there is none."""
        missed = [one for one in self.clauses if not one.holds] or list(self.clauses)
        return max(missed, key=lambda one: one.excess).text if missed else ""


@dataclass(frozen=True, slots=True)
class Clause:
    """`measure` `sign` `number` [times the measure `of`]."""

    text: str
    measure: str
    sign: str
    number: float
    of: str | None = None

    def judge(self, measures: Measures) -> ClauseVerdict:
        """Raises `NotMeasured`."""
        value, kind = _value(measures, self.measure), kind_of(self.measure)
        bound = self.number * (_value(measures, self.of) if self.of else 1.0)
        above, below = (value, bound) if self.sign in "<=" else (bound, value)
        excess = above / below if below > 0 else (0.0 if above <= 0 else float("inf"))
        holds = _COMPARE[self.sign](value, bound)
        return ClauseVerdict(
            self.text, self.measure, kind, value, bound, holds, excess, self._resolved(measures, value, bound)
        )

    def _resolved(self, measures: Measures, value: float, bound: float) -> bool:
        samples = measures.samples.get(self.measure)
        if samples is None:
            return True
        place = self.measure.rpartition(".p")[2] if ".p" in self.measure else ""
        if kind_of(self.measure) is Kind.TIME and place:
            share = 1 - float(self.measure[self.measure.index(".p") + 2 :]) / 100
            return samples * share >= TAIL
        if kind_of(self.measure) is Kind.RATIO and value == 0:
            return samples > 0 and RESOLVE / samples < bound
        return True


@dataclass(frozen=True, slots=True)
class Objective:
    """Clauses that must all hold. One without clauses always does."""

    clauses: tuple[Clause, ...] = ()

    @property
    def text(self) -> str:
        """As it may be parsed again."""
        return " & ".join(clause.text for clause in self.clauses)

    @property
    def measures(self) -> frozenset[str]:
        """Every measure that a run has to bring."""
        return frozenset(name for clause in self.clauses for name in (clause.measure, clause.of) if name)

    def judge(self, measures: Measures) -> Verdict:
        """Raises `NotMeasured` where a clause asks for what is not there."""
        return Verdict(tuple(clause.judge(measures) for clause in self.clauses))


def parse(text: str) -> Objective:
    """Raises `ConfigError`, which names the clause and what it should have been."""
    parts = re.split(r"&&?|,|\band\b", text)
    if not text.strip():
        raise ConfigError("the objective is empty: give clauses such as 'get.p99<5ms & errors<0.1%'")
    return Objective(tuple(_clause(part) for part in parts))


def kind_of(measure: str) -> Kind:
    """What a measure is. Raises `ConfigError` for one that does not exist, with the nearest that does."""
    if measure in PLAIN:
        return PLAIN[measure]
    place = re.search(r"\.(p\d[\d.]*|mean|max)$", measure)
    if place and _PLACE.fullmatch(place[1]) and measure[: place.start()] in _distributions():
        return Kind.TIME
    near = difflib.get_close_matches(measure, list(names()), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"objective: there is no measure {measure!r}{hint} (measures are {', '.join(PLAIN)}, and a place such as"
        f" .p50 .p99 .p99.9 .mean .max of {', '.join(_distributions())})"
    )


def names() -> Iterator[str]:
    """Every measure, distributions at the usual places."""
    yield from PLAIN
    yield from (f"{one}.{place}" for one in _distributions() for place in PLACES)


def shown(value: float, kind: Kind) -> str:
    """A measure with its unit, three figures."""
    match kind:
        case Kind.TIME:
            return f"{value / 1e3:.3g} s" if value >= 1e3 else f"{value:.3g} ms"
        case Kind.RATIO:
            return f"{value:.3%}" if value >= 1e-4 or value == 0 else f"{value:.2e}"
        case Kind.RATE:
            return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"
        case Kind.COUNT:
            return f"{value:,.4g}"


def _distributions() -> tuple[str, ...]:
    return (*OPERATIONS, *(f"{one}.service" for one in OPERATIONS), *DISTRIBUTIONS)


def _value(measures: Measures, name: str) -> float:
    value = measures.values.get(name)
    if value is None:
        had = ", ".join(sorted(measures.values)) or "nothing"
        raise NotMeasured(f"the objective asks for {name}, which this run did not measure; it measured {had}")
    return value


def _clause(part: str) -> Clause:
    text = "".join(part.split())
    found = _CLAUSE.fullmatch(part)
    if found is None:
        what = f"{text!r} is not a clause" if text else "a clause is missing beside '&'"
        raise ConfigError(f"objective: {what}: write MEASURE < BOUND, as get.p99<5ms (signs are < <= > >=)")
    measure, sign, bound = found.groups()
    kind = kind_of(measure)
    number = _BOUND.fullmatch(bound)
    if number is None:
        raise ConfigError(
            f"objective: the bound of {text!r} is {bound!r}: give a number such as {EXAMPLE_UNIT[kind]},"
            " or a number times a measure, as 0.98*offered"
        )
    value, of, unit = float(number[1]), number[2], number[3]
    if of is not None:
        if kind_of(of) is not kind:
            raise ConfigError(f"objective: {text!r} compares {kind.value} with {kind_of(of).value}")
        return Clause(text, measure, sign, value, of)
    return Clause(text, measure, sign, value * _factor(text, kind, unit, value))


def _factor(text: str, kind: Kind, unit: str | None, value: float) -> float:
    if unit is None:
        if kind is Kind.TIME and value != 0:
            raise ConfigError(f"objective: {text!r} bounds a time: say of what, as {EXAMPLE_UNIT[kind]}")
        return 1.0
    if unit not in UNITS:
        raise ConfigError(f"objective: {text!r} has the unit {unit!r}: units are {', '.join(UNITS)}")
    found, factor = UNITS[unit]
    if found is not kind:
        raise ConfigError(
            f"objective: {text!r} bounds {kind.value}, and {unit!r} is of {found.value}: as {EXAMPLE_UNIT[kind]}"
        )
    return factor
