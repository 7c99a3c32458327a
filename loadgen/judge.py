"""From a finished run to its figures and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadgen.checker import EXAMPLES, Findings, check, lost_writes
from loadgen.history import History, Numbers, Reads
from loadgen.record import Source
from loadgen.result import Mark
from loadgen.runner import Progress
from loadgen.settle import Settled
from loadgen.stage import Stage
from loadgen.visibility import Outage, catch_up_s, visibility

OBJECTIVE_FAILED = 1
USAGE = 2
INVALID = 3


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run measured; the README says how each is defined. None: there was nothing to measure."""

    backend: str
    seconds: float
    reads: int
    reads_per_s: float
    hit_ratio: float
    p50_ms: float
    p99_ms: float
    service_p50_ms: float
    service_p99_ms: float
    late_p99_ms: float
    by_source: dict[str, int]
    writes: int
    writes_behind: int
    writes_per_s: float
    store_loads: int
    loads_without_leases: int
    strong_reads: int
    strong_hit_ratio: float
    strong_stale: int
    strong_backwards: int
    eventual_reads: int
    eventual_stale: int
    eventual_stale_ratio: float
    eventual_stale_age_p50_ms: float | None
    eventual_stale_age_max_ms: float | None
    eventual_behind_max: int
    eventual_backwards: int
    wrong_values: int
    misordered_writes: int
    lost_writes: int
    visible_p50_ms: float | None
    visible_p99_ms: float | None
    visible_probes: int
    visible_unseen: int
    poll_gap_ms: float
    outages: int
    catchup_s: float | None
    settled: bool
    settled_s: float | None
    compared_keys: int
    cached_keys: int
    differing_keys: int
    errors: dict[str, int]
    failures: tuple[str, ...]
    """Each objective that was missed, in a sentence; none: passed."""
    examples: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 where an objective was missed."""
        return OBJECTIVE_FAILED if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished run."""

    stage: Stage
    history: History
    progress: Progress
    settled: Settled
    seconds: float
    outages: Sequence[Outage] = ()
    marks: Sequence[Mark] = ()
    start_ns: int = 0
    """Of the load, on the monotonic clock; marks count from it."""


def judge(run: Judged) -> Figures:
    """Every figure, and what they mean."""
    strong, eventual = Findings(), Findings()
    lost: list[str] = []
    history, firsts = run.history, first_versions(run.stage)
    for number, subject in enumerate(run.stage.dataset.subjects):
        reads, writes = history.reads.of(number), history.writes.of(number)
        found = check(reads, writes, firsts[number], strong=subject.strong)
        lost += lost_writes(writes, rows_by_number(run.stage, number))
        strong, eventual = (found, eventual) if subject.strong else (strong, found)
    return _figures(run, strong, eventual, lost)


def _figures(run: Judged, strong: Findings, eventual: Findings, lost: list[str]) -> Figures:
    settled = run.settled
    return Figures(
        backend=run.stage.backend,
        seconds=round(run.seconds, 1),
        **_traffic(run),
        **_staleness(strong, eventual),
        **_visibility(run),
        lost_writes=len(lost),
        outages=len(run.outages),
        catchup_s=_rounded(catch_up_s(eventual, run.outages)),
        settled=settled.seconds is not None,
        settled_s=settled.seconds,
        compared_keys=settled.compared,
        cached_keys=settled.cached,
        differing_keys=len(settled.differing),
        errors=dict(run.progress.errors),
        failures=tuple(_failures(strong, eventual, lost, settled)),
        examples=tuple(_examples(strong, eventual, lost, settled)),
    )


def _traffic(run: Judged) -> dict[str, Any]:
    """How much was done, how fast, and from where."""
    reads, progress = run.history.reads, run.progress
    return {
        "reads": len(reads),
        "reads_per_s": round(len(reads) / run.seconds, 1),
        "hit_ratio": _ratio(int((reads.source == Source.HIT).sum()), len(reads)),
        **_latencies(reads),
        "by_source": {one.name.lower(): count for one in Source if (count := int((reads.source == one).sum()))},
        "writes": progress.writes.total(),
        "writes_behind": progress.writes["behind"] + progress.writes["probe"],
        "writes_per_s": round(progress.writes.total() / run.seconds, 1),
        "store_loads": progress.counters["store_loads"],
        "loads_without_leases": progress.counters["loads_without_leases"],
    }


