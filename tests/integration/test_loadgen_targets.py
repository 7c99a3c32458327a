"""Planned load on real servers: the wire, and the library with store, cache and invalidator."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from loadgen.engine.bench import Bench
from loadgen.levels import Level, promises_broken
from loadgen.plan import RunPlan, TargetPlan
from loadgen.workloads.sizes import Constant
from loadgen.workloads.workload import Mix, Workload

EVERYTHING = Mix(get=0.5, multiget=0.1, scan=0.05, lone_get=0.05, set=0.1, insert=0.05, rmw=0.05, delete=0.1)
SMALL = Workload(name="small", keys=400, mix=EVERYTHING, batch=Constant(7), value_bytes=Constant(50))
WIRE = RunPlan(
    workload=SMALL,
    target=TargetPlan(kind="wire", connections=3),
    rate=1500.0,
    seconds=2.0,
    warmup_s=0.0,
    lag_p99_ms_max=10_000.0,  # whether this machine is quiet is not what is tested
)


@pytest.fixture(params=["redis", "memcached"])
def cache_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def on(plan: RunPlan, url: str, **changes: object) -> RunPlan:
    return replace(plan, target=replace(plan.target, cache_url=url), **changes)


def test_every_operation_of_the_wire_is_answered(cache_url: str) -> None:
    plan = on(WIRE, cache_url)
    with Bench(plan) as bench:
        result = bench.run(plan)
    assert (result.invalid, result.errors) == ([], {})
    assert set(result.operations) == {name for name, share in SMALL.mix.shares().items() if share}
    assert all(one.achieved == one.offered == one.latency.count for one in result.operations.values())
    asked = sum(result.operations[name].offered for name in ("get", "lone_get"))
    asked += 7 * sum(result.operations[name].offered for name in ("multiget", "scan"))
    # A read-modify-write's read is told of by nobody.
    assert sum(result.sources.values()) == asked
    assert result.sources["miss"] >= result.operations["lone_get"].offered


def test_a_lookaside_fill_follows_a_miss(cache_url: str) -> None:
    reads = replace(SMALL, mix=Mix(get=1.0), keys=50)
    plan = on(WIRE, cache_url, workload=reads, prefill=False)
    with Bench(plan) as bench:
        filled = bench.run(plan)
        again = bench.run(replace(plan, seed=2))
    # A key can be asked again before its fill has arrived, so there may be a few more misses than keys.
    assert 0 < filled.sources["miss"] < 500
    assert again.sources.get("miss", 0) == 0


def test_without_fill_a_cold_cache_stays_cold(cache_url: str) -> None:
    reads = replace(SMALL, mix=Mix(get=1.0))
    plan = on(WIRE, cache_url, workload=reads, prefill=False)
    plan = replace(plan, target=replace(plan.target, fill=False))
    with Bench(plan) as bench:
        assert set(bench.run(plan).sources) == {"miss"}


def test_a_closed_loop_on_the_wire_keeps_one_operation_under_way_on_each_connection(cache_url: str) -> None:
    plan = on(WIRE, cache_url, loop="closed", rate=200_000.0, seconds=1.0)
    with Bench(plan) as bench:
        result = bench.run(plan)
    assert result.invalid == []
    assert result.operations["get"].latency.p50_ms == result.operations["get"].service.p50_ms


def test_a_closed_loop_that_runs_out_of_operations_is_invalid(cache_url: str) -> None:
    plan = on(WIRE, cache_url, loop="closed", rate=100.0)
    with Bench(plan) as bench:
        result = bench.run(plan)
    assert "give a higher rate" in result.invalid[0]


# --- the library ----------------------------------------------------------------------------------

LIBRARY = RunPlan(
    workload=replace(SMALL, mix=replace(EVERYTHING, lone_get=0.05)),
    target=TargetPlan(
        kind="library",
        strong_share=0.3,
        session_share=0.2,
        bounded_share=0.2,
        l1_ms=1000.0,
        behind_share=0.5,
        probes_per_s=10.0,
        threads=2,
    ),
    rate=250.0,
    seconds=3.0,
    warmup_s=1.0,
    lag_p99_ms_max=10_000.0,
)


BOTH = [("redis", "asyncio"), ("memcached", "threads")]


@pytest.mark.slow
@pytest.mark.parametrize(("cache_url", "style"), BOTH, indirect=["cache_url"])
def test_the_library_is_judged_read_by_read_and_each_level_keeps_its_promise(cache_url: str, style: str) -> None:
    plan = on(LIBRARY, cache_url)
    plan = replace(plan, target=replace(plan.target, style=style))
    with Bench(plan) as bench:
        result, again = bench.run(plan), bench.run(replace(plan, seed=2))
    for one in (result, again):
        assert (one.invalid, one.errors) == ([], {})
        found, origin = one.consistency, one.origin
        assert found is not None
        assert origin is not None
        assert promises_broken(one) == []
        reads = {row.level: row.reads for row in found.levels}
        assert min(reads[level.name.lower()] for level in Level) > 20
        assert sum(reads.values()) == found.ratio.whole
        # Copies in the process serve eventual reads, and no others.
        assert {row.level for row in found.stale if row.source == "local"} == {"eventual"}
        assert found.ratio.whole == sum(row.ratio.whole for row in found.stale) == sum(w.checked for w in one.windows)
        assert found.visibility.lag.count > 0
        assert found.visibility.lag.p50_ms > 0
        assert origin.reads >= origin.needed > 0
        assert origin.writes == sum(window.origin_writes for window in one.windows) > 0
    assert {"redis", "memcached", "invalidator"} & set(result.servers) == {"invalidator"}


@pytest.mark.slow
def test_without_an_invalidator_what_is_written_behind_stays_unseen(redis_url: str) -> None:
    writes = replace(SMALL, keys=50, mix=Mix(get=0.8, set=0.2))
    plan = on(LIBRARY, redis_url, workload=writes)
    target = TargetPlan(cache_url=redis_url, behind_share=1.0, threads=2, invalidator=False)
    plan = replace(plan, target=target)
    with Bench(plan) as bench:
        found = bench.run(plan).consistency
    assert found is not None
    # Every write is behind, nobody tells the cache, and lives are an hour: all that was written is read old.
    assert found.ratio.share > 0.5
    assert found.ratio.low < found.ratio.share < found.ratio.high
    assert next(row for row in found.nines if row.within_s == 1.0).late > 0
