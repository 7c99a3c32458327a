"""Alerts made quicker: the same rules in a world whose clock runs `factor` times as fast.

Divided by the factor are: every range and offset (`[5m]`, `offset 10m`), every `for`, and the seconds that an alert
compares with (those named in `SECONDS`, each written once in rules.yaml). Not touched: shares, counts and rates, the
bound of 1 s in the staleness objective, and names of recorded series (`rate5m` keeps its name). So a count in a window
(`increase(…[10m]) > 10`) wants the same number of things in less time: the load of a game day is that much denser.
The daemon's own durations that alerts rest on are divided in `world.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+)([smhd])")
_RANGE = re.compile(r"\[(\d+[smhd])\]|offset (\d+[smhd])")
# What stands before a number of seconds in an expression.
SECONDS = (
    r"job_node:lag_seconds:max >",
    r"job_node:visibility_seconds:median_rate1m >",
    r"time\(\) - \([^()]*> 0\) >",
    r"invalidator_second_looks_oldest_seconds\{[^}]*\}\) >",
    r"invalidator_relay_lag_seconds\{[^}]*\}\) >",
)
_SECONDS = re.compile(rf"({'|'.join(SECONDS)}) (\d+)\b")
# Clocks are what they are: a skew of 2 s is one in a fast world too.
UNTOUCHED = {"ClockSkew"}


def seconds(text: str) -> float:
    """Of a duration as Prometheus writes it, such as 5m."""
    match = _DURATION.fullmatch(text)
    assert match, text
    return float(match[1]) * _UNIT_S[match[2]]


def _shorter(text: str, factor: float) -> str:
    return f"{max(1, round(seconds(text) * 1000 / factor))}ms"


def expression(text: str, factor: float) -> str:
    """A PromQL expression in the faster world."""
    text = _RANGE.sub(lambda found: found[0].replace(had := found[1] or found[2], _shorter(had, factor)), text)
    return _SECONDS.sub(lambda found: f"{found[1]} {int(found[2]) / factor:g}", text)


def groups(given: list[Mapping[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Groups of rules in the faster world."""
    found = []
    for group in given:
        rules = []
        for rule in group["rules"]:
            changed = dict(rule)
            if rule.get("alert") not in UNTOUCHED:
                changed["expr"] = expression(rule["expr"], factor)
            if "for" in rule:
                changed["for"] = _shorter(rule["for"], factor)
            rules.append(changed)
        found.append({"name": group["name"], "rules": rules})
    return found
