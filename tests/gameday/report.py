"""The report: a table of all incidents, and the timeline of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.gameday.day import BUSY_S, LONGER, LOOK_S, Result


def write(results: Sequence[Result], path: Path, factor: float, took_s: float) -> None:
    """As Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = sum(bool(one.failed) for one in results)
    lines = [
        "# Game days",
        "",
        f"{len(results)} incidents, {failed} of them not as they must be; {took_s / 60:.1f} minutes on {os.cpu_count()}"
        f" processors, whose load in the last quarter of an hour was {os.getloadavg()[2]:.1f}.",
        "",
        f"The alerts' ranges, offsets, `for` and seconds, and `apply.node_dead_after`, are divided by {factor:g}; where"
        f" incidents share a world, those of alerts that look at hours by {factor * LONGER:g} (tests/gameday/factor.py"
        " says which, and what is not). Times are real seconds since the incident began; in brackets"
        " times the factor, as they would be unhurried. An alert must fire within its stated time and"
        f" {LOOK_S:g} s of looking, divided by the factor, and {BUSY_S:g} real seconds for a busy machine.",
        "",
        "| incident | backend | alert | stated | fired after | over after | others that fired | result |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, results),
    ]
    for one in results:
        lines += ["", f"## {one.incident.name}, {one.backend}", "", one.incident.story, ""]
        if one.failed:
            lines += ["**Missed:**", "", "```", one.failed, "```", ""]
        for line in one.lines:
            lines.append(
                f"- {line.at_s:+.1f} s · {line.who} · {_code(line.what) if line.who == 'runbook' else line.what}"
            )
            if line.said:
                lines += ["", *(f"      {said}" for said in line.said.splitlines()), ""]
        lines += [
            f"- may fire, and why: {alert}: {why}" for alert, why in one.incident.may.items() if alert in one.fired
        ]
    path.write_text("\n".join(lines) + "\n")


def _row(one: Result) -> str:
    incident = one.incident
    others = ", ".join(sorted(one.fired.keys() - {*incident.alerts})) or "none"
    cells = (
        incident.name,
        one.backend,
        ", ".join(incident.alerts),
        f"{incident.stated_s:g} s",
        ", ".join(_after(one, alert) for alert in incident.alerts),
        "never" if one.over_s is None else f"{one.over_s:.1f} s",
        others,
        "MISSED" if one.failed else "ended",
    )
    return f"| {' | '.join(cells)} |"


def _after(one: Result, alert: str) -> str:
    at = one.fired.get(alert)
    return "never" if at is None else f"{at:.1f} s ({at * one.factor_of(alert):.0f} s)"


def _code(text: str) -> str:
    return f"`{text}`"
