"""The language of objectives: what it takes, what it refuses, and how it judges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.errors import ConfigError
from loadgen.objective import PLAIN, Kind, Measures, NotMeasured, kind_of, names, parse, shown

FULL = "get.p99<5ms & stale.ratio<1e-4 & vis.p99<500ms & origin.qps<2000 & errors<0.1% & achieved>=0.98*offered"
GOOD = {
    "get.p99": 3.0,
    "stale.ratio": 0.0,
    "vis.p99": 120.0,
    "origin.qps": 900.0,
    "errors": 0.0005,
    "achieved": 9900.0,
    "offered": 10_000.0,
}


def test_the_whole_of_it() -> None:
    objective = parse(FULL)
    assert objective.measures == set(GOOD)
    verdict = objective.judge(Measures(GOOD))
    assert verdict.holds
    assert [round(one.bound, 6) for one in verdict.clauses] == [5.0, 1e-4, 500.0, 2000.0, 1e-3, 9800.0]
    assert verdict.binding == "achieved>=0.98*offered"  # 1 % from its bound, the next is 40 %


@pytest.mark.parametrize(
    ("name", "value", "clause"),
    [
        ("get.p99", 5.0, "get.p99<5ms"),
        ("stale.ratio", 2e-4, "stale.ratio<1e-4"),
        ("vis.p99", 900.0, "vis.p99<500ms"),
        ("origin.qps", 2500.0, "origin.qps<2000"),
        ("errors", 0.01, "errors<0.1%"),
        ("achieved", 9700.0, "achieved>=0.98*offered"),
    ],
)
def test_each_clause_can_be_missed_and_is_then_the_one_that_binds(name: str, value: float, clause: str) -> None:
    verdict = parse(FULL).judge(Measures(GOOD | {name: value}))
    assert not verdict.holds
    assert [one.text for one in verdict.clauses if not one.holds] == [clause]
    assert verdict.binding == clause


def test_clause_that_is_missed_by_the_most_binds() -> None:
    verdict = parse(FULL).judge(Measures(GOOD | {"get.p99": 6.0, "vis.p99": 5000.0}))
    assert verdict.binding == "vis.p99<500ms"


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("get.p99 < 500us", 0.5),
        ("get.p99.9<1s", 1000.0),
        ("multiget.service.max<=2m", 120_000.0),
        ("errors<5%", 0.05),
        ("errors<0", 0.0),
        ("origin.qps<2k", 2000.0),
        ("origin.qps<2000/s", 2000.0),
        ("hit.ratio>0.9", 0.9),
        ("stale.age.p99<1s", 1000.0),
        ("herd.factor<=1", 1.0),
    ],
)
def test_units(text: str, bound: float) -> None:
    assert parse(text).clauses[0].number == pytest.approx(bound)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("get.p99<5ms &", "a clause is missing"),
        ("get.p99=5ms", "is not a clause"),
        ("get.p99<5", "say of what, as 5ms"),
        ("get.p99<5%", "'%' is of a ratio"),
        ("errors<5ms", "'ms' is of a time"),
        ("get.p99<5min", "units are us, ms, s"),
        ("get.p99<fast", "give a number such as 5ms"),
        ("gte.p99<5ms", "did you mean 'get.p99'"),
        ("stale.ration<1e-4", "did you mean 'stale.ratio'"),
        ("get.p100.5<5ms", "there is no measure"),
        ("get.p99<0.9*offered", "compares a time with a number a second"),
    ],
)
def test_what_is_wrong_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(").replace("*", r"\*")):
        parse(text)


def test_objective_on_what_was_not_measured_is_neither_held_nor_missed() -> None:
    with pytest.raises(NotMeasured, match=r"asks for vis\.p99, .*it measured errors"):
        parse("vis.p99<1s").judge(Measures({"errors": 0.0}))


def test_none_in_few_does_not_prove_a_small_ratio() -> None:
    (few,) = parse("stale.ratio<1e-4").judge(Measures({"stale.ratio": 0.0}, {"stale.ratio": 10_000})).clauses
    assert few.holds
    assert not few.resolved
    assert "too few samples" in few.sentence()
    (many,) = parse("stale.ratio<1e-4").judge(Measures({"stale.ratio": 0.0}, {"stale.ratio": 40_000})).clauses
    assert many.resolved


@pytest.mark.parametrize(("samples", "resolved"), [(9_999, False), (10_001, True)])
def test_percentile_of_few_samples_is_not_resolved(samples: int, resolved: bool) -> None:
    (clause,) = parse("get.p99.9<5ms").judge(Measures({"get.p99.9": 3.0}, {"get.p99.9": samples})).clauses
    assert clause.resolved is resolved


@given(st.sampled_from(sorted(names())), st.sampled_from(["<", "<=", ">", ">="]), st.floats(1e-6, 1e6))
def test_what_is_parsed_is_said_and_parsed_again(name: str, sign: str, number: float) -> None:
    unit = "ms" if kind_of(name) is Kind.TIME else ""
    objective = parse(f"{name} {sign} {number!r}{unit}")
    assert parse(objective.text) == objective
    above = parse(f"{name}{sign}{number!r}{unit}").judge(Measures({name: number * 1.01})).holds
    assert above is (sign in (">", ">="))


def test_every_plain_measure_has_a_kind_that_is_shown_with_its_unit() -> None:
    assert {kind_of(name) for name in PLAIN} == {Kind.RATIO, Kind.RATE, Kind.COUNT}
    assert [shown(0.5, Kind.TIME), shown(2500, Kind.TIME)] == ["0.5 ms", "2.5 s"]
    assert [shown(1e-5, Kind.RATIO), shown(0.25, Kind.RATIO)] == ["1.00e-05", "25.000%"]
