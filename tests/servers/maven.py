"""Kafka and the Debezium connectors from Maven Central: fetched once, kept between runs.

They are kept under `$XDG_CACHE_HOME/leasecache`, else in the tree's `build/`, in a folder named
after what is in it, so a change of version fetches anew. A folder that exists is complete: it is
filled under another name and then renamed, under a lock that parallel runs wait for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.servers.missing import missing, require

KAFKA = "4.1.1"
DEBEZIUM = "3.5.0.Final"  # built with Kafka 4.1.1
_LOG4J = "2.25.1"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_DEPENDENCIES = (
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.kafka", "kafka-tools", KAFKA),
    ("org.apache.kafka", "connect-runtime", KAFKA),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", _LOG4J),
    ("org.apache.logging.log4j", "log4j-core", _LOG4J),
)
_CONNECTOR = f"io.debezium:debezium-connector-postgres:{DEBEZIUM}:tar.gz:plugin"
_OTHERS = "io.debezium:debezium-connector-{database}:" + f"{DEBEZIUM}:tar.gz:plugin"
_BUILD = Path(__file__).parents[2] / "build"


@dataclass(frozen=True)
class Jars:
    """Where they are. `libs` is a class path's folder, `plugins` a `plugin.path`."""

    libs: Path
    plugins: Path


@cache
def jars() -> Jars:
    """Kafka's and the connector's, fetched if need be (seconds); skips or fails the test where that cannot be."""
    require("java")
    libs = [f"{_PLUGIN}:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]
    home = _kept("kafka", _CONNECTOR, [libs, _unpack(_CONNECTOR)])
    return Jars(home / "libs", home / "plugins")


@cache
def plugins(database: str) -> Path:
    """A `plugin.path` with the connector for another database: "mariadb", "mysql". Fetched as `jars` are."""
    connector = _OTHERS.format(database=database)
    return _kept(f"debezium-{database}", connector, [_unpack(connector)]) / "plugins"


def _unpack(artifact: str) -> list[str]:
    return [f"{_PLUGIN}:unpack", f"-Dartifact={artifact}", "-DoutputDirectory=plugins"]


def _kept(name: str, connector: str, goals: list[list[str]]) -> Path:
    """The folder with what Maven's goals fetch, filled if need be."""
    kept = os.environ.get("XDG_CACHE_HOME")
    parent = Path(kept) / "leasecache" if kept else _BUILD
    home = parent / f"{name}-{hashlib.sha256((_pom() + connector).encode()).hexdigest()[:12]}"
    if not home.exists():
        maven = require("mvn")
        home.parent.mkdir(parents=True, exist_ok=True)
        with _locked(home.with_suffix(".lock")):
            if not home.exists():  # nobody else has done it while we waited
                _fetch(maven, home, goals)
    return home


def _fetch(maven: Path, home: Path, goals: list[list[str]]) -> None:
    new = home.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / "pom.xml").write_text(_pom())
    for goal in goals:
        run = subprocess.run([maven, "-B", "-q", *goal], cwd=new, capture_output=True, text=True, check=False)
        if run.returncode:
            missing(home.name, f"Maven must reach a repository that has it; it said: {run.stdout[-500:]}")
    new.rename(home)


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        "</dependency>\n"
        for group, artifact, version in _DEPENDENCIES
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>\n'
        "<groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\n"
        f"<dependencies>\n{dependencies}</dependencies></project>\n"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process; the kernel lets go of it where the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
