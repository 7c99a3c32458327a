"""What a plan means for one worker: the keys there are, and its part of what is asked of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadgen.arrivals import Starts
from loadgen.plan import RunPlan
from loadgen.workloads.draws import Draws, Operations
from loadgen.workloads.formats import read_trace
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.replayed import TraceSpace
from loadgen.workloads.trace import replay


def space_of(plan: RunPlan) -> KeySpace:
    """The keys, the same in every process. Raises `BadTrace`, `ConfigError`."""
    if plan.trace is None:
        return KeySpace(plan.workload, plan.data_seed)
    trace = read_trace(Path(plan.trace.path), plan.trace.format, plan.trace.rows)
    return TraceSpace(plan.workload, plan.data_seed, trace)


def operations_of(plan: RunPlan, space: KeySpace, worker: int) -> Operations:
    """All that one worker is to do."""
    if isinstance(space, TraceSpace) and space.trace is not None and plan.trace is not None:
        whole = replay(
            space.trace, factor=plan.trace.factor, rate_per_s=plan.trace.rate, worker=worker, workers=plan.processes
        )
        return whole.first_ones(int(np.searchsorted(whole.at_s, plan.length_s)))
    gaps = plan.gaps or plan.workload.gaps
    part = {"seed": plan.seed, "worker": worker, "workers": plan.processes}
    starts = Starts(gaps, plan.profile, plan.rate, plan.length_s, **part)
    return Draws(space, **part).at(starts.all())
