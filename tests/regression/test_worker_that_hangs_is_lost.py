"""A worker that ran and never reported was not counted as lost: its part of the load was silently missing.

The run was invalid only where nobody else had measured anything. Should have been caught by the test of a worker
that is killed (`tests/integration/test_loadgen_null.py`): one that hangs is lost as well.
"""

from __future__ import annotations

import os
import signal

import pytest

from loadgen.engine import crew as module
from loadgen.engine.crew import Crew, Progress
from loadgen.plan import RunPlan, TargetPlan
from loadgen.workloads.workload import workload_of

PLAN = RunPlan(
    workload=workload_of("ycsb-a"),
    target=TargetPlan(kind="null"),
    rate=500.0,
    seconds=1.0,
    warmup_s=0.0,
    processes=2,
    lag_p99_ms_max=60_000.0,
)


def test_worker_that_hangs_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    monkeypatch.setattr(module, "REPORT_S", 0.5)
    stopped: list[int] = []

    def stop_one(_: Progress) -> None:
        if not stopped:
            stopped.append(crew.members[1].pid)
            os.kill(stopped[0], signal.SIGSTOP)

    with Crew(PLAN) as crew:
        crew.start()
        lost = crew.wait(stop_one)
    assert any(one == "worker 1 was lost: it did not report within 1 s" for one in lost)
