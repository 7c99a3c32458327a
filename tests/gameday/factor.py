"""Alerts made quicker: the same rules in a world whose clock runs `factor` times as fast.

Divided by the factor are: every range and offset (`[5m]`, `offset 10m`), every `for`, and the seconds that an alert
compares with (those named in `SECONDS`, each written once in rules.yaml). Not touched: shares, counts and rates, the
bound of 1 s in the staleness objective, and names of recorded series (`rate5m` keeps its name). So a count in a window
(`increase(…[10m]) > 10`) wants the same number of things in less time: the load of a game day is that much denser.
The daemon's own durations that alerts rest on are divided in `world.py`.

Alerts that look at quarters of an hour, hours and days (`LONG`) would still take too long: a world may have a second,
larger factor for these and for what is recorded for them.
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
# What only these look at is made quicker with them: alerts, and recorded series of which each rests on one metric.
LONG = {
    *("StalenessBudgetBurnFast", "StalenessBudgetBurnSlow", "HitRatioDrop", "OriginLoadHigh"),
    *("LeaseContention", "LeaseExpiredFills", "UndecodableItems"),
    *(f"job:visibility_slow:ratio_rate{span}" for span in ("5m", "30m", "1h", "6h", "3d")),
    *("entity:reads:rate5m", "entity:hits:ratio_rate15m", "namespace:loads:rate5m"),
}
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


def factor_of(name: str, factor: float, long: float | None) -> float:
    """By what the times of an alert or of a recorded series are divided."""
    return long if long is not None and name in LONG else factor


def groups(given: list[Mapping[str, Any]], factor: float, long: float | None = None) -> list[dict[str, Any]]:
    """Groups of rules in the faster world. `long`: the factor of those in `LONG`, where it is another one."""
    found = []
    for group in given:
        rules = []
        for rule in group["rules"]:
            changed = dict(rule)
            by = factor_of(str(rule.get("alert") or rule["record"]), factor, long)
            if rule.get("alert") not in UNTOUCHED:
                changed["expr"] = expression(rule["expr"], by)
            if "for" in rule:
                changed["for"] = _shorter(rule["for"], by)
            rules.append(changed)
        found.append({"name": group["name"], "rules": rules})
    return found
