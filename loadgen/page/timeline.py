"""What happened when: one strip for each of load, latency, reads and the store, on one line of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from loadgen.page.charts import merged
from loadgen.page.plot import Axis, Plot, Point
from loadgen.page.scale import Scale, Words, milliseconds, plain, share
from loadgen.result import Mark, RunResult, Window

STRIP = 190
ROWS = 3
"""Texts of marks that stand near each other go below each other."""


class Seconds(Protocol):
    """What a timeline is drawn of: a run, or what was put together from another record."""

    @property
    def windows(self) -> Sequence[Window]:
        """Each second."""

    @property
    def marks(self) -> Sequence[Mark]:
        """What happened, and when."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a strip; a second without a value is left out."""

    name: str
    of: Callable[[Window], float | None]


def seconds(moment: float) -> str:
    """On the axis of time."""
    return f"{moment:g} s"


def timeline(result: Seconds) -> list[tuple[str, str]]:
    """Strips, each with the sentence that it answers."""
    strips = [
        ("Was the offered load done?", _strip(result, "operations a second", LOAD, plain)),
        ("Latency, from the intended start", _latency(result)),
        ("Where did reads come from?", _strip(result, "share of reads", READS, share, top=1.0)),
    ]
    if any(one.checked for one in result.windows):
        strips.append(("How many reads were stale?", _strip(result, "share of checked reads", STALE, share)))
    return [strip for strip in strips if strip[1]]


def store_load(result: RunResult) -> str:
    """What the store feels, and what it would without the cache, where each read would be one of its own."""
    values = [float(v) for one in result.windows for v in (one.origin_reads, sum(one.sources.values())) if v]
    top = max(values, default=1.0)
    low = max(0.5, min(values, default=1.0))
    kind = "log" if top / low > 30 else "linear"
    plot = Plot(
        "Loads of the store with and without the cache",
        _store_says(result),
        _time(result),
        Axis("reads of the store a second", Scale.over([*values, low], "log" if kind == "log" else "linear"), plain),
        height=260,
    )
    _marks(plot, result)
    without: list[Point] = [(one.at_s, float(sum(one.sources.values()))) for one in result.windows]
    # The store's loads of the warm-up are not counted: no line is better than one at nothing.
    with_it: list[Point] = [(one.at_s, float(one.origin_reads)) for one in result.measured]
    plot.line(_to_the_end(without), 5, "without a cache", stepped=True)
    plot.area(_stepped(_to_the_end(with_it)), 1)
    plot.line(_to_the_end(with_it), 1, "with it", stepped=True)
    for one in result.windows:
        told = f"{one.at_s} s: {one.origin_reads:,} loads for {sum(one.sources.values()):,} reads"
        plot.hover(one.at_s, one.at_s + 1, told)
    return plot.svg()


# --- strips ---------------------------------------------------------------------------------------

LOAD = (
    Line("offered", lambda one: float(one.offered)),
    Line("done", lambda one: float(one.ended)),
)
READS = (
    Line("hit", lambda one: _share(one, "hit", "local")),
    Line("waited", lambda one: _share(one, "filled", "joined", "miss")),
    Line("shown stale", lambda one: _share(one, "stale")),
    Line("past the cache", lambda one: _share(one, "store")),
)
STALE = (Line("stale", lambda one: one.stale / one.checked if one.checked else None),)


def _share(window: Window, *sources: str) -> float | None:
    total = sum(window.sources.values())
    return sum(window.sources.get(one, 0) for one in sources) / total if total else None


def _strip(result: Seconds, name: str, lines: Sequence[Line], words: Words, top: float | None = None) -> str:
    found = [
        (line.name, [(float(one.at_s), value) for one in result.windows if (value := line.of(one)) is not None])
        for line in lines
    ]
    found = [(line, points) for line, points in found if any(y for _, y in points)]
    values = [y for _, points in found for _, y in points]
    scale = Scale(0, top) if top is not None else Scale.over(values)
    plot = Plot(name, _says(found, words), _time(result), Axis(name, scale, words), height=STRIP)
    _marks(plot, result)
    for series, (line, points) in enumerate(found):
        plot.line(_to_the_end(points), series, line, stepped=True)
    for one in result.windows:
        told = ", ".join(f"{line.name} {words(value)}" for line in lines if (value := line.of(one)) is not None)
        plot.hover(one.at_s, one.at_s + 1, f"{one.at_s} s: {told}" + (f" ({one.invalid})" if one.invalid else ""))
    return plot.svg()


def _latency(result: Seconds) -> str:
    every = [(one, merged(list(one.operations.values()))) for one in result.windows]
    every = [(one, found) for one, found in every if found.count]
    lines = [
        (name, [(float(one.at_s), max(found.percentile_ms(place), 1e-3)) for one, found in every])
        for name, place in (("p50", 50.0), ("p99", 99.0), ("slowest", 100.0))
    ]
    scale = Scale.over([y for _, points in lines for _, y in points], "log")
    says = _says(lines, milliseconds)
    plot = Plot("latency a second", says, _time(result), Axis("latency", scale, milliseconds), height=STRIP)
    _marks(plot, result)
    for series, (name, points) in enumerate(lines):
        plot.line(_to_the_end(points), series, name, stepped=True)
    for at, (one, found) in enumerate(every):
        told = ", ".join(f"{name} {milliseconds(points[at][1])}" for name, points in lines)
        plot.hover(one.at_s, one.at_s + 1, f"{one.at_s} s: {told} of {found.count:,}")
    return plot.svg()


def _time(result: Seconds) -> Axis:
    first = min((one.at_s for one in result.windows), default=0)
    last = max((one.at_s for one in result.windows), default=0)
    return Axis("since the start", Scale(first, last + 1), seconds)


def _marks(plot: Plot, result: Seconds) -> None:
    for one in result.windows:
        if one.phase == "warmup":
            plot.band(one.at_s, one.at_s + 1, "warm-up: not measured", kind="limit")
        elif one.invalid:
            plot.band(one.at_s, one.at_s + 1, one.invalid, kind="invalid")
    for number, mark in enumerate(result.marks):
        plot.upright(mark.at_s, _short(mark), title=f"{mark.at_s:.1f} s: {mark.text}", row=number % ROWS)


def _short(mark: Mark) -> str:
    return mark.kind


def _to_the_end(points: Sequence[Point]) -> list[Point]:
    """The last second is as wide as the others."""
    return [*points, (points[-1][0] + 1, points[-1][1])] if points else []


def _stepped(points: Sequence[Point]) -> list[Point]:
    steps = [one for (x, y), after in pairwise(points) for one in ((x, y), (after[0], y))]
    return [*steps, *points[-1:]]


def _says(lines: Sequence[tuple[str, Sequence[Point]]], words: Words) -> str:
    return "; ".join(
        f"{name} from {words(min(y for _, y in points))} to {words(max(y for _, y in points))}"
        for name, points in lines
        if points
    )


def _store_says(result: RunResult) -> str:
    if result.origin is None or not result.origin.client_reads:
        return "The target has no store."
    part = result.origin.reads / result.origin.client_reads
    return f"{result.origin.reads:,} loads for {result.origin.client_reads:,} reads: {share(part)} of them."
