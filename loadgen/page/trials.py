"""The page of consistency trials: which promise held through which fault, then each fault on its timeline."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from loadgen.page.pieces import figure, folded, heading, paragraph, table, words
from loadgen.page.report import page
from loadgen.page.scale import milliseconds, share
from loadgen.page.timeline import timeline
from loadgen.trials import Trial, Trials

HEAD = (
    *("fault", "verdict", "strong, session and bounded reads", "broke a promise", "eventual reads, stale"),
    *("oldest", "visible p99", "settled after"),
)


def page_of_trials(trials: Trials) -> str:
    """The page."""
    failures = trials.failures
    verdict = f"Broken: {'; '.join(failures)}" if failures else f"Every promise held through {len(trials.trials)} runs."
    parts = [
        f"<h1>{escape(trials.label)}</h1>",
        paragraph(verdict, f"verdict {'bad' if failures else 'good'}"),
        heading(
            "What held, and what did it cost?",
            "Strong reads must never be stale, a session's never older than what it has seen or written, bounded ones"
            " never beyond their bound. Eventual ones may be stale, for a while.",
        ),
        table(HEAD, [cells(one) for one in trials.trials]),
    ]
    for one in trials.trials:
        parts += list(_trial(one))
    return page(trials.label, parts)


def cells(trial: Trial) -> tuple[str, ...]:
    """A row for one fault."""
    found = trial.run.consistency
    levels = {one.level: one for one in found.levels} if found else {}
    oldest = max((one.age.max_ms for one in found.stale), default=0.0) if found else 0.0
    seen = found.visibility.lag if found else None
    eventual = levels.pop("eventual", None)
    return (
        trial.fault,
        "broken" if trial.failures else "held",
        ", ".join(f"{levels[name].reads if name in levels else 0:,}" for name in ("strong", "session", "bounded")),
        f"{sum(one.broken for one in levels.values()):,}",
        f"{eventual.reads:,}, {share(eventual.stale / eventual.reads)}" if eventual else "–",
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
