"""One list of metrics: what rules, dashboards, runbook and documents name is in the code, and the reverse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.charts.generate import CHART
from tests.charts.metrics import DASHBOARDS, TARGET, events, ours, queries, recorded, selectors, series

ROOT = CHART.parents[1]
DOCUMENTS = [
    *sorted((CHART / "runbooks").glob("*.md")),
    *(ROOT / name for name in ("README.md", "invalidator/README.md", "cachelib/PROTOCOL.md", "loadgen/README.md")),
    CHART / "README.md",
    CHART / "values.yaml",
    *sorted((CHART / "templates").rglob("*.*")),
]
OTHERS = {"up"}
PANELS = [(name, panel) for name, board in DASHBOARDS.items() for panel in board["panels"] if panel["type"] != "row"]


def named(text: str) -> set[str]:
    return set(re.findall(r"\b((?:invalidator|leasecache)_[a-z_]*[a-z])\b(?![:.*]|\$)", text))


def tables() -> set[str]:
    """What `install` puts into a store: statements of the runbook name these."""
    text = (ROOT / "cachelib" / "stores" / "triggers" / "postgresql_log.sql").read_text()
    return set(re.findall(r"\bcreate (?:table|sequence) \S*?(leasecache_[a-z_]+)", text))


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_every_query_parses_and_asks_for_what_there_is(where: str, query: str) -> None:
    known = series()
    for selector in selectors(query):
        if selector.name in known:
            given = {matcher.name: matcher for matcher in selector.matchers.matchers}
            assert set(given) <= known[selector.name] | TARGET, f"{where}: {selector.name} has no such label"
            if "event" in given:
                assert set(given["event"].value.split("|")) <= events()
        else:
            assert selector.name in recorded() | OTHERS, f"{where}: there is no {selector.name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_that_a_document_names_exists(path: Path) -> None:
    assert named(path.read_text()) <= set(series()) | set(ours()) | tables()


def test_every_metric_is_described_in_a_document() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS if path.suffix == ".md")
    assert set(ours()) <= named(text)


def test_every_metric_is_shown_somewhere() -> None:
    text = " ".join(query for _, query in queries())
    assert {name for name in ours() if name not in text} == set()


def test_every_recorded_rule_is_used() -> None:
    text = " ".join(query for _, query in queries())
    assert {name for name in recorded() if name not in text} == set()


# --- dashboards ------------------------------------------------------------------------------


def test_there_are_three_dashboards_with_uids_that_stay() -> None:
    uids = {name: board["uid"] for name, board in DASHBOARDS.items()}
    assert uids == {
        "cache-and-origin.json": "leasecache-cache",
        "consistency.json": "leasecache-consistency",
        "invalidator.json": "leasecache-invalidator",
    }


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=lambda it: it if isinstance(it, str) else it["title"])
def test_every_panel_has_unit_description_thresholds_and_a_datasource_that_is_chosen(
    name: str, panel: dict[str, Any]
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert len(defaults["thresholds"]["steps"]) > 1
    assert panel["description"].endswith(".")
    assert panel["targets"]
    for target in (panel, *panel["targets"]):
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_dashboard_has_variables_annotations_and_room_for_its_panels(name: str) -> None:
    board = DASHBOARDS[name]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    text = str([target["expr"] for panel in board["panels"] for target in panel.get("targets", [])])
    assert set(re.findall(r"\$([a-z]+)", text.replace("$__rate_interval", ""))) | {"datasource"} <= variables
    assert [note["name"] for note in board["annotations"]["list"]] == ["Starts", "Rebalances", "New epochs"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
