"""The alerts: Prometheus reads them, they fire when they should and stay silent otherwise, and each has its page."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.generate import CHART
from tests.charts.rule_cases import HEALTHY, Case, cases
from tests.charts.tools import CI, objects, one
from tests.servers.missing import require

RULES_FILE = CHART / "files" / "rules.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("promtool"), *arguments], capture_output=True, text=True, check=False)


def verdict(given: list[Case], folder: Path) -> str:
    """What promtool says against them; nothing where all is as they say."""
    folder.mkdir()
    document = {"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": [case.test() for case in given]}
    (folder / "tests.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    run = promtool("test", "rules", folder / "tests.yaml")
    return run.stdout + run.stderr if run.returncode else ""


def test_promtool_finds_nothing_in_the_file_nor_in_what_is_rendered(tmp_path: Path) -> None:
    found = [RULES_FILE]
    for values in ("outbox", "kafka"):
        found.append(tmp_path / f"{values}.yaml")
        found[-1].write_text(yaml.safe_dump(one("PrometheusRule", objects(CI / f"{values}-values.yaml"))["spec"]))
    run = promtool("check", "rules", "--lint=all", "--lint-fatal", *found)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)  # on a busy machine
def test_exactly_the_right_alerts_fire(tmp_path: Path) -> None:
    """About seventy cases; promtool does one after the other, so two of it run side by side."""
    require("promtool")
    parts = [cases()[::2], cases()[1::2]]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(verdict, parts, [tmp_path / "0", tmp_path / "1"]))
    assert not any(said), "".join(said)


def test_promtool_notices_a_wrong_case(tmp_path: Path) -> None:
    assert "FAILED" in verdict([Case("nothing is wrong, they say", ("CacheNodeDown",), at=10)], tmp_path / "wrong")


def test_every_alert_has_a_case_in_which_it_fires_and_its_series_one_in_which_they_are_missing() -> None:
    fired = {name for case in cases() for name in case.fires}
    assert fired == {rule["alert"] for rule in ALERTS}
    # That a connector's topics prove no lag is no missing series: it is what its cases are about.
    missing = [case for case in cases() if "a connector's topics" not in case.name]
    without = [case for case in missing if case.alone or None in case.series.values()]
    assert {name for case in without for name in case.fires} <= {"ConsumersDown", "NoChangeLogTraffic"}
    assert len(without) >= 4
    assert all("{" in name for name in HEALTHY)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_a_person_needs(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket", "info")
    notes = rule["annotations"]
    assert notes["runbook_url"].endswith(f"/{rule['alert']}.md")
    assert 10 < len(notes["summary"]) < 80
    assert not notes["summary"].endswith(".")
    assert "{{" in notes["description"]


def test_every_metric_is_written_with_braces_so_that_the_chart_can_narrow_it() -> None:
    for rule in RULES:
        assert not re.findall(r"\b(?:invalidator|leasecache)_[a-z_]+\b(?!\{)", rule["expr"]), rule


def test_the_chart_narrows_every_selector_and_changes_what_it_is_told_to() -> None:
    rendered = one("PrometheusRule", objects(CI / "kafka-values.yaml"))["spec"]["groups"]
    found = {rule["alert"]: rule for group in rendered for rule in group["rules"] if "alert" in rule}
    text = str([rule["expr"] for group in rendered for rule in group["rules"]])
    ours = re.findall(r"(invalidator|leasecache)_[a-z_]+(\{[^}]*\})", text)
    assert ours
    for whose, selector in ours:
        wanted = "namespace='shop'" if whose == "invalidator" else "namespace=~'shop|web'"
        assert wanted in selector.replace('"', "'").replace("\\", "")
    assert "UnknownTables" not in found
    assert found["LeaseContention"]["for"] == "30m"
    assert found["LeaseContention"]["labels"] == {"severity": "info", "team": "shop"}
    assert rendered[-1]["name"] == "shop.extra"


def test_without_client_selectors_their_metrics_are_left_alone() -> None:
    rendered = str(one("PrometheusRule", objects(CI / "outbox-values.yaml"))["spec"])
    assert "leasecache_reads_total{}" in rendered
    assert "{," not in rendered
    assert ",}" not in rendered
