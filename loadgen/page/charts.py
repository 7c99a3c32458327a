"""The pictures, one for each question of a capacity engineer. Data in, SVG out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from loadgen.histogram import Histogram
from loadgen.objective import parse
from loadgen.page.plot import Axis, Plot, Point, Shape
from loadgen.page.scale import Scale, milliseconds, percent, plain, share
from loadgen.result import Latency, Operation, RunResult
from loadgen.searched import ProbeLine, SearchResult

CURVE = (0, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.998, 99.999, 99.9995, 99.9999)
TAIL = 2
"""A percentile is drawn while so many samples lie beyond it."""


def latency_against_load(search: SearchResult) -> str:
    """Where does latency leave the ground? Each probe, with the bound and the rate that was found."""
    probes = sorted((one for one in search.probes if one.verdict != "invalid"), key=lambda one: one.rate)
    bounds = [clause.number for clause in parse(search.objective).clauses if _bounds_p99(clause.measure)]
    times = [value for one in probes for value in (one.p50_ms, one.p99_ms, one.p999_ms)]
    plot = Plot(
        "Latency against offered load",
        f"{len(probes)} probes; {search.says}",
        Axis("offered, operations a second", Scale.over([one.rate for one in probes], "linear"), plain),
        Axis("latency from the intended start", Scale.over([*times, *bounds], "log"), milliseconds),
        height=360,
    )
    _knee(plot, search)
    for bound in bounds:
        plot.rule(bound, f"objective: p99 below {milliseconds(bound)}")
    for series, (name, values) in enumerate(
        (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")),
    ):
        plot.line(_lowest_envelope([(one.rate, getattr(one, values)) for one in probes]), series, name)
        for one in probes:
            plot.mark((one.rate, getattr(one, values)), series, _shape(one), _told(one, name, getattr(one, values)))
    return plot.svg()


def achieved_against_offered(search: SearchResult) -> str:
    """Does it keep up? On the diagonal what was offered was done."""
    probes = sorted((one for one in search.probes if one.verdict != "invalid"), key=lambda one: one.rate)
    both = Scale.over([value for one in probes for value in (one.rate, one.achieved)])
    plot = Plot(
        "Achieved against offered load",
        "On the diagonal everything that was offered was done.",
        Axis("offered, operations a second", both, plain),
        Axis("achieved, operations a second", both, plain),
        height=260,
    )
    _knee(plot, search)
    plot.line([(both.low, both.low), (both.high, both.high)], 5, "offered")
    plot.line(_lowest_envelope([(one.rate, one.achieved) for one in probes]), 0, "achieved")
    for one in probes:
        plot.mark((one.rate, one.achieved), 0, _shape(one), _told(one, "achieved", one.achieved))
    return plot.svg()


def percentile_curves(result: RunResult) -> str:
    """How slow are the slow ones? Each operation, from the intended start and from the actual one."""
    curves: list[tuple[str, list[Point]]] = []
    for name, operation in sorted(result.operations.items(), key=lambda item: -item[1].achieved):
        for view, latency in (("", operation.latency), (", service", operation.service)):
            if latency.count:
                curves.append((f"{name}{view}", curve_of(latency.histogram)))
    times = [y for _, points in curves for _, y in points]
    highest = max((x for _, points in curves for x, _ in points), default=99.0)
    plot = Plot(
        "Percentiles of latency",
        "; ".join(f"{name}: {_told_curve(points)}" for name, points in curves),
        Axis("percentile", Scale(0, highest, "nines"), percent),
        Axis("latency", Scale.over(times, "log"), milliseconds),
        height=320,
    )
    _draw(plot, curves)
    return plot.svg()


def beside(name: str, latencies: Sequence[tuple[str, Latency]]) -> str:
    """The percentiles of several latencies of one kind, each with its label."""
    curves = [(label, curve_of(one.histogram)) for label, one in latencies if one.count]
    highest = max((x for _, points in curves for x, _ in points), default=99.0)
    plot = Plot(
        f"Percentiles of {name}",
        "; ".join(f"{label}: p99 {milliseconds(one.p99_ms)}" for label, one in latencies),
        Axis("percentile", Scale(0, highest, "nines"), percent),
        Axis("latency", Scale.over([y for _, points in curves for _, y in points], "log"), milliseconds),
        height=280,
    )
    _draw(plot, curves)
    return plot.svg()


def _draw(plot: Plot, curves: Sequence[tuple[str, list[Point]]]) -> None:
    for series, (name, points) in enumerate(curves):
        plot.line(points, series, name)
        for at, value in points:
            if at in (50, 90, 99, 99.9, 99.99):
                plot.mark((at, value), series, "disc", f"{name} p{at:g}: {milliseconds(value)}")


def visibility_curve(result: RunResult) -> str:
    """How long does a reader not see a change? The share of changes that are seen within a time."""
    assert result.consistency is not None
    seen = result.consistency.visibility.lag.histogram
    places = [*range(0, 96, 5), *range(96, 101)]
    points = [(max(seen.percentile_ms(place), 1e-3), place / 100) for place in places]
    plot = Plot(
        "Changes that are visible within a time",
        f"Half within {milliseconds(seen.percentile_ms(50))}, 99 % within {milliseconds(seen.percentile_ms(99))}",
        Axis("from the end of the commit", Scale.over([x for x, _ in points], "log"), milliseconds),
        Axis("share of changes", Scale(0, 1), share),
        height=260,
    )
    gap = result.consistency.visibility.poll_gap_ms
    if plot.x.scale.low <= gap <= plot.x.scale.high:
        plot.upright(gap, f"looked every {milliseconds(gap)}", kind="known")
    plot.area(points, 0)
    plot.line(points, 0)
    for wanted in (0.5, 0.99):
        value = seen.percentile_ms(wanted * 100)
        plot.mark((value, wanted), 0, "disc", f"{share(wanted)} within {milliseconds(value)}")
    return plot.svg()


def stale_ages(result: RunResult) -> str:
    """How old was what stale reads returned? The share of stale reads that were older than a time."""
    assert result.consistency is not None
    groups = [one for one in result.consistency.stale if one.age.count]
    # A line through one or two reads is no distribution; the table below has them.
    groups = [one for one in groups if one.age.count > TAIL] or groups
    curves = [(f"{one.level}, {one.source}", one.age.histogram) for one in groups]
    places = [0, 10, 25, 50, 75, 90, 95, 99, 99.9, 100]
    lines = [
        (name, [(max(ages.percentile_ms(place), 1e-3), 1 - place / 100) for place in places]) for name, ages in curves
    ]
    plot = Plot(
        "Age of stale reads",
        "; ".join(f"{name}: half older than {milliseconds(ages.percentile_ms(50))}" for name, ages in curves),
        Axis(
            "how long the value had been superseded",
            Scale.over([x for _, p in lines for x, _ in p], "log"),
            milliseconds,
        ),
        Axis("share of stale reads that were older", Scale(0, 1), share),
        height=260,
    )
    for series, (name, points) in enumerate(lines):
        plot.line(points, series, name)
    return plot.svg()


# --- pieces ---------------------------------------------------------------------------------------


def _knee(plot: Plot, search: SearchResult) -> None:
    if search.rate:
        words = "capacity" if search.found else "at least"
        text = f"{words} {plain(search.rate)}/s"
        plot.upright(search.rate, text, kind="found", title=search.says)
    limit = search.ceiling * search.share
    if limit <= plot.x.scale.high:
        plot.band(limit, plot.x.scale.high, f"above {share(search.share)} of the generator's own ceiling", kind="limit")


def _shape(one: ProbeLine) -> Shape:
    return "disc" if one.verdict == "held" else "cross" if one.verdict == "missed" else "ring"


def _bounds_p99(measure: str) -> bool:
    return re.fullmatch(r"(all|\w+)\.p99", measure) is not None and not measure.startswith(("vis", "lag"))


def _lowest_envelope(points: Sequence[Point]) -> list[Point]:
    """One value a rate: the median of several probes of it."""
    by_rate: dict[float, list[float]] = {}
    for rate, value in points:
        by_rate.setdefault(rate, []).append(value)
    return [(rate, sorted(values)[len(values) // 2]) for rate, values in sorted(by_rate.items())]


def _told(one: ProbeLine, name: str, value: float) -> str:
    shown = f"{plain(value)}/s" if name == "achieved" else milliseconds(value)
    missed = ", ".join(f"{clause} ({times} windows)" for clause, times in one.missed.items())
    return f"{one.phase} {plain(one.rate)}/s: {name} {shown}, {one.verdict}" + (f", missed {missed}" if missed else "")


def curve_of(found: Histogram) -> list[Point]:
    """Percent and milliseconds, as far as there are samples."""
    count = found.count
    return [(at, found.percentile_ms(at)) for at in CURVE if count * (1 - at / 100) >= TAIL]


def _told_curve(points: Sequence[Point]) -> str:
    return ", ".join(f"p{at:g} {milliseconds(value)}" for at, value in points if at in (50, 99, 99.9))


def merged(operations: Sequence[Operation], *, service: bool = False) -> Histogram:
    """All operations' latencies together."""
    return Histogram.sum_of(
        (one.service if service else one.latency).histogram for one in operations if one.latency.count
    )
