"""The faster world: which numbers of a rule change, and that none was forgotten."""

from __future__ import annotations

import re

import pytest

from tests.charts.metrics import GROUPS
from tests.gameday.factor import LONG, SECONDS, expression, factor_of, groups, seconds

RULES = [rule for group in GROUPS for rule in group["rules"]]


@pytest.mark.parametrize(
    ("given", "faster"),
    [
        ("rate(a[5m])", "rate(a[15000ms])"),
        ("avg_over_time(a:rate5m[1d] offset 1h)", "avg_over_time(a:rate5m[4320000ms] offset 180000ms)"),
        ("time() - (a{} > 0) > 60", "time() - (a{} > 0) > 3"),
        ("increase(a[10m]) > 10", "increase(a[30000ms]) > 10"),
    ],
)
def test_ranges_offsets_and_seconds_shrink_and_counts_do_not(given: str, faster: str) -> None:
    assert expression(given, 20) == faster


def test_factor_one_changes_no_meaning() -> None:
    for before, after in zip(GROUPS, groups(GROUPS, 1), strict=True):
        for one, other in zip(before["rules"], after["rules"], strict=True):
            back = re.sub(r"(\d+)ms", lambda found: f"{int(found[1]) // 1000}s", other["expr"])
            assert re.sub(r"\d+[smhd]\b", _in_seconds, back) == re.sub(r"\d+[smhd]\b", _in_seconds, one["expr"])


def _in_seconds(found: re.Match[str]) -> str:
    return f"{seconds(found[0]):g}s"


def test_every_kind_of_seconds_is_met_by_a_rule() -> None:
    text = "\n".join(rule["expr"] for rule in RULES)
    assert all(re.search(pattern, text) for pattern in SECONDS)


def test_no_rule_compares_with_seconds_that_stay_as_they_are() -> None:
    """A bound over 20 that is a time and not a count would make a game day say nothing."""
    for rule in RULES:
        kept = re.sub(r"'[^']*'|\"[^\"]*\"", "", expression(rule["expr"], 1000))
        for bound in re.findall(r"> (\d+)\b(?!\s*\*)", kept):
            assert int(bound) < 20 or "_count" in kept or ":loads:" in kept, rule


def test_a_second_factor_is_for_long_ones_alone_and_none_of_them_is_misspelt() -> None:
    names = {rule.get("alert") or rule["record"] for rule in RULES}
    assert names >= LONG
    for before, after in zip(GROUPS, groups(GROUPS, 20, 200), strict=True):
        for one, other in zip(before["rules"], after["rules"], strict=True):
            name = one.get("alert") or one["record"]
            assert factor_of(name, 20, 200) == (200 if name in LONG else 20)
            if "for" in one and name in LONG:
                assert int(other["for"].removesuffix("ms")) == seconds(one["for"]) * 5


def test_what_is_recorded_for_long_alerts_is_looked_at_by_no_other_but_as_a_least_number() -> None:
    """A series of a quicker clock would make another alert say something else."""
    for rule in RULES:
        if rule.get("alert") and rule["alert"] not in LONG:
            seen = {name for name in LONG if name in rule["expr"]}
            assert seen <= {"entity:reads:rate5m"}, rule["alert"]
