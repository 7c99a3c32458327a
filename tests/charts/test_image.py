"""The image: its steps work in a fresh environment, and what it says of itself is right."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml

from tests.charts.generate import CHART
from tests.charts.image import ROOT, Image, stages, steps

pytestmark = pytest.mark.timeout(300)  # building the image takes its time on a busy machine


def run(image: Image, *command: str) -> subprocess.CompletedProcess[str]:
    """In the image's folder for applications, so that nothing of the tree is imported."""
    return subprocess.run(
        [image.program(command[0]), *command[1:]],
        cwd=image.root,
        env=image.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def tracked() -> list[tuple[str, str]]:
    """Every file of the packages that is no module: package and path in it."""
    kinds = {".lua", ".sql", ".html", ".typed", ".md"}
    paths = [path.relative_to(ROOT) for name in ("cachelib", "invalidator") for path in (ROOT / name).rglob("*")]
    return [(path.parts[0], "/".join(path.parts[1:])) for path in paths if path.suffix in kinds]


def last(what: str) -> list[str]:
    return [given for name, given in stages()[-1] if name == what]


@pytest.mark.slow
def test_built_image_runs_every_entry_point_and_reads_its_own_files(image: Image) -> None:
    for command in ("invalidator", "cachelib"):
        assert run(image, command, "--help").returncode == 0
    said = run(image, "loadgen", "--help")  # its extra is not in this image
    assert "Traceback" not in said.stderr
    code = """
import kafka, psycopg, pymemcache, redis, crc32c, lz4, zstandard, hiredis, prometheus_client
from importlib.resources import files
for package, name in FILES:
    assert files(package).joinpath(name).is_file(), name
"""
    said = run(image, "python", "-c", code.replace("FILES", repr(tracked())))
    assert said.returncode == 0, said.stderr


@pytest.mark.slow
def test_everybody_may_read_what_is_installed_and_nobody_but_root_may_write(image: Image) -> None:
    home = image.root / "opt" / "leasecache"
    for path in home.rglob("*"):
        mode = path.lstat().st_mode
        if not path.is_symlink():
            assert mode & 0o444 == 0o444, path
            assert not mode & 0o022, path
            assert not path.is_dir() or mode & 0o111 == 0o111, path
    assert not (home / "bin" / "pip").exists()


@pytest.mark.slow
def test_what_is_installed_is_pinned(image: Image) -> None:
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (CHART.parent / "image" / "constraints.txt").read_text(), re.MULTILINE))
    code = "import importlib.metadata as m; print('\\n'.join(f'{d.name}=={d.version}' for d in m.distributions()))"
    found = dict(line.split("==") for line in run(image, "python", "-c", code).stdout.splitlines())
    found.pop("leasecache")
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    unpinned = {
        f"{name}=={version}"
        for name, version in found.items()
        if normal.get(re.sub(r"[-_.]+", "-", name).lower()) != version and name != "setuptools"
    }
    assert unpinned == set()


def test_it_runs_one_process_without_root_and_says_whether_it_is_well() -> None:
    assert last("USER") == ["65532:65532"]
    assert last("CMD") == ['["invalidator", "run"]']  # a list: no shell in between that would swallow signals
    assert last("STOPSIGNAL") == ["SIGTERM"]
    assert "/healthz" in last("HEALTHCHECK")[0]
    assert not last("RUN")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["podSecurityContext"]["runAsUser"] == 65532


def test_it_is_pinned_and_labelled_as_the_project_is() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert re.search(r":\d+\.\d+\.\d+-slim-\w+$", dict(steps())["ARG"] and steps()[0][1])
    assert f"VERSION={version}" in last("ARG")
    assert chart["appVersion"] == version
    assert f"leasecache/invalidator:{version}" in chart["annotations"]["artifacthub.io/images"]
    labels = last("LABEL")[0]
    assert all(
        f"org.opencontainers.image.{name}=" in labels for name in ("title", "description", "licenses", "version")
    )


def test_what_it_copies_is_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    for what, given in stages()[0]:
        if what == "COPY":
            assert set(given.split()[:-1]) <= let_in
