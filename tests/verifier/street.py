"""The shop and the verifier side by side: servers, processes, and what the verifier says of the shop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from cachelib.stores import SqlStore

ROOT = Path(__file__).parents[2]
AGES = [f"{ms}ms" for ms in range(100, 2001, 100)]
CONFIG = """
caches = {caches}
entities = ["tests.verifier.entities:entities"]
store = {{ url = "{store}" }}
source = {{ poll = "20ms" }}
apply = {{ positions = "50ms", commit = "200ms" }}
http = {{ port = {port} }}
log = {{ format = "json", level = "{level}" }}
verify = {{ after = {ages}, sample = 100000, loads = 500, hot = 100, tolerate = "1h", \
absent_after = "300ms", poll = "50ms", report = "10s" }}
"""


@dataclass(frozen=True, slots=True)
class Street:
    """A shop with or without a bug, and a verifier that looks at it."""

    folder: Path
    url: str

    def status(self) -> Mapping[str, Any]:
        """The verifier's page."""
        with urllib.request.urlopen(self.url + "/status", timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def found_on(self) -> dict[str, str]:
        """By node, why its first stale item is, of those that lateness does not explain."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = {}
        for line in lines:
            if line.startswith("invalidator_verify_stale_total{") and 'why="lag"' not in line:
                labels = dict(part.split("=", 1) for part in line[line.index("{") + 1 : line.index("}")].split(","))
                found[labels["node"].strip('"')] = labels["why"].strip('"')
        return found


def make_store(folder: Path) -> str:
    """A SQLite file with the shop's table."""
    url = f"sqlite:///{folder / 'shop.db'}"
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.execute(text("create table things (id integer primary key, note text, grp integer)"))
        rows = [{"id": number, "grp": number % 10} for number in range(300)]
        conn.execute(text("insert into things values (:id, 'first', :grp)"), rows)
    engine.dispose()
    with SqlStore(url) as store:
        store.install("things", key="id", watch="grp")
    return url


@contextmanager
def street(folder: Path, caches: Sequence[str], bug: str = "") -> Iterator[Street]:
    """Both run until the block ends."""
    store = make_store(folder)
    given = {"caches": json.dumps(list(caches)), "store": store, "ages": json.dumps(AGES)}
    for name, port, level in (("shop", -1, "error"), ("verify", 0, "info")):
        text_ = CONFIG.format(**given, port=port, level=level)
        (folder / f"{name}.toml").write_text(text_)
    with ExitStack() as stack:
        _start(stack, folder, "shop", "tests.verifier.shop", str(folder / "shop.toml"), bug)
        said = _start(stack, folder, "verify", "invalidator", "verify", "--config", str(folder / "verify.toml"))
        yield Street(folder, said.rpartition(" ")[2].strip())


def _start(stack: ExitStack, folder: Path, name: str, module: str, *arguments: str) -> str:
    """What it says first."""
    log = stack.enter_context((folder / f"{name}.log").open("w"))
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout is not None
    stack.callback(process.stdout.close)
    stack.callback(process.wait, 20)
    stack.callback(process.kill)
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{name} ended: {(folder / f'{name}.log').read_text()[-2000:]}")
    return line


def until_found(street: Street, nodes: int, seconds: float) -> tuple[dict[str, tuple[float, str]], int]:
    """By node, after how long it was found and why; and the checks that were made by then."""
    began_s, found = time.monotonic(), {}
    status: Mapping[str, Any] = {}
    while len(found) < nodes and time.monotonic() - began_s < seconds:
        time.sleep(0.1)
        for node, why in street.found_on().items():
            found.setdefault(node, (time.monotonic() - began_s, why))
        status = street.status()
    return found, int(status["checks"])
