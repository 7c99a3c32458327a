"""What the verifier says of itself: for `/status`, as the JSON report, and as text for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from invalidator.metrics import Metrics
from invalidator.settings import HttpSettings
from invalidator.verifier.findings import Finding
from invalidator.verifier.service import Verifier

_COLUMNS = ("after", "asked", "served", "stale", "empty", "unresolved", "moved", "unreadable", "unanswered")


class VerifierOverview:
    """`status.Watched` over the verifier."""

    def __init__(
        self, verifier: Verifier, settings: HttpSettings, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._verifier = verifier
        self._settings = settings
        self._clock_s = clock_s

    @property
    def metrics(self) -> Metrics:
        """See `Watched.metrics`."""
        return self._verifier.metrics

    def healthy(self) -> bool:
        """See `Watched.healthy`."""
        return self._clock_s() - self._verifier.beat_s < self._settings.stalled_after_s

    def ready(self) -> bool:
        """See `Watched.ready`."""
        return self._verifier.ready and not self._verifier.store_error

    def status(self) -> dict[str, Any]:
        """See `Watched.status`."""
        verifier = self._verifier
        return {
            "what": "verifier",
            "ready": self.ready(),
            "healthy": self.healthy(),
            "problems": self._problems(),
            "store_error": verifier.store_error,
            **report(verifier, self._clock_s()),
        }

    def _problems(self) -> list[str]:
        verifier = self._verifier
        found = [f"The store does not answer: {verifier.store_error}"] if verifier.store_error else []
        found += [f"Node {node.name} does not answer: {node.error}" for node in verifier.world.nodes if node.error]
        last = verifier.findings.last
        if verifier.findings.alarms and last is not None:
            found.append(f"A cache serves what the store no longer has; last {said(last)}")
        return found


def report(verifier: Verifier, now_s: float) -> dict[str, Any]:
    """Everything that was counted and found, JSON. Any thread may ask."""
    findings, referee = verifier.findings, verifier.referee
    return {
        "verdict": "stale" if findings.alarms else "fine",
        "seconds": round(now_s - verifier.began_s, 1),
        "changes": verifier.changes,
        "chosen": verifier.chosen,
        "checks": verifier.tallies.checks,
        "waiting": len(verifier.ladder),
        "refused": verifier.refused,
        "gaps": verifier.gaps,
        "hot_keys": len(verifier.hot),
        "late_s_max": round(verifier.tallies.late_s_max, 3),
        "store_loads": referee.loads,
        "store_loads_failed": referee.failed_loads,
        "suspects_waiting": len(referee),
        "ages": verifier.tallies.rows(),
        "stale": findings.number,
        "stale_keys": findings.keys,
        "alarms": findings.alarms,
        "first": findings.first.plain() if findings.first else None,
        "last": findings.last.plain() if findings.last else None,
        "recent": [one.plain() for one in list(findings.recent)],
    }


def told(verifier: Verifier, now_s: float) -> Iterator[str]:
    """The report as a person reads it; the last line is the verdict."""
    found = report(verifier, now_s)
    yield "  ".join(f"{name:>10}" for name in (*_COLUMNS, "nines"))
    for row in found["ages"]:
        sure = f"{row['nines']:.1f}" if row["stale"] else f">= {row['nines_at_least']:.1f}" if row["served"] else "-"
        yield "  ".join(f"{text!s:>10}" for text in (*(row[name] for name in _COLUMNS), sure))
    yield (
        f"{found['checks']} answers to {found['chosen']} of {found['changes']} changes in {found['seconds']} s;"
        f" the store was asked for {found['store_loads']} keys; asked up to {found['late_s_max']} s late"
    )
    for name in ("first", "last"):
        one: Finding | None = getattr(verifier.findings, name)
        if one is not None:
            yield f"{name} stale: {said(one)}"
    stale = f"{found['stale']} stale answers of {found['stale_keys']} keys"
    yield f"verdict: {found['verdict']}, {stale}, {found['alarms']} of them alarms"


def said(finding: Finding) -> str:
    """One finding in a sentence."""
    known, truth, item = finding.check.known, finding.truth, finding.item
    store = f"version {truth.version}" if truth.found else "no row"
    return (
        f"{finding.check.text.decode()} on {finding.node}, {finding.after} after version {known.version}:"
        f" it serves {item.content.kind.name.lower()} of version {item.version} (floor {item.floor}),"
        f" the store has {store}; {finding.difference}, {finding.why}"
    )
