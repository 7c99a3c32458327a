"""Every metric of ours with its labels, as the code has them, and the queries in which they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml

from cachelib.metrics import EVENT_HELP, HELP, READ_SECONDS
from cachelib.metrics import Metrics as ClientMetrics
from invalidator.metrics import Metrics as DaemonMetrics
from tests.charts.generate import CHART

TARGET = {"namespace", "job", "instance", "pod", "le"}
"""Labels that scraping adds, and that of buckets."""

DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}
GROUPS = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]


def ours() -> dict[str, set[str]]:
    """Name of each metric, as documents name it, to its labels."""
    found = {}
    for collector in DaemonMetrics().registry._collector_to_names:
        labels = set(collector._labelnames)  # type: ignore[attr-defined]
        (family,) = collector.collect()
        found[family.name + ("_total" if family.type == "counter" else "")] = labels
    label = {"reads": "source", "events": "event", "loads": "outcome", "writes": "outcome"}
    label |= {"compared": "level", "mismatches": "level"}
    for name in HELP:
        found[name] = {"entity"} | {other for part, other in label.items() if name == f"leasecache_{part}_total"}
    return found


def series() -> dict[str, set[str]]:
    """Name of each series that can be asked for, to its labels: a histogram has three."""
    client = ClientMetrics()
    client.tally("x").read_seconds.add(1)
    histograms = {
        family.name
        for source in (DaemonMetrics().registry.collect(), client.collect())
        for family in source
        if family.type == "histogram"
    }
    assert READ_SECONDS in histograms
    return {
        name + suffix: labels
        for name, labels in ours().items()
        for suffix in (("_bucket", "_count", "_sum") if name in histograms else ("",))
    }


def recorded() -> set[str]:
    """Names of recording rules."""
    return {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}


def queries() -> Iterator[tuple[str, str]]:
    """Every query of rules and dashboards, with where it stands."""
    for group in GROUPS:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{name}: {panel['title']}", target["expr"]
        for note in board["annotations"]["list"]:
            yield f"{name}: annotation {note['name']}", note["expr"]


def selectors(query: str) -> Iterator[Any]:
    """Every selector in a query. Raises `ValueError` where it is none."""
    yield from _walk(promql_parser.parse(query.replace("$__rate_interval", "5m")))


def _walk(node: Any) -> Iterator[Any]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param", "args"):
        inner = getattr(node, name, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None and not isinstance(each, str | int | float):
                yield from _walk(each)


def events() -> set[str]:
    """What the client's events are called."""
    return set(EVENT_HELP)
