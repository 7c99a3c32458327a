"""The part of a report that says how old what readers saw was, and which promises held."""

from __future__ import annotations

from collections.abc import Iterator

from loadgen.page import charts
from loadgen.page.pieces import figure, heading, paragraph, table, words
from loadgen.page.scale import milliseconds, share
from loadgen.result import Consistency, LevelFound, RunResult


def staleness(result: RunResult) -> Iterator[str]:
    """The part of the page; nothing where there is no oracle."""
    found = result.consistency
    if found is None:
        return
    lead = "A read is stale if a newer value had been committed before the read began."
    yield heading("How old is what readers see?", lead)
    if found.visibility.lag.count:
        gap = milliseconds(found.visibility.poll_gap_ms)
        caption = f"{found.visibility.lag.count:,} changes; looked at every {gap}, which is the resolution."
        if found.visibility.unseen:
            caption += f" {found.visibility.unseen:,} changes had not been seen when the run ended."
        yield figure(charts.visibility_curve(result), caption, "Changes become visible")
    if any(one.age.count for one in found.stale):
        caption = f"{found.ratio.part:,} of {found.ratio.whole:,} reads that were checked were stale."
        yield figure(charts.stale_ages(result), caption, "Age of stale reads")
    else:
        most = share(found.ratio.high)
        yield paragraph(f"None of {found.ratio.whole:,} reads was stale: with 95 %, fewer than {most} are.")
    if found.nines:
        yield table(
            ("stale no later than", "writes", "late", "nines", "could be shown"),
            [
                (f"{one.within_s:g} s", f"{one.writes:,}", f"{one.late:,}", f"{one.nines:.1f}", f"{one.resolvable:.1f}")
                for one in found.nines
            ],
        )
    yield from _levels(found)
    yield words(
        (
            ("went backwards", f"{found.backwards:,} reads were older than what the same thread had read before"),
            ("own writes missed", f"{found.own_missed:,} reads were older than what the same thread had written"),
            ("wrong values", f"{found.wrong:,}"),
        )
    )


def _levels(found: Consistency) -> Iterator[str]:
    """By level and source, and what each level promised."""
    yield table(
        ("level, source", "reads", "stale", "share (95 %)", "age p50", "age max", "versions behind"),
        [
            (
                f"{one.level}, {one.source}",
                f"{one.ratio.whole:,}",
                f"{one.ratio.part:,}",
                f"{share(one.ratio.share)} ({_rough(one.ratio.low)} to {_rough(one.ratio.high)})",
                milliseconds(one.age.p50_ms) if one.age.count else "–",
                milliseconds(one.age.max_ms) if one.age.count else "–",
                f"{one.behind_max}",
            )
            for one in found.stale
        ],
    )
    if found.levels:
        yield table(
            ("level", "reads", "stale", "went backwards", "own writes missed", "beyond the bound", "broke its promise"),
            [(one.level, *(f"{count:,}" for count in _counts(one))) for one in found.levels],
        )


def _rough(value: float) -> str:
    """The end of an interval: two figures say enough."""
    return share(float(f"{value:.2g}"))


def _counts(one: LevelFound) -> tuple[int, ...]:
    return one.reads, one.stale, one.backwards, one.own_missed, one.beyond, one.broken
