"""A checked history as seconds, as the record of a planned run has them: for its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import numpy as np

from loadgen.checker import check
from loadgen.histogram import Histogram
from loadgen.history import Numbers, Reads
from loadgen.judge import Judged, first_versions
from loadgen.record import Source
from loadgen.result import Latency, Operation, Window

NS = 1_000_000_000


def seconds_of(run: Judged) -> list[Window]:
    """One for each second of the load. Reads belong to the second in which they were meant to start; stale ones to
    that in which they did."""
    reads, count = run.history.reads, ceil(run.seconds)
    at = _second(reads.intended, run.start_ns)
    ended = _counts(_second(reads.end[reads.source != Source.ERROR], run.start_ns), count)
    stale = _counts(_second(_stale_starts(run), run.start_ns), count)
    order = np.argsort(at, kind="stable")
    edges = np.searchsorted(at[order], np.arange(count + 1))
    parts = [reads.where(order[low:high]) for low, high in pairwise(edges)]  # type: ignore[arg-type]  # places choose too
    return [_window(second, part, ended[second], stale[second]) for second, part in enumerate(parts)]


def _stale_starts(run: Judged) -> Numbers:
    starts, firsts = [np.zeros(0, dtype=np.int64)], first_versions(run.stage)
    for number, subject in enumerate(run.stage.dataset.subjects):
        reads, writes = run.history.reads.of(number), run.history.writes.of(number)
        starts.append(check(reads, writes, firsts[number], strong=subject.strong).stale_start)
    return np.concatenate(starts)


def _second(times_ns: Numbers, start_ns: int) -> Numbers:
    seconds: Numbers = (times_ns - start_ns) // NS
    return seconds


def _counts(seconds: Numbers, count: int) -> Sequence[int]:
    return np.bincount(seconds[(seconds >= 0) & (seconds < count)], minlength=count).tolist()  # type: ignore[no-any-return]


def _window(at_s: int, reads: Reads, ended: int, stale: int) -> Window:
    fine = reads.where(reads.source != Source.ERROR)
    sources = {one.name.lower(): int((fine.source == one).sum()) for one in Source}
    errors = {"failed": len(reads) - len(fine)} if len(reads) > len(fine) else {}
    waited, served = (Latency.of(Histogram.of(fine.end - since)) for since in (fine.intended, fine.start))
    return Window(
        at_s=at_s,
        phase="measured",
        operations={"read": Operation(len(reads), len(fine), errors, waited, served)},
        sources={name: found for name, found in sources.items() if found},
        lag=Latency(),
        invalid="",
        stale=min(stale, len(fine)),
        checked=len(fine),
        origin_reads=0,
        origin_writes=0,
        generator_cores=0.0,
        ended=ended,
    )
