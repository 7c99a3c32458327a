"""Real worker processes on a target that answers at once."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from loadgen.engine.bench import Bench
from loadgen.engine.crew import Crew, Progress
from loadgen.plan import RunPlan, TargetPlan, as_config, plan_of
from loadgen.workloads.workload import workload_of

PLAN = RunPlan(
    workload=workload_of("ycsb-a"),
    target=TargetPlan(kind="null"),
    rate=2000.0,
    seconds=2.0,
    warmup_s=1.0,
    processes=2,
    lag_p99_ms_max=5000.0,  # whether this machine is quiet is not what is tested
)


def test_all_that_was_offered_is_achieved_by_all_workers_together() -> None:
    with Bench(PLAN) as bench:
        result = bench.run(PLAN)
    assert result.invalid == []
    assert [window.phase for window in result.windows] == ["warmup", "measured", "measured"]
    assert result.offered_per_s == pytest.approx(2000, rel=0.1)  # Poisson: five standard deviations are 8 %
    assert sum(one.achieved for one in result.operations.values()) == sum(
        one.offered for one in result.operations.values()
    )
    assert result.operations["get"].latency.count == result.operations["get"].offered
    assert len({usage.pid for usage in result.generator}) == 2
    assert plan_of(result.config) == PLAN


def test_one_seed_offers_the_same_twice() -> None:
    with Bench(PLAN) as bench:
        first, again = bench.run(PLAN), bench.run(PLAN)
    offered = [[(w.at_s, {k: o.offered for k, o in w.operations.items()}) for w in r.windows] for r in (first, again)]
    assert offered[0] == offered[1]
    assert first.config_hash == again.config_hash


def test_a_lost_worker_makes_the_run_invalid() -> None:
    plan = msgspec.structs.replace(PLAN, seconds=30.0)
    killed: list[int] = []

    def kill_one(progress: Progress) -> None:
        if not killed and progress.done:
            pid = crew.members[1].pid
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with Crew(plan) as crew:
        crew.start()
        lost = crew.wait(kill_one)
    assert lost == ["worker 1 was lost: killed by SIGKILL"]


def test_a_generator_that_is_too_late_makes_the_run_invalid() -> None:
    plan = msgspec.structs.replace(PLAN, lag_p99_ms_max=1e-6)
    with Bench(plan) as bench:
        result = bench.run(plan)
    assert result.invalid
    assert "say nothing" in result.invalid[0]
    assert all(window.invalid for window in result.measured)


def test_a_closed_loop_runs_as_fast_as_it_can() -> None:
    plan = msgspec.structs.replace(PLAN, loop="closed", rate=5_000_000.0, seconds=1.0, warmup_s=0.0, processes=1)
    with Bench(plan) as bench:
        result = bench.run(plan)
    assert result.invalid == []
    assert result.operations["get"].latency.count > 1000
    assert as_config(plan)["loop"] == "closed"
