"""How large a cache to buy: what an item costs, and how many reads each size would miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from loadgen.engine.share import space_of
from loadgen.memory import ItemCost
from loadgen.missratio import Curve, Requests, miss_ratio_curve
from loadgen.plan import RunPlan
from loadgen.workloads.draws import Draws
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.replayed import TraceSpace
from loadgen.workloads.trace import replay
from loadgen.workloads.workload import DELETE, INSERT, RMW, SET

HIT_RATIOS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
CHUNK = 200_000
SIZE_SCHEMA = "loadgen-size/1"


@dataclass(frozen=True, slots=True)
class Choice:
    """A size and what comes of it. `origin_per_s`: loads of the store at the rate that was asked of."""

    hit_ratio: float
    bytes: float
    items: float
    origin_per_s: float


class SizeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a sizing: `bytes` and `miss` are the curve."""

    format: str = SIZE_SCHEMA
    label: str
    backend: str
    workload: str
    rate: float
    reads_share: float
    requests: int
    item_bytes: float
    key_bytes: float
    value_bytes: float
    overhead_bytes: float
    items_measured: int
    footprint_bytes: float
    least_miss: float
    """Of a cache without end: first reads, absent keys, expired items."""
    bytes: list[float]
    miss: list[float]
    choices: list[Choice]


def size_of(plan: RunPlan, cost: ItemCost, requests: int) -> SizeResult:
    """For a plan's workload at its rate."""
    space = space_of(plan)
    drawn = traced_requests(space, plan) if isinstance(space, TraceSpace) else drawn_requests(plan, space, requests)
    item_bytes = cost.overhead + cost.key + space.value_bytes.astype(np.float64)
    curve = miss_ratio_curve(drawn, item_bytes, space.ttl_s.astype(np.float64))
    reads_share = float((~drawn.write & ~drawn.gone).mean())
    name = Path(plan.trace.path).name if plan.trace else plan.workload.name
    rate = len(drawn) / max(1.0, float(drawn.at_s[-1])) if plan.trace else plan.rate
    return SizeResult(
        label=f"Size of {name} on {cost.backend}",
        backend=cost.backend,
        workload=name,
        rate=rate,
        reads_share=reads_share,
        requests=len(drawn),
        item_bytes=cost.each,
        key_bytes=cost.key,
        value_bytes=cost.value,
        overhead_bytes=cost.overhead,
        items_measured=cost.items,
        footprint_bytes=curve.footprint,
        least_miss=curve.least,
        bytes=curve.bytes.tolist(),
        miss=curve.miss.tolist(),
        choices=list(choices(curve, float(item_bytes.mean()), rate * reads_share)),
    )


def choices(curve: Curve, item_bytes: float, reads_per_s: float) -> Iterator[Choice]:
    """The sizes for round hit ratios, as far as any size reaches them, and the best that can be had."""
    best = 1 - curve.least
    wanted = [one for one in HIT_RATIOS if one < best]
    for hit_ratio in (*wanted, float(1 - curve.miss[-1])):
        found = curve.bytes_for(hit_ratio)
        if found is not None:
            yield Choice(hit_ratio, found, found / item_bytes, reads_per_s * curve.miss_at(found))


def traced_requests(space: TraceSpace, plan: RunPlan) -> Requests:
    """Those of a trace, all of them."""
    assert space.trace is not None
    assert plan.trace is not None
    found = replay(space.trace, factor=plan.trace.factor, rate_per_s=plan.trace.rate)
    return Requests(found.key, found.at_s, np.isin(found.kind, (SET, INSERT, RMW)), found.kind == DELETE)


def drawn_requests(plan: RunPlan, space: KeySpace, count: int) -> Requests:
    """As one worker would draw them, at the plan's rate."""
    draws = Draws(space, seed=plan.seed, worker=0, workers=1)
    keys, times, writes, gones = [], [], [], []
    for first in range(0, count, CHUNK):
        at_s = np.arange(first, min(count, first + CHUNK)) / plan.rate
        operations = draws.at(at_s)
        owner = np.repeat(np.arange(len(at_s)), np.diff(operations.first))
        kind = operations.kind[owner]
        keys.append(operations.keys)
        times.append(at_s[owner])
        writes.append(np.isin(kind, (SET, INSERT, RMW)))
        # What never exists is cached as an absence; a delete leaves one too, but its key is not read as a hit.
        gones.append(kind == DELETE)
    return Requests(np.concatenate(keys), np.concatenate(times), np.concatenate(writes), np.concatenate(gones))
