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

ATTEMPTS = 2
PERIOD_MS = 10_000.0


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
    """Exactly one period is measured, so a tenth of its operations meet the pause wherever it lies in it."""
    return RunPlan(
        workload=Workload(name="gets", keys=100, mix=Mix(get=1.0), gaps=Constant()),
        target=TargetPlan(kind="wire", cache_url=url, connections=4, fill=False),
        rate=1000.0,
        seconds=PERIOD_MS / 1000,
        warmup_s=1.0,
        prefill=False,
        lag_p99_ms_max=10.0,
        invalid_share_max=0.4,
    )


def run(plan: RunPlan) -> RunResult:
    with Bench(plan) as bench:
        return bench.run(plan)


@pytest.mark.slow
def test_an_open_loop_tells_a_stall_within_two_percent_and_a_closed_loop_hides_it() -> None:
    for _ in range(ATTEMPTS):
        server = StallingServer()
        try:
            open_loop = plan_for(server.url)
            alone = replace(open_loop.target, connections=1)
            closed_loop = replace(open_loop, loop="closed", rate=40_000.0, target=alone)
            with ThreadPoolExecutor(2) as pool:
                corrected, uncorrected = pool.map(run, (open_loop, closed_loop))
        finally:
            pauses = server.close()
        if not corrected.invalid:
            break
    else:
        pytest.skip(f"the generator was too late {ATTEMPTS} times, as it says itself: {corrected.invalid[0]}")
    assert len(pauses) >= 1
    # As long as it was: an operation that was meant to start within the pause waits for its end.
    pause_ms = (pauses[0][1] - pauses[0][0]) / 1e6
    latency = corrected.operations["get"].latency.histogram
    for percent in (95.0, 97.0, 99.0, 99.9):
        analytic_ms = pause_ms - (100 - percent) / 100 * PERIOD_MS
        assert latency.percentile_ms(percent) == pytest.approx(analytic_ms, rel=0.02), f"p{percent}"
    assert latency.percentile_ms(50) < 20
    # One operation in ten waited up to a second. The closed loop stood still as well, and asked nothing meanwhile.
    hidden = uncorrected.operations["get"].latency.histogram
    assert hidden.percentile_ms(99) < 0.1 * (pause_ms - 0.01 * PERIOD_MS)
