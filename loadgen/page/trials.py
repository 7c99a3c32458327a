"""The page of consistency trials: which promise held through which fault, then each fault on its timeline."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from loadgen.page.pieces import figure, folded, heading, paragraph, table, words
from loadgen.page.report import page
from loadgen.page.scale import milliseconds, share
from loadgen.page.timeline import timeline
from loadgen.trials import Trial, Trials

HEAD = ("fault", "verdict", "strong reads, stale", "eventual reads, stale", "oldest", "visible p99", "settled after")


def page_of_trials(trials: Trials) -> str:
    """The page."""
    failures = trials.failures
    verdict = f"Broken: {'; '.join(failures)}" if failures else f"Every promise held through {len(trials.trials)} runs."
    parts = [
        f"<h1>{escape(trials.label)}</h1>",
        paragraph(verdict, f"verdict {'bad' if failures else 'good'}"),
        heading(
            "What held, and what did it cost?", "Strong reads must never be stale. Eventual ones may be, for a while."
        ),
        table(HEAD, [cells(one) for one in trials.trials]),
    ]
    for one in trials.trials:
        parts += list(_trial(one))
    return page(trials.label, parts)


def cells(trial: Trial) -> tuple[str, ...]:
    """A row for one fault."""
    found = trial.run.consistency
    reads, stale, oldest = {"strong": 0, "eventual": 0}, {"strong": 0, "eventual": 0}, 0.0
    for one in found.stale if found else ():
        reads[one.level] = reads.get(one.level, 0) + one.ratio.whole
        stale[one.level] = stale.get(one.level, 0) + one.ratio.part
        oldest = max(oldest, one.age.max_ms)
    seen = found.visibility.lag if found else None
    eventual = share(stale["eventual"] / reads["eventual"]) if reads["eventual"] else "–"
    return (
        trial.fault,
        "broken" if trial.failures else "held",
        f"{reads['strong']:,}, {stale['strong']:,}",
        f"{reads['eventual']:,}, {eventual}",
        milliseconds(oldest) if oldest else "–",
        milliseconds(seen.p99_ms) if seen and seen.count else "–",
        "never" if trial.settled_s is None else f"{trial.settled_s:.2f} s",
    )


def _trial(trial: Trial) -> Iterator[str]:
    yield heading(trial.fault, trial.text)
    for failure in trial.failures:
        yield paragraph(failure, "verdict bad")
    for title, picture in timeline(trial.run):
        yield figure(picture, "", title)
    if trial.run.marks:
        yield folded("What was done", words([(f"{mark.at_s:.1f} s", mark.text) for mark in trial.run.marks]))
    if trial.examples:
        yield folded("Examples", words([(str(number), line) for number, line in enumerate(trial.examples, 1)]))
