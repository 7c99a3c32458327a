"""Records of runs and searches as a generator would leave them, of durations drawn from a seed; not a test."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from loadgen.herd import HerdPlan, HerdResult, HerdSide
from loadgen.histogram import Histogram
from loadgen.judge import Figures
from loadgen.page.checked import Checked
from loadgen.result import (
    Consistency,
    Host,
    Latency,
    LevelFound,
    Mark,
    Nines,
    Operation,
    Origin,
    Ratio,
    RunResult,
    Stale,
    Usage,
    Visibility,
    Window,
    config_hash,
)
from loadgen.searched import ProbeLine, SearchResult

OBJECTIVE = "get.p99<5ms & stale.ratio<1e-2 & vis.p99<500ms & origin.qps<2000 & errors<0.1% & achieved>=0.98*offered"


def latency(times_ms: Any) -> Latency:
    return Latency.of(Histogram.of((np.asarray(times_ms) * 1e6).astype(np.int64)))


def total(parts: list[Latency]) -> Latency:
    return Latency.of(Histogram.sum_of(one.histogram for one in parts))


def operation(random: np.random.Generator, count: int, median_ms: float, errors: int = 0) -> tuple[Operation, Any]:
    service = random.lognormal(np.log(median_ms), 0.5, count)
    waited = service + random.exponential(0.05 * median_ms, count)
    named = {"CacheUnavailable": errors} if errors else {}
    return Operation(count + errors, count, named, latency(waited), latency(service)), waited


def window(random: np.random.Generator, at_s: int, rate: int, median_ms: float, **changes: Any) -> Window:
    reads, writes = int(rate * 0.95), rate - int(rate * 0.95)
    hits = int(reads * 0.96)
    plain = Window(
        at_s=at_s,
        phase="measured",
        operations={
            "get": operation(random, reads, median_ms)[0],
            "set": operation(random, writes, 3 * median_ms)[0],
        },
        sources={"hit": hits, "filled": reads - hits},
        lag=latency(random.exponential(0.05, rate)),
        invalid="",
        stale=0,
        checked=reads,
        origin_reads=reads - hits,
        origin_writes=writes,
        generator_cores=0.6,
        ended=rate,
    )
    return msgspec.structs.replace(plain, **changes)


def run(
    *, seed: int = 1, seconds: int = 30, rate: int = 1000, median_ms: float = 0.8, fault: bool = False, **changes: Any
) -> RunResult:
    random = np.random.default_rng(seed)
    windows = [window(random, 0, rate, median_ms, phase="warmup"), window(random, 1, rate, median_ms, phase="warmup")]
    for at_s in range(2, seconds + 2):
        slow = 4.0 if fault and 12 <= at_s < 16 else 1.0
        changed = {"stale": 20} if fault and 12 <= at_s < 17 else {}
        windows.append(window(random, at_s, rate, median_ms * slow, **changed))
    if fault:
        windows[22] = msgspec.structs.replace(windows[22], invalid="generator lag p99 was 31 ms, above 2 ms")
    measured = windows[2:]
    names = sorted(measured[0].operations)
    operations = {name: summed([one.operations[name] for one in measured]) for name in names}
    config = {"workload": "ycsb-b", "rate": rate, "seconds": seconds, "processes": 2, "backend": "redis"}
    reads = sum(sum(one.sources.values()) for one in measured)
    stale = sum(one.stale for one in measured)
    loads = sum(one.origin_reads for one in measured)
    built = RunResult(
        label="ycsb-b on redis",
        started="2026-05-01T12:00:00Z",
        host=Host("host-1", "Linux 6.1 x86_64", 2, 24_000),
        versions={"python": "3.11.2", "redis": "7.0.15", "leasecache": "0.1.0"},
        seed=seed,
        config=config,
        config_hash=config_hash(config),
        target="library",
        processes=2,
        seconds=float(seconds),
        warmup_s=2.0,
        offered_per_s=float(rate),
        achieved_per_s=sum(one.achieved for one in measured) / seconds,
        operations=operations,
        sources={"hit": sum(one.sources["hit"] for one in measured), "filled": loads},
        errors={},
        lag=total([one.lag for one in measured]),
        windows=windows,
        consistency=consistency(random, reads, stale, 40 * seconds),
        origin=Origin(
            reads=loads,
            writes=sum(one.origin_writes for one in measured),
            reads_per_s=loads / seconds,
            reads_per_s_max=max(one.origin_reads for one in measured),
            client_reads=reads,
            needed=int(loads / 1.02),
            amplification=1.02,
            herd_total_max=2,
            herd_at_once_max=1,
        ),
        generator=[Usage(100, 0.3, 80.0), Usage(101, 0.3, 81.0)],
        servers={"redis": Usage(99, 0.2, 12.0)},
        marks=[
            Mark(12.0, "killed", "kill -9 of the invalidator"),
            Mark(16.0, "back", "the invalidator is ready again"),
        ]
        if fault
        else [],
    )
    return msgspec.structs.replace(built, **changes)


def summed(parts: list[Operation]) -> Operation:
    return Operation(
        sum(one.offered for one in parts),
        sum(one.achieved for one in parts),
        {},
        total([one.latency for one in parts]),
        total([one.service for one in parts]),
    )


def consistency(random: np.random.Generator, reads: int, stale: int, writes: int) -> Consistency:
    def ratio(part: int, whole: int) -> Ratio:
        return Ratio(part, whole, part / whole, max(0.0, part / whole * 0.8), part / whole * 1.2 + 3 / whole)

    ages = latency(random.exponential(900, stale)) if stale else Latency()
    return Consistency(
        ratio=ratio(stale, reads),
        stale=[
            Stale("eventual", "hit", ratio(stale, reads - 10), ages, 3 if stale else 0),
            Stale("eventual", "filled", ratio(0, 10), Latency(), 0),
        ],
        nines=[Nines(1.0, writes, stale // 10, 2.0, 2.6), Nines(60.0, writes, 0, 2.6, 2.6)],
        visibility=Visibility(latency(random.lognormal(np.log(40), 0.6, 300)), 0, 3.1),
        backwards=0,
        own_missed=0,
        wrong=0,
        levels=[LevelFound("eventual", reads, stale, 0, 0, 0), LevelFound("bounded", 10, 0, 0, 0, 0)],
    )


def search(*, found: bool = True, whole: bool = True) -> SearchResult:
    plan = [
        ("ramp", 500.0, 0.3, 0.9, "held"),
        ("ramp", 1000.0, 0.32, 1.0, "held"),
        ("ramp", 2000.0, 0.4, 1.4, "held"),
        ("ramp", 4000.0, 0.6, 2.6, "held"),
        ("ramp", 8000.0, 40.0, 300.0, "missed"),
        ("bisect", 5657.0, 1.0, 7.9, "missed"),
        ("bisect", 4757.0, 0.8, 4.1, "held"),
        ("bisect", 5187.0, 0.9, 5.6, "missed"),
        ("bisect", 4967.0, 0.9, 4.8, "held"),
        ("confirm", 4967.0, 0.9, 4.7, "held"),
        ("climb", 5091.0, 0.9, 5.3, "missed"),
    ]
    probes = [
        ProbeLine(
            phase=phase,
            rate=rate,
            seconds=9.0 if phase in ("ramp", "bisect") else 27.0,
            achieved=min(rate, 6100.0) * 0.999,
            p50_ms=p50,
            p99_ms=p99,
            p999_ms=p99 * 2.5,
            service_p99_ms=p99 * 0.6,
            lag_p99_ms=0.2,
            hit_ratio=0.962,
            errors=0.0,
            origin_qps=rate * 0.04,
            stale_ratio=0.0,
            visible_p99_ms=120.0,
            windows=[verdict] * (3 if phase in ("ramp", "bisect") else 9),
            missed={"get.p99<5ms": 3} if verdict == "missed" else {},
            verdict=verdict,
        )
        for phase, rate, p50, p99, verdict in plan
    ]
    config = {"workload": "ycsb-b", "backend": "redis"}
    return SearchResult(
        label="capacity of ycsb-b on redis",
        objective=OBJECTIVE,
        started="2026-05-01T12:00:00Z",
        host=Host("host-1", "Linux 6.1 x86_64", 2, 24_000),
        versions={"python": "3.11.2"},
        seed=1,
        config=config,
        config_hash=config_hash(config),
        end="found" if found else "generator",
        says="4,967/s holds, 5,091/s does not: get.p99<5ms gives way first.",
        rate=4967.0,
        above=5091.0 if found else None,
        low=4967.0,
        high=5187.0 if found else None,
        binding="get.p99<5ms" if found else "",
        ceiling=10_000.0,
        share=0.7,
        probes=probes,
        confirmed=run(rate=4967, seconds=27) if whole else None,
    )


def herd() -> HerdResult:
    random = np.random.default_rng(5)

    def side(by_loss: list[int], reads: int, slow: float) -> HerdSide:
        waited = np.where(random.random(reads) < slow, random.uniform(20, 110, reads), random.lognormal(-1, 0.4, reads))
        loads, most = sum(by_loss), max(by_loss)
        return HerdSide(
            reads=reads,
            losses=len(by_loss),
            loads=loads,
            loads_per_loss=loads / len(by_loss),
            loads_per_loss_max=most,
            by_loss=by_loss,
            at_once_max=most,
            latency=latency(waited),
            errors={},
        )

    return HerdResult(
        label="A herd of 40 readers on redis",
        started="2026-05-01T12:00:00Z",
        host=Host("host-1", "Linux 6.1 x86_64", 2, 24_000),
        versions={"python": "3.11.2"},
        plan=HerdPlan(),
        leases=side([1, 1, 1, 1, 2, 1, 1, 1, 1, 1], 60_000, 0.01),
        without=side([40, 38, 40, 39, 40, 40, 37, 40, 40, 40], 58_000, 0.01),
    )


def checked(*, fault: bool = False) -> Checked:
    """A load of `check` or `demo`."""
    one = run(fault=fault)
    figures = {
        **{"backend": "redis", "seconds": 30.0, "reads": 28_500, "reads_per_s": 950.0, "hit_ratio": 0.96},
        **{"p50_ms": 0.8, "p99_ms": 3.1, "service_p50_ms": 0.7, "service_p99_ms": 2.8, "late_p99_ms": 0.4},
        **{"by_source": {"hit": 27_360, "filled": 1_140}, "writes": 960, "writes_behind": 500, "writes_per_s": 32.0},
        **{"store_loads": 1_200, "loads_without_leases": 1_900, "strong_reads": 8_000, "strong_hit_ratio": 0.95},
        **{"strong_stale": 0, "strong_backwards": 0, "eventual_reads": 20_500, "eventual_stale": 100 if fault else 0},
        **{"eventual_stale_ratio": 0.0049 if fault else 0.0, "eventual_stale_age_p50_ms": 900.0 if fault else None},
        **{"eventual_stale_age_max_ms": 4_100.0 if fault else None, "eventual_behind_max": 3 if fault else 0},
        **{"eventual_backwards": 0, "wrong_values": 0, "misordered_writes": 0, "lost_writes": 0},
        **{"visible_p50_ms": 22.0, "visible_p99_ms": 61.0, "visible_probes": 240, "visible_unseen": 0},
        **{"poll_gap_ms": 3.1, "outages": int(fault), "catchup_s": 0.4 if fault else None, "settled": True},
        **{"settled_s": 1.2, "compared_keys": 28_600, "cached_keys": 28_600, "differing_keys": 0, "errors": {}},
    }
    return Checked("The load", Figures(**figures, failures=(), examples=()), one.windows, one.marks)  # type: ignore[arg-type]
