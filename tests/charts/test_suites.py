"""The chart's own suites (`charts/invalidator/tests`, helm-unittest), whether they notice anything, and kubeconform.

`make charts` runs this: what it needs is built from Go the first time.
"""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.generate import CHART
from tests.charts.golang import crds, lint_tools
from tests.charts.mutants import Mutant, mutants
from tests.charts.schemas import write_custom, write_own
from tests.charts.tools import CI, KUBERNETES, rendered

pytestmark = [pytest.mark.charts, pytest.mark.timeout(1800)]  # building takes its time, once


def unittest(chart: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [lint_tools() / "helm-unittest", "--strict", *more, chart]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_suite_passes() -> None:
    run = unittest(CHART)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Tests:       0 passed" not in run.stdout


def test_every_template_has_a_suite() -> None:
    suites = "".join(path.read_text() for path in (CHART / "tests").glob("*_test.yaml"))
    for template in (CHART / "templates").rglob("*.*"):
        name = str(template.relative_to(CHART / "templates"))
        assert name in suites or template.suffix == ".tpl", name


class Hunt:
    """A copy of the chart whose templates are bent, one branch at a time."""

    def __init__(self, folder: Path) -> None:
        self._chart = folder / "invalidator"
        shutil.copytree(CHART, self._chart)
        self._suites = sorted(path.name for path in (CHART / "tests").glob("*_test.yaml"))

    def survives(self, mutant: Mutant) -> bool:
        """Whether every suite is content with it."""
        target = self._chart / "templates" / mutant.file
        target.write_text(mutant.text)
        try:
            return not any(map(self._notices, tuple(self._suites)))
        finally:
            shutil.copyfile(CHART / "templates" / mutant.file, target)

    def _notices(self, suite: str) -> bool:
        noticed = unittest(self._chart, "--failfast", "-f", f"tests/{suite}").returncode != 0
        if noticed:  # it is asked first about the next branch, which is mostly beside this one: all suites take longer
            self._suites.remove(suite)
            self._suites.insert(0, suite)
        return noticed


def test_a_branch_that_goes_the_wrong_way_is_noticed_by_a_suite(tmp_path: Path) -> None:
    found = list(mutants(CHART / "templates"))
    assert len(found) > 150
    halves = [found[: len(found) // 2], found[len(found) // 2 :]]

    def run(number: int) -> list[str]:
        hunt = Hunt(tmp_path / str(number))
        return [str(one) for one in halves[number] if hunt.survives(one)]

    with ThreadPoolExecutor(len(halves)) as pool:
        alive = [line for part in pool.map(run, range(len(halves))) for line in part]
    assert alive == [], "\n".join(alive)


def test_a_suite_that_is_asked_alone_is_content_with_the_chart_as_it_is(tmp_path: Path) -> None:
    """Else the hunt would find every branch noticed."""
    it = next(mutants(CHART / "templates"))
    as_it_is = (CHART / "templates" / it.file).read_text()
    assert Hunt(tmp_path / "same").survives(Mutant(it.file, it.line, "nothing", as_it_is))


# --- what the API server would say ----------------------------------------------------------


@pytest.fixture(scope="module", params=KUBERNETES)
def schemas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(f"schemas-{request.param}")
    write_own(request.param, folder)
    assert write_custom(crds(), folder) == {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject"}
    return folder


def conforms(schemas: Path, manifests: str) -> subprocess.CompletedProcess[str]:
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [lint_tools() / "kubeconform", "-strict", "-summary", "-schema-location", location, "-"]
    return subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)


def test_kubeconform_finds_nothing_in_any_object_custom_ones_included(schemas: Path) -> None:
    kinds = set()
    for values in sorted(CI.glob("*-values.yaml")):
        text = rendered(values)
        kinds |= {one["kind"] for one in yaml.safe_load_all(text) if one}
        run = conforms(schemas, text)
        assert run.returncode == 0, f"{values.name}: {run.stdout}"
        assert "Invalid: 0, Errors: 0, Skipped: 0" in run.stdout
    assert kinds > {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject", "StatefulSet"}


@cache
def everything() -> str:
    """What the chart renders with every file of values."""
    return "\n---\n".join(rendered(file) for file in sorted(CI.glob("*-values.yaml")))


def broken(kind: str, path: str, value: Any) -> str:
    """An object of the chart with a fault in it."""
    it = next(one for one in yaml.safe_load_all(everything()) if one and one["kind"] == kind)
    at: Any = it
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        at = at[part]
    at[last] = value
    return yaml.safe_dump(it)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ServiceMonitor", "spec.endpoints.0.intervall", "15s"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "often"),
        ("PrometheusRule", "spec.groups.0.rules.0.exprs", "up"),
        ("ScaledObject", "spec.minReplicaCount", "two"),
        ("StatefulSet", "spec.replica", 2),
        ("PodDisruptionBudget", "spec.maxUnavailable", [1]),
    ],
)
def test_kubeconform_notices_a_fault(schemas: Path, kind: str, path: str, value: Any) -> None:
    run = conforms(schemas, broken(kind, path, value))
    assert run.returncode == 1, run.stdout
    assert "Invalid: 1" in run.stdout
