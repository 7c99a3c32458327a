"""A server that stands still for a second in every ten: what open and closed loops say of it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from loadgen.arrivals import Constant
from loadgen.engine.bench import Bench
from loadgen.plan import RunPlan, TargetPlan
from loadgen.result import RunResult
from loadgen.workloads.workload import Mix, Workload

PERIOD_MS = 10_000.0
QUIET_MS = 3.0
"""A generator that was never later than this had a processor whenever it wanted one."""


class StallingServer:
    """The process, and the pauses that it has told of."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.integration.stalling_server"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"redis://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self) -> list[tuple[int, int]]:
        self._process.terminate()
        out, _ = self._process.communicate()
        return [(int(start), int(end)) for start, end in (line.split() for line in out.splitlines())]


def plan_for(url: str) -> RunPlan:
    """One period is measured, with one pause in it: a tenth of its operations."""
    return RunPlan(
        workload=Workload(name="gets", keys=100, mix=Mix(get=1.0), gaps=Constant()),
        target=TargetPlan(kind="wire", cache_url=url, connections=4, fill=False),
        rate=1000.0,
        seconds=PERIOD_MS / 1000,
        warmup_s=1.0,
        prefill=False,
        lag_p99_ms_max=60_000.0,  # what a late generator does to the figures is told by the test
    )


def run(plan: RunPlan) -> RunResult:
    with Bench(plan) as bench:
        return bench.run(plan)


@pytest.mark.slow
def test_an_open_loop_tells_a_real_stall_and_a_closed_loop_hides_it() -> None:
    """Exactly within 2 %, in virtual time: `unit/test_loadgen_stall.py`. Here with processes, sockets and a machine
    that may be busy: what was meant to start within the pause can only wait longer than to its end, never shorter.
    """
    server, other = StallingServer(), StallingServer()
    try:
        alone = replace(plan_for(other.url).target, connections=1)
        closed_loop = replace(plan_for(other.url), loop="closed", rate=40_000.0, target=alone)
        with ThreadPoolExecutor(2) as pool:
            corrected, uncorrected = pool.map(run, (plan_for(server.url), closed_loop))
    finally:
        pauses, _ = server.close(), other.close()
    assert len(pauses) >= 1
    # As long as it was: an operation that was meant to start within the pause waits for its end.
    pause_ms = (pauses[0][1] - pauses[0][0]) / 1e6
    latency = corrected.operations["get"].latency.histogram
    assert latency.count == corrected.operations["get"].offered
    quiet = corrected.lag.max_ms < QUIET_MS
    for percent in (95.0, 97.0, 99.0, 99.9):
        analytic_ms = pause_ms - (100 - percent) / 100 * PERIOD_MS
        found_ms = latency.percentile_ms(percent)
        assert found_ms >= 0.98 * analytic_ms, f"p{percent}"
        # The generator says itself whether it was in time. Where it was, nothing but the server made anybody wait.
        assert not quiet or found_ms <= 1.02 * analytic_ms + QUIET_MS, f"p{percent}"
    # One operation in ten waited up to a second. The closed loop stood still as well, and asked nothing meanwhile.
    hidden = uncorrected.operations["get"].latency.histogram
    assert hidden.percentile_ms(99) < 0.5 * (pause_ms - 0.01 * PERIOD_MS)
