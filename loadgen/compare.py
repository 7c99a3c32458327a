"""Two runs beside each other: did B get slower than A, by how much, and how sure is that?

The figure is the ratio of B's percentile to A's, with a bootstrap interval (95 %): seconds are drawn with
replacement, in blocks, since a slow second is seldom alone; their histograms are added; the percentile is
read from the sum. It takes what differs between seconds of one run as the noise, so it does not know of what
differs between whole runs (another day, another neighbour): repeat both runs where it matters.

A regression is an interval that lies wholly beyond the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cachelib.errors import CacheError
from loadgen.histogram import Histogram
from loadgen.result import RunResult, Window

DRAWS = 1000
PLACES = (50.0, 90.0, 99.0, 99.9)
TAIL = 20
"""A percentile with fewer samples than this beyond it, in either run, is not compared."""
LEVEL = (2.5, 97.5)
SECONDS_LEAST = 5


class Change(Enum):
    """What an interval says."""

    SAME = "no difference that shows"
    WORSE = "worse"
    BETTER = "better"
    SMALL = "different, within the tolerance"


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of both runs; `ratio` is B to A with its interval. `lower`: lower is better."""

    name: str
    unit: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    lower: bool
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures, and what makes the two runs less than comparable."""

    figures: tuple[Compared, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Compared, ...]:
        """What got worse."""
        return tuple(one for one in self.figures if one.change is Change.WORSE)


def compare(a: RunResult, b: RunResult, *, tolerance: float = 0.05, seed: int = 1) -> Comparison:
    """Raises `InvalidRun` where a run says nothing, or has too few seconds to draw from."""
    for name, run in (("A", a), ("B", b)):
        if run.invalid:
            raise InvalidRun(f"run {name} ({run.label}) says nothing: {'; '.join(run.invalid)}")
        if len(_counting(run)) < SECONDS_LEAST:
            raise InvalidRun(f"run {name} ({run.label}) has fewer than {SECONDS_LEAST} seconds that count: run longer")
    random = np.random.default_rng(seed)
    figures = [*_latencies(a, b, tolerance, random), *_rates(a, b, tolerance, random)]
    return Comparison(tuple(figures), tuple(_notes(a, b)))


class InvalidRun(CacheError):
    """A run that says nothing, or too little to be compared."""


def _counting(run: RunResult) -> list[Window]:
    return [window for window in run.measured if not window.invalid]


# --- latency ---------------------------------------------------------------------------------------


def _latencies(a: RunResult, b: RunResult, tolerance: float, random: np.random.Generator) -> Iterator[Compared]:
    for name in sorted(a.operations.keys() & b.operations.keys(), key=lambda one: -a.operations[one].achieved):
        seconds_a, seconds_b = (
            [window.operations[name].latency.histogram for window in _counting(run) if name in window.operations]
            for run in (a, b)
        )
        fewest = min(sum(one.count for one in seconds) for seconds in (seconds_a, seconds_b))
        places = [place for place in PLACES if fewest * (1 - place / 100) >= TAIL]
        whole_a, whole_b = Histogram.sum_of(seconds_a), Histogram.sum_of(seconds_b)
        drawn_a, drawn_b = (drawn_percentiles(one, places, random) for one in (seconds_a, seconds_b))
        for number, place in enumerate(places):
            values = whole_a.percentile_ms(place), whole_b.percentile_ms(place)
            yield judged(f"{name}.p{place:g}", "ms", values, drawn_b[number] / drawn_a[number], tolerance, lower=True)


def drawn_percentiles(
    seconds: Sequence[Histogram], places: Sequence[float], random: np.random.Generator, draws: int = DRAWS
) -> list[NDArray[np.float64]]:
    """Each percentile (ns, to half a percent) of each of `draws` runs that are made of blocks of these seconds."""
    every = [np.asarray([edge(place) for place in one.index.tolist()], dtype=np.int64) for one in seconds]
    edges = np.unique(np.concatenate(every))
    counts = np.zeros((len(seconds), len(edges)))
    for row, at, one in zip(counts, every, seconds, strict=True):
        np.add.at(row, np.searchsorted(edges, at), one.counts)
    sums = np.cumsum(weights(len(seconds), random, draws) @ counts, axis=1)
    values = np.exp(edges * WIDTH)
    return [
        values[(sums < np.ceil(place / 100 * sums[:, -1:] - 1e-9)).sum(axis=1).clip(max=len(edges) - 1)]
        for place in places
    ]


WIDTH = 0.005
"""Of the logarithmic classes in which the draws are counted."""


@cache
def edge(place: int) -> int:
    """The class of one place of a histogram."""
    value_ns = Histogram(np.asarray([place]), np.ones(1, np.int64)).percentile_ns(100)
    return round(math.log(max(1, value_ns)) / WIDTH)


def weights(seconds: int, random: np.random.Generator, draws: int = DRAWS) -> NDArray[np.float64]:
    """How often each second is in each draw: a circular block bootstrap, blocks of about the cube root of them."""
    block = max(1, round(seconds ** (1 / 3)))
    blocks = -(-seconds // block)
    starts = random.integers(0, seconds, (draws, blocks))
    chosen = ((starts[:, :, None] + np.arange(block)) % seconds).reshape(draws, -1)[:, :seconds]
    drawn = np.zeros((draws, seconds))
    np.add.at(drawn, (np.arange(draws)[:, None], chosen), 1.0)
    return drawn


# --- what is counted by the second ----------------------------------------------------------------


def _rates(a: RunResult, b: RunResult, tolerance: float, random: np.random.Generator) -> Iterator[Compared]:
    def part(run: RunResult, of: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = [_of_second(window, of) for window in _counting(run)]
        return np.asarray([row[0] for row in rows]), np.asarray([row[1] for row in rows])

    for name, unit, lower in (
        ("achieved of offered", "", False),
        ("hit.ratio", "", False),
        ("origin reads per read", "", True),
        ("stale.ratio", "", True),
        ("errors", "", True),
    ):
        (parts_a, wholes_a), (parts_b, wholes_b) = part(a, name), part(b, name)
        if not wholes_a.sum() or not wholes_b.sum():
            continue
        value_a, value_b = parts_a.sum() / wholes_a.sum(), parts_b.sum() / wholes_b.sum()
        if not value_a and not value_b:
            continue
        drawn = [_drawn_share(*one, random) for one in ((parts_a, wholes_a), (parts_b, wholes_b))]
        ratios = (drawn[1] + _TINY) / (drawn[0] + _TINY)
        found = judged(name, unit, (float(value_a), float(value_b)), ratios, tolerance, lower=lower)
        # Failures come in bursts, and draws that miss the only burst would excuse it: so they are also counted.
        counted = (
            name in FAILURES
            and wilson(parts_b.sum(), wholes_b.sum())[0] > (1 + tolerance) * wilson(parts_a.sum(), wholes_a.sum())[1]
        )
        yield replace(found, change=Change.WORSE) if counted else found


FAILURES = ("stale.ratio", "errors")
_TINY = 1e-9
"""Where nothing was stale in one run and something in the other, the ratio is large, not infinite."""


def wilson(part: float, whole: float, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    middle = (part + z * z / 2) / (whole + z * z)
    width = z * math.sqrt(part * (whole - part) / whole + z * z / 4) / (whole + z * z)
    return max(0.0, middle - width), min(1.0, middle + width)


def _drawn_share(
    parts: NDArray[np.float64], wholes: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    drawn = weights(len(parts), random)
    shares: NDArray[np.float64] = (drawn @ parts) / np.maximum(drawn @ wholes, 1.0)
    return shares


def _of_second(window: Window, of: str) -> tuple[float, float]:
    reads = float(sum(window.sources.values()))
    match of:
        case "achieved of offered":
            return float(window.ended), float(window.offered)
        case "hit.ratio":
            return float(window.sources.get("hit", 0) + window.sources.get("local", 0)), reads
        case "origin reads per read":
            return float(window.origin_reads), reads
        case "stale.ratio":
            return float(window.stale), float(window.checked)
        case _:
            return float(window.errors), float(window.offered)


def judged(
    name: str, unit: str, values: tuple[float, float], ratios: NDArray[np.float64], tolerance: float, *, lower: bool
) -> Compared:
    """A figure with its interval and what that says."""
    low, high = (float(one) for one in np.percentile(ratios, LEVEL))
    ratio = (values[1] + _TINY) / (values[0] + _TINY)
    up, down = low > 1 + tolerance, high < 1 - tolerance
    if up or down:
        change = Change.WORSE if up is lower else Change.BETTER
    else:
        change = Change.SAME if low <= 1 <= high else Change.SMALL
    return Compared(name, unit, *values, ratio, low, high, lower, change)


# --- what else differs ----------------------------------------------------------------------------


def _notes(a: RunResult, b: RunResult) -> Iterable[str]:
    if a.host != b.host:
        yield f"the hosts differ: {a.host.name} ({a.host.processors} processors), {b.host.name} ({b.host.processors})"
    for name in sorted(a.versions.keys() | b.versions.keys()):
        if (was := a.versions.get(name, "none")) != (now := b.versions.get(name, "none")):
            yield f"version of {name}: {was}, {now}"
    if a.config_hash != b.config_hash:
        for name in sorted(a.config.keys() | b.config.keys()):
            before, after = a.config.get(name), b.config.get(name)
            if name not in ("seed", "label") and before != after:
                yield f"setting {name}: {before}, {after}"
    for name in sorted(a.operations.keys() ^ b.operations.keys()):
        yield f"only one of the runs has the operation {name}"
