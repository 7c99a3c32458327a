"""The dashboards' queries as Grafana would send them: variables filled in, intervals chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.charts.metrics import DASHBOARDS

RATE_INTERVAL = "30s"


def queries() -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and query, one for each target; annotations are panels of their own."""
    for name, board in DASHBOARDS.items():
        variables = {
            variable["name"]: variable["allValue"]
            for variable in board["templating"]["list"]
            if variable.get("includeAll")
        }
        shown = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
        for title, expression in shown:
            yield name, title, filled_in(expression, variables)
        for note in board["annotations"]["list"]:
            yield name, f"annotation {note['name']}", filled_in(note["expr"], variables)


def filled_in(expression: str, variables: dict[str, str]) -> str:
    """A query with all that a person may choose set to All. Raises `KeyError` for a variable that there is not."""
    expression = expression.replace("$__rate_interval", RATE_INTERVAL)
    return re.sub(r"\$([a-z]+)", lambda found: variables[found[1]], expression)
