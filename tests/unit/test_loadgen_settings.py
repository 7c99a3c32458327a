"""Workloads and plans: what is wrong is refused in a sentence that helps."""

from __future__ import annotations

import pytest

from cachelib.errors import ConfigError
from loadgen.plan import RunPlan, as_config, plan_of
from loadgen.workloads.workload import parse, workload_of


def test_an_unknown_setting_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"own.toml.*exponant.*popularity.*did you mean 'exponent'"):
        parse('name = "x"\npopularity = { kind = "zipf", exponant = 1.0 }', "own.toml")


def test_an_unknown_preset_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fb-etc'"):
        workload_of("fb-etcc")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"there is no workload file nowhere.toml"):
        workload_of("nowhere.toml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name = ", "not TOML"),
        ('name = "x"\nkeys = 0', "keys"),
        ('name = "x"\nmix = { get = 0 }', "weight above 0"),
        ('name = "x"\npopularity = { kind = "hotspot", hot_keys = 1.5 }', "hot_keys"),
        ('name = "x"\npopularity = { kind = "lorenz", curve = [[0.5, 0.2], [0.4, 1.0]] }', "must rise"),
        ('name = "x"\nvalue_bytes = { kind = "quantiles", points = [[0.1, 5], [1.0, 6]] }', "share 0 to share 1"),
        ('name = "x"\nvalue_bytes = { kind = "uniform", low = 9, high = 3 }', "below low"),
    ],
)
def test_a_wrong_workload_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(text, "own.toml")


def test_a_plan_survives_its_record() -> None:
    plan = RunPlan(workload=workload_of("meta-kvcache"), rate=5.0, seed=9)
    assert plan_of(as_config(plan)) == plan


def test_a_plan_of_too_many_operations_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="use more of them, or run shorter"):
        RunPlan(workload=workload_of("ycsb-c"), rate=1e6, seconds=3600)
