"""The page of a comparison: two runs beside each other, and which differences are more than noise."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from loadgen.compare import Change, Compared, Comparison
from loadgen.page.charts import beside
from loadgen.page.pieces import figure, heading, paragraph, table, words
from loadgen.page.report import page
from loadgen.result import RunResult

HEAD = ("figure", "A", "B", "B / A", "95 % interval", "")
WORDS = {Change.WORSE: "WORSE", Change.BETTER: "better", Change.SAME: "no difference", Change.SMALL: "within tolerance"}
PICTURES = 3
"""Of so many operations, the busiest first."""
METHOD = (
    "The interval is a bootstrap over blocks of seconds: it knows of what differs within the runs, not of what differs"
    " between days. A regression is an interval that lies wholly beyond the tolerance."
)


def page_of_comparison(a: RunResult, b: RunResult, found: Comparison, tolerance: float) -> str:
    """The page."""
    names = ", ".join(one.name for one in found.regressions)
    verdict = f"Worse by more than {tolerance:.0%}: {names}" if names else "Nothing got worse."
    title = f"{b.label} against {a.label}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        words([("A", _told(a)), ("B", _told(b))]),
        paragraph(verdict, f"verdict {'bad' if names else 'good'}"),
        *(paragraph(f"Note: {note}", "soft") for note in found.notes),
        heading("What changed?", METHOD),
        table(HEAD, map(cells, found.figures)),
        heading("How slow are the slow ones?", "From the intended start; the axis is in nines."),
        *_pictures(a, b),
    ]
    return page(title, parts)


def cells(one: Compared) -> tuple[str, ...]:
    """A row for one figure."""
    a, b = (f"{value:.3g} {one.unit}".strip() for value in (one.a, one.b))
    return one.name, a, b, f"{one.ratio:.3f}", f"{one.low:.3f} to {one.high:.3f}", WORDS[one.change]


def _told(run: RunResult) -> str:
    return f"{run.label}, {run.started}, {run.offered_per_s:,.0f}/s for {run.seconds:g} s on {run.host.name}"


def _pictures(a: RunResult, b: RunResult) -> Iterator[str]:
    common = a.operations.keys() & b.operations.keys()
    for name in sorted(common, key=lambda one: (-a.operations[one].achieved, one))[:PICTURES]:
        latencies = [(label, run.operations[name].latency) for label, run in (("A", a), ("B", b))]
        yield figure(beside(name, latencies), "", name)