def _staleness(strong: Findings, eventual: Findings) -> dict[str, Any]:
    """What the checker found."""
    return {
        "strong_reads": strong.reads,
        "strong_hit_ratio": _ratio(strong.hits, strong.reads),
        "strong_stale": strong.stale,
        "strong_backwards": strong.backwards,
        "eventual_reads": eventual.reads,
        "eventual_stale": eventual.stale,
        "eventual_stale_ratio": _ratio(eventual.stale, eventual.reads),
        "eventual_stale_age_p50_ms": percentile(eventual.age_ms, 50),
        "eventual_stale_age_max_ms": percentile(eventual.age_ms, 100),
        "eventual_behind_max": eventual.behind_max,
        "eventual_backwards": eventual.backwards,
        "wrong_values": strong.wrong + eventual.wrong,
        "misordered_writes": strong.misordered + eventual.misordered,
    }


def _visibility(run: Judged) -> dict[str, Any]:
    """What the probers found, on the table that they may write to."""
    behind = next(number for number, subject in enumerate(run.stage.dataset.subjects) if subject.behind)
    history, first = run.history, first_versions(run.stage)[behind]
    seen = visibility(
        history.reads.of(behind), history.probes.of(behind), history.writes.of(behind), first, run.outages
    )
    return {
        "visible_p50_ms": percentile(seen.seen_ms, 50),
        "visible_p99_ms": percentile(seen.seen_ms, 99),
        "visible_probes": len(seen.seen_ms),
        "visible_unseen": seen.unseen,
        "poll_gap_ms": round(seen.poll_gap_ms, 2),
    }


def _failures(strong: Findings, eventual: Findings, lost: list[str], settled: Settled) -> list[str]:
    wrong = strong.wrong + eventual.wrong
    missed = [
        (strong.stale, "strong reads were stale"),
        (strong.backwards, "strong reads went backwards"),
        (wrong, "reads returned a wrong value"),
        (strong.misordered + eventual.misordered, "writes drew a lower version than one that had ended before"),
        (len(lost), "acknowledged writes are not in the store"),
        (len(settled.differing), "keys never agreed with the store after the load"),
    ]
    return [f"{count} {what}" for count, what in missed if count]


def _examples(strong: Findings, eventual: Findings, lost: list[str], settled: Settled) -> list[str]:
    """A few of each, for whoever wants to know which."""
    wrong = [line for line in eventual.examples if line.startswith("wrong")]
    return [*strong.examples, *wrong, *lost[:EXAMPLES], *settled.differing[:EXAMPLES]]


def first_versions(stage: Stage) -> list[Numbers]:
    """By subject and key number, the version before the run."""
    return [
        np.asarray([first.get(key, 0) for key in keys], dtype=np.int64)
        for keys, first in zip(stage.keys, stage.first, strict=True)
    ]


def rows_by_number(stage: Stage, subject: int) -> dict[int, tuple[int, int]]:
    """The store's rows by key number."""
    rows = stage.rows(stage.dataset.subjects[subject])
    return {number: rows[key] for number, key in enumerate(stage.keys[subject]) if key in rows}


def _latencies(reads: Reads) -> dict[str, float]:
    """From the intended start, and from the actual one; of reads that did not fail."""
    reads = reads.where(reads.source != Source.ERROR)
    waited, served = (reads.end - reads.intended) / 1e6, (reads.end - reads.start) / 1e6
    late = (reads.start - reads.intended) / 1e6
    return {
        "p50_ms": percentile(waited, 50) or 0.0,
        "p99_ms": percentile(waited, 99) or 0.0,
        "service_p50_ms": percentile(served, 50) or 0.0,
        "service_p99_ms": percentile(served, 99) or 0.0,
        "late_p99_ms": percentile(late, 99) or 0.0,
    }


def percentile(values: Any, share: float) -> float | None:
    """Rounded; None of nothing."""
    return _rounded(float(np.percentile(values, share))) if len(values) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
