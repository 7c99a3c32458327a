"""From a worker's lanes to frames: each second's histograms and counts. Done after the run, by numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loadgen.engine.frames import Counted, Part, Second
from loadgen.engine.lane import SOURCES, Lane, Outcome
from loadgen.histogram import Histogram
from loadgen.workloads.workload import OPERATIONS

Numbers = NDArray[np.int64]
NOT_STARTED = "NotStarted"
"""The error of an operation that was offered and had not begun when the run ended."""
NOT_ENDED = "NotEnded"


class Tally:
    """All lanes of one worker as one table, in the order of their intended starts."""

    def __init__(self, lanes: Sequence[Lane], start_ns: int, *, closed: bool) -> None:
        parts = [_rows(lane, number, start_ns, closed=closed) for number, lane in enumerate(lanes)]
        rows = np.concatenate(parts) if parts else np.zeros((0, 8), dtype=np.int64)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        self._second, self._kind, self._outcome = rows[:, 0], rows[:, 1], rows[:, 2]
        self._latency, self._service, self._lag, self._lane = rows[:, 3], rows[:, 4], rows[:, 5], rows[:, 6]
        self._ended = rows[rows[:, 2] > 0][:, 7]
        self._errors = [lane.errors for lane in lanes]
        self._many: Counter[tuple[int, int]] = Counter()
        for lane in lanes:
            self._many.update(lane.sources)

    def seconds(self) -> Iterator[Second]:
        """One frame for each second in which anything was offered."""
        for at_s in np.unique(self._second).tolist():
            low, high = np.searchsorted(self._second, [at_s, at_s + 1]).tolist()
            yield self._frame(at_s, slice(low, high))

    def ended(self) -> dict[int, int]:
        """How many operations ended without an error, by the second in which they ended."""
        seconds, counts = np.unique(self._ended, return_counts=True)
        return dict(zip(seconds.tolist(), counts.tolist(), strict=True))

    def _frame(self, at_s: int, rows: slice) -> Second:
        kinds, outcomes, lags = self._kind[rows], self._outcome[rows], self._lag[rows]
        parts = {
            OPERATIONS[kind]: self._part(rows.start + np.flatnonzero(kinds == kind))
            for kind in np.unique(kinds).tolist()
        }
        sources = {name: int((outcomes == one).sum()) for one, name in SOURCES.items()}
        for (second, outcome), count in self._many.items():
            if second == at_s:
                sources[SOURCES[Outcome(outcome)]] += count
        started = lags[lags >= 0]
        return Second(at_s, parts, {name: count for name, count in sources.items() if count}, _counted(started))

    def _part(self, places: Numbers) -> Part:
        outcomes = self._outcome[places]
        fine = places[outcomes > 0]
        return Part(
            offered=len(places),
            achieved=len(fine),
            errors=self._failures(places[outcomes <= 0]),
            latency=_counted(self._latency[fine]),
            service=_counted(self._service[fine]),
        )

    def _failures(self, places: Numbers) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for lane, outcome, begun in zip(
            self._lane[places].tolist(), self._outcome[places].tolist(), (self._lag[places] >= 0).tolist(), strict=True
        ):
            if outcome < 0:
                counts[self._errors[lane][-1 - outcome]] += 1
            else:
                counts[NOT_ENDED if begun else NOT_STARTED] += 1
        return dict(counts)


def _rows(lane: Lane, number: int, start_ns: int, *, closed: bool) -> Numbers:
    """Second, kind, outcome, latency, service, lag (-1: never began), the lane's number, the second of the end."""
    columns = lane.columns()
    start, end, outcome = columns["start"], columns["end"], columns["outcome"]
    intended = start if closed else lane.at_ns
    chosen = start > 0 if closed else np.ones(len(start), dtype=np.bool_)
    lag = np.zeros(len(start), dtype=np.int64) if closed else np.maximum(start - lane.due_ns(), 0)
    lag[start == 0] = -1
    second = (intended - start_ns) // 1_000_000_000
    outcome = np.where(end > 0, outcome, 0)
    lanes, ended = np.full_like(second, number), (end - start_ns) // 1_000_000_000
    columns_of = (second, lane.operations.kind, outcome, end - intended, end - start, lag, lanes, ended)
    return np.stack(columns_of, axis=1)[chosen]


def _counted(values_ns: Numbers) -> Counted:
    histogram = Histogram.of(values_ns)
    return Counted(histogram.index.tobytes(), histogram.counts.tobytes())


def histogram_of(counted: Counted) -> Histogram:
    """From a frame."""
    return Histogram(np.frombuffer(counted.index, dtype=np.int64), np.frombuffer(counted.counts, dtype=np.int64))
