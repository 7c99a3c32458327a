"""A server that stands still for a second in every ten, in virtual time: what the two views say of it, exactly.

The loop, the tally and the histograms are those of every run; only the clock is not. An operation that was meant
to start within the pause waits for its end, so of a period T with a pause P the percentile q is P - (1 - q) T.
"""

from __future__ import annotations

import numpy as np
import pytest

from loadgen.engine import pace
from loadgen.engine.lane import Lane, Outcome
from loadgen.engine.pace import Shift, run_closed, run_open
from loadgen.engine.tally import Tally, histogram_of
from loadgen.histogram import Histogram
from loadgen.workloads.draws import Operations
from loadgen.workloads.workload import GET, OPERATIONS

NS = 1_000_000_000
PERIOD_MS, PAUSE_MS = 10_000.0, 1000.0
SERVICE_NS = 100_000
RATE, PERIODS = 1000, 3
LENGTH_S = int(PERIODS * PERIOD_MS / 1000)
PAUSE_AT_NS = 4 * NS


class Clock:
    """Time passes only where somebody waits, or the server works or stands still."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> int:
        return self.ns

    def serve(self, _place: int, _key: int) -> int:
        into_ns = self.ns % int(PERIOD_MS * 1e6) - PAUSE_AT_NS
        if 0 <= into_ns < PAUSE_MS * 1e6:
            self.ns += int(PAUSE_MS * 1e6) - into_ns
        self.ns += SERVICE_NS
        return Outcome.HIT


class VirtualShift(Shift):
    """Waits by moving the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(10 * LENGTH_S * NS)
        self._clock = clock

    def wait_until(self, at_ns: int) -> int:
        self._clock.ns = max(self._clock.ns, at_ns)
        return self._clock.ns


def measured(monkeypatch: pytest.MonkeyPatch, *, closed: bool) -> tuple[Histogram, Histogram, Histogram]:
    """Latency, service and lag of all that was done."""
    clock = Clock()
    monkeypatch.setattr(pace, "now_ns", clock.now)
    count = LENGTH_S * (10 * RATE if closed else RATE)
    at_s = np.arange(count) / (10 * RATE if closed else RATE)
    gets = Operations(at_s, np.full(count, GET), np.zeros(count, dtype=np.int64), np.arange(count + 1))
    lane = Lane(gets, in_order=True)
    lane.begin(0)
    calls = [clock.serve] * len(OPERATIONS)
    if closed:
        run_closed(lane, calls, VirtualShift(clock), LENGTH_S * NS)
    else:
        run_open(lane, calls, VirtualShift(clock))
    seconds = list(Tally([lane], 0, closed=closed).seconds())
    parts = [part for second in seconds for part in second.operations.values()]
    views = ([part.latency for part in parts], [part.service for part in parts], [second.lag for second in seconds])
    latency, service, lag = (Histogram.sum_of(map(histogram_of, view)) for view in views)
    return latency, service, lag


def test_an_open_loop_tells_a_stall_within_two_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    latency, service, lag = measured(monkeypatch, closed=False)
    for percent in (92.0, 95.0, 97.0, 99.0, 99.9):
        # What came later waits less, but for those that queued before it: each is one service more.
        analytic_ms = PAUSE_MS - (100 - percent) / 100 * PERIOD_MS * (1 - SERVICE_NS / NS * RATE)
        assert latency.percentile_ms(percent) == pytest.approx(analytic_ms, rel=0.02), f"p{percent}"
    assert latency.percentile_ms(50) == pytest.approx(SERVICE_NS / 1e6, rel=0.02)
    # Uncorrected, of the same operations: one in ten thousand waited.
    assert service.percentile_ms(99.9) < 0.002 * PAUSE_MS
    # The server stood still, not the generator.
    assert lag.max_ms < 0.001


def test_a_closed_loop_hides_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    latency, service, _ = measured(monkeypatch, closed=True)
    assert latency.percentile_ms(99.9) < 0.002 * PAUSE_MS
    assert service.percentile_ms(100) == pytest.approx(PAUSE_MS, rel=0.02)
