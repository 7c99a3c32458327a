"""What an objective is told of a run is what the run measured."""

from __future__ import annotations

import msgspec
import pytest

from loadgen.measures import measures_of, slices
from loadgen.objective import NotMeasured, names, parse
from loadgen.result import Latency, Operation
from tests.unit.loadgen_results import OBJECTIVE, run


def test_every_measure_of_the_language_can_come_from_a_run() -> None:
    wanted = [name for name in names() if not name.startswith(("multiget", "scan", "lone", "insert", "rmw", "delete"))]
    assert set(measures_of(run(fault=True), wanted).values) == set(wanted)


def test_values_are_those_of_the_record() -> None:
    result = run(seconds=20)
    found = measures_of(
        result, ["get.p99", "set.service.p50", "offered", "hit.ratio", "origin.qps", "vis.p99", "lag.p99"]
    )
    assert result.origin is not None
    assert result.consistency is not None
    assert found.values == pytest.approx(
        {
            "get.p99": result.operations["get"].latency.p99_ms,
            "set.service.p50": result.operations["set"].service.p50_ms,
            "offered": result.offered_per_s,
            "hit.ratio": result.hit_ratio,
            "origin.qps": result.origin.reads_per_s,
            "vis.p99": result.consistency.visibility.lag.p99_ms,
            "lag.p99": result.lag.p99_ms,
        }
    )
    assert found.samples["get.p99"] == result.operations["get"].latency.count


def test_changes_that_nobody_saw_count_for_the_whole_run() -> None:
    """They were left out: of a system that shows nothing any more, only what it still showed was judged."""
    result = run(seconds=20)
    assert result.consistency is not None
    seen = result.consistency.visibility
    blind = msgspec.structs.replace(seen, unseen=seen.lag.count)
    one = msgspec.structs.replace(result, consistency=msgspec.structs.replace(result.consistency, visibility=blind))
    assert measures_of(one, ["vis.p50"]).values["vis.p50"] <= seen.lag.max_ms
    assert measures_of(one, ["vis.p90"]).values["vis.p90"] == pytest.approx(20_000, rel=0.01)


def test_slow_part_of_a_run_is_seen_in_its_slice_only() -> None:
    result = run(fault=True, seconds=30)  # slow and stale from second 12 on, for four seconds
    parts = [part.measures(["get.p50", "stale.ratio"]).values for part in slices(result, 6)]
    assert [part["stale.ratio"] > 0 for part in parts] == [False, False, True, False, False, False]
    assert max(range(6), key=lambda at: parts[at]["get.p50"]) == 2


def test_second_that_does_not_count_spoils_its_slice() -> None:
    result = run(fault=True, seconds=30)
    assert [bool(part.invalid) for part in slices(result, 6)] == [False, False, False, False, True, False]


def test_no_operation_that_ended_is_not_fast() -> None:
    result = run(seconds=5)
    dead = Operation(100, 0, {"CacheUnavailable": 100}, Latency(), Latency())
    windows = [msgspec.structs.replace(window, operations={"get": dead}) for window in result.windows]
    verdict = parse("get.p99<5ms").judge(measures_of(msgspec.structs.replace(result, windows=windows), ["get.p99"]))
    assert not verdict.holds


def test_what_the_target_cannot_tell_is_not_measured() -> None:
    result = run(seconds=5, consistency=None, origin=None)
    with pytest.raises(NotMeasured, match=r"stale\.ratio"):
        parse(OBJECTIVE).judge(measures_of(result, parse(OBJECTIVE).measures))


def test_all_is_of_all_operations() -> None:
    found = measures_of(run(seconds=5), ["all.max", "get.max", "set.max"]).values
    assert found["all.max"] == max(found["get.max"], found["set.max"])


def test_seconds_in_which_nothing_was_answered_are_judged_all_the_same() -> None:
    """A search was ended by a probe so far above capacity that some of its seconds had no read to check."""
    result = run(seconds=6)
    dead = {"operations": {"get": Operation(100, 0, {}, Latency(), Latency())}, "sources": {}, "checked": 0, "ended": 0}
    windows = [msgspec.structs.replace(one, **dead) if one.at_s < 5 else one for one in result.windows]
    objective = parse("get.p99<5ms & stale.ratio<1% & hit.ratio>0.5 & errors<1% & achieved>=0.9*offered")
    first, last = slices(msgspec.structs.replace(result, windows=windows), 2)
    verdict = objective.judge(first.measures(objective.measures))
    assert not verdict.holds
    assert [one.resolved for one in verdict.clauses if one.measure == "stale.ratio"] == [False]
    assert objective.judge(last.measures(objective.measures)).holds
