"""Traces: both formats, their replay, and traces made from statistics that have those statistics."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cachelib.errors import ConfigError
from loadgen.engine.share import operations_of, space_of
from loadgen.plan import Replay, RunPlan
from loadgen.workloads.formats import read_trace
from loadgen.workloads.synthesis import cluster_of, write_twitter
from loadgen.workloads.trace import BadTrace, Request, replay, spread, trace_of
from loadgen.workloads.workload import DELETE, GET, SET, workload_of

SHARED = Path(os.environ.get("LOADGEN_TRACES", "no-traces"))
META = """op_time,key,key_size,op,op_count,size,cache_hits,ttl,usecase,sub_usecase
100,aa,48,GET,2,87,2,0,1,2
100,bb,20,SET_LEASE,1,300,0,60,1,2
103,aa,48,DELETE,1,0,0,0,1,2
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_twitters_rows_are_gets_sets_and_deletes(tmp_path: Path) -> None:
    operations = ["get", "gets", "set", "add", "cas", "incr", "delete"]
    path = write(tmp_path / "t.csv", "".join(f"{at},k{at},20,99,7,{op},60\n" for at, op in enumerate(operations)))
    trace = read_trace(path, "twitter")
    assert trace.kind.tolist() == [GET, GET, SET, SET, SET, SET, DELETE]
    assert (trace.value_bytes[0], trace.ttl_s[0], trace.key_bytes[0], trace.keys) == (99, 60, 20, 7)


def test_metas_columns_are_found_by_name_and_a_row_may_stand_for_many(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "m.csv", META), "meta")
    header, *rows = [line.split(",") for line in META.split()]
    turned = "\n".join(",".join(reversed(line)) for line in [header, *rows])
    again = read_trace(write(tmp_path / "n.csv", turned), "meta")
    for one in (trace, again):
        assert one.at_s.tolist() == [0, 0, 0, 3]
        assert one.kind.tolist() == [GET, GET, SET, DELETE]
        assert one.key.tolist() == [0, 0, 1, 0]
        assert one.of_keys(one.value_bytes, 5).tolist() == [87, 300]


