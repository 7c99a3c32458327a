"""The page of `check`, `demo` and `faults`: what was promised, what was found, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from loadgen.judge import Figures, Judged, judge
from loadgen.page.pieces import figure, folded, heading, paragraph, tiles, words
from loadgen.page.report import page
from loadgen.page.scale import milliseconds, share
from loadgen.page.timeline import timeline
from loadgen.report import rows, verdict
from loadgen.result import Mark, Window
from loadgen.seconds import seconds_of

ORACLE = (
    "Each read is held against every write that had ended before it began. Strong reads must never be stale; eventual"
    " ones may be, for a while: how many, how old, and for how long after an outage is told below."
)


@dataclass(frozen=True, slots=True)
class Checked:
    """One load that was judged, second by second as well."""

    title: str
    figures: Figures
    windows: Sequence[Window]
    marks: Sequence[Mark]


def checked(title: str, run: Judged) -> Checked:
    """Judge it."""
    return Checked(title, judge(run), seconds_of(run), run.marks)


def save_page(path: Path | None, title: str, parts: Sequence[Checked], failures: Sequence[str]) -> None:
    """Write the page, where one is wanted. Raises `OSError`."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page_of_check(title, parts, failures), encoding="utf-8")


def page_of_check(title: str, parts: Sequence[Checked], failures: Sequence[str]) -> str:
    """The page. `failures`: what was broken, in sentences; the figures of the last part are seen first."""
    figures = parts[-1].figures
    says = f"Broken: {'; '.join(failures)}." if failures else f"{verdict(figures)}."
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph(f"{datetime.now(UTC).isoformat(timespec='seconds')}, {figures.backend}", "soft"),
        paragraph(says, f"verdict {'bad' if failures else 'good'}"),
        tiles(_tiles(figures)),
        paragraph(ORACLE, "soft"),
    ]
    for part in parts:
        body += list(_part(part))
    return page(title, body)


def _tiles(one: Figures) -> list[tuple[str, str]]:
    found = [
        ("strong reads, stale", f"{one.strong_stale:,} of {one.strong_reads:,}"),
        ("eventual reads, stale", share(one.eventual_stale_ratio)),
        ("reads a second", f"{one.reads_per_s:,.0f}"),
        ("hits", share(round(one.hit_ratio, 4))),
        ("p99 of reads", milliseconds(one.p99_ms)),
    ]
    if one.visible_p99_ms is not None:
        found.append(("99 % of changes seen within", milliseconds(one.visible_p99_ms)))
    if one.catchup_s is not None:
        found.append(("caught up after an outage within", milliseconds(one.catchup_s * 1000)))
    return found


def _part(part: Checked) -> Iterator[str]:
    yield heading(part.title, "Seconds since the start of the load.")
    for title, picture in timeline(part):
        yield figure(picture, "", title)
    if part.marks:
        yield folded("What was done", words([(f"{mark.at_s:.1f} s", mark.text) for mark in part.marks]))
    yield words(rows(part.figures))
    if part.figures.examples:
        yield folded("Examples", words([(str(number), line) for number, line in enumerate(part.figures.examples, 1)]))