@pytest.mark.parametrize(
    ("text", "form", "why"),
    [
        ("1,k,20,99,7,get,0\n1,k,20\n", "twitter", "row 2"),
        ("1,k,20,99,7,munge,0\n", "twitter", "row 1.*munge"),
        ("op_time,key\n1,a\n", "meta", "no column 'key_size'"),
        ("5,k,20,99,7,get,0\n4,k,20,99,7,get,0\n", "twitter", "sort it by time"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, text: str, form: str, why: str) -> None:
    with pytest.raises(BadTrace, match=why):
        read_trace(write(tmp_path / "bad.csv", text), form)  # type: ignore[arg-type]


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no trace"):
        read_trace(tmp_path / "none.csv", "twitter")


@pytest.mark.published
@pytest.mark.parametrize("name", ["kv_traces_1.csv", "kv_traces_2.csv"])
def test_the_published_samples_of_meta_are_read(name: str) -> None:
    trace = read_trace(SHARED / "cachelib" / name, "meta")
    rows = (SHARED / "cachelib" / name).read_text().splitlines()
    at = rows[0].split(",").index("op_count")
    assert len(trace) == sum(int(row.split(",")[at]) for row in rows[1:])
    assert {GET, SET} <= set(trace.kind.tolist())


# --- replay -----------------------------------------------------------------------------------------------


def a_trace(times: list[float]) -> object:
    return trace_of([Request(at, f"k{number % 3}", GET, 16, 10, 0) for number, at in enumerate(times)])


def test_a_trace_keeps_its_times_or_runs_faster() -> None:
    trace = a_trace([10.0, 10.25, 12.5])
    assert replay(trace).at_s.tolist() == [0, 0.25, 2.5]  # type: ignore[arg-type]
    assert replay(trace, factor=2.0).at_s.tolist() == [0, 0.125, 1.25]  # type: ignore[arg-type]


def test_a_trace_at_a_fixed_rate_forgets_its_times() -> None:
    assert replay(a_trace([0, 0, 50.0, 60.0]), rate_per_s=4.0).at_s.tolist() == [0, 0.25, 0.5, 0.75]  # type: ignore[arg-type]


def test_whole_seconds_are_spread_and_stay_in_their_second() -> None:
    assert spread(np.asarray([0.0, 0.0, 3.0])).tolist() == [0.25, 0.75, 3.5]
    assert spread(np.asarray([0.0, 0.5, 3.0])).tolist() == [0.0, 0.5, 3.0]


def test_workers_share_a_trace_by_key_and_lose_nothing() -> None:
    trace = a_trace([float(at) / 10 for at in range(30)])
    parts = [replay(trace, worker=worker, workers=2) for worker in range(2)]  # type: ignore[arg-type]
    assert sorted(np.concatenate([part.at_s for part in parts]).tolist()) == replay(trace).at_s.tolist()  # type: ignore[arg-type]
    assert not set(parts[0].keys.tolist()) & set(parts[1].keys.tolist())


def test_a_plan_replays_what_fits_into_its_time(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "".join(f"{at},k{at},20,99,7,get,0\n" for at in range(10)))
    plan = RunPlan(
        workload=workload_of("uniform"),
        trace=Replay(path=str(path), format="twitter", factor=2.0),
        seconds=2.0,
        warmup_s=0.0,
    )
    space = space_of(plan)
    assert (space.keys, {len(name) for name in space.names}) == (10, {20})
    assert operations_of(plan, space, 0).at_s.tolist() == [0.25, 0.75, 1.25, 1.75]


# --- synthesis ----------------------------------------------------------------------------------------------

REQUESTS = 60_000


@pytest.mark.parametrize("preset", ["tw-c52", "tw-c12", "tw-c14", "tw-c37"])
def test_a_synthesized_trace_has_the_statistics_it_was_made_from(tmp_path: Path, preset: str) -> None:
    workload = workload_of(preset)
    path = tmp_path / "trace.csv"
    assert write_twitter(path, workload, requests=REQUESTS, rate_per_s=5000.0) == REQUESTS
    trace = read_trace(path, "twitter")
    shares = workload.mix.shares()
    for kind, name in ((GET, "get"), (SET, "set"), (DELETE, "delete")):
        share = shares[name]
        errors = np.sqrt(share * (1 - share) / REQUESTS)
        assert (trace.kind == kind).mean() == pytest.approx(share, abs=5 * errors + 1e-9)
    # Of keys as they come, each popular one with the one size that it keeps: so the mean is of constants here.
    assert set(trace.value_bytes.tolist()) == set(workload.value_bytes.sample(np.random.default_rng(1), 10).tolist())
    assert trace.at_s[-1] == pytest.approx(REQUESTS / 5000, rel=0.05)
    ranked = np.sort(np.bincount(trace.key))[::-1]
    weights = np.arange(1, workload.keys + 1) ** -workload.popularity.exponent  # type: ignore[union-attr]
    for first in (10, 100, 1000):
        expected = weights[:first].sum() / weights.sum()
        # The most drawn are not exactly the most popular: chance adds a little to theirs.
        assert ranked[:first].sum() / REQUESTS == pytest.approx(expected, abs=0.03)


def test_a_clusters_workload_is_read_from_the_published_table(tmp_path: Path) -> None:
    table = tmp_path / "stat.md"
    columns = "cluster | miss | cat | key | value | rate | freq | ohw | comp | ttl | wss | wss2 | op | alpha"
    table.write_text(
        f"| {columns} |\n|:-:|\n"
        "| cluster14 | 0.12 | 1 | 96 | 414 | 5.8 | 35 | 10 | 2 | 1d:0.75, 1.5h:0.25, | 1 | 1 "
        "| get:0.65 delete:0.22 set:0.10 add:0.03 | 1.2959 |\n"
        "| cluster5 | 0.7 | 3 | N/A | N/A | N/A | N/A | N/A | N/A | N/A | N/A | N/A | N/A | N/A |\n"
    )
    found = cluster_of(table, 14)
    assert found.mix.shares()["set"] == pytest.approx(0.13)
    assert found.ttl_s.values == [(86_400, 0.75), (5400, 0.25)]  # type: ignore[union-attr]
    assert found.popularity.exponent == 1.2959  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="cluster 5 was published without"):
        cluster_of(table, 5)
    with pytest.raises(ConfigError, match="no cluster 99"):
        cluster_of(table, 99)


@pytest.mark.published
def test_the_published_table_gives_a_workload_for_every_cluster_with_figures() -> None:
    table = SHARED / "twitter" / "stat_2020Mar.md"
    found = []
    for number in range(1, 55):
        try:
            found.append(cluster_of(table, number))
        except ConfigError:
            continue
    assert len(found) >= 50
    for preset in ("tw-c52", "tw-c12", "tw-c14", "tw-c37", "tw-c18", "tw-c1", "tw-c15"):
        ours, theirs = workload_of(preset), next(one for one in found if one.name == preset)
        assert ours.popularity == theirs.popularity
        assert (ours.key_bytes, ours.value_bytes) == (theirs.key_bytes, theirs.value_bytes)
        for name, share in theirs.mix.shares().items():
            assert ours.mix.shares()[name] == pytest.approx(share, abs=0.03)
