"""`invalidator verify` as a process beside a `Daemon` of the tests, with its settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pymemcache
import redis

from tests.integration.invalidator_daemon import Daemon, until

AGES = {"after": ["100ms", "500ms", "1500ms"], "loads": 1000, "tolerate": "1s", "absent_after": "500ms", "poll": "50ms"}


class Verifying:
    """`with Verifying(daemon, "--for", "3s", loads=5) as it: ...; report = it.ended(0)`."""

    def __init__(self, daemon: Daemon, *arguments: str, **verify: Any) -> None:
        self._folder = daemon.folder
        self._report = daemon.folder / "report.json"
        # Another section more; the daemon has read its file already.
        daemon.settings["verify"] = {**AGES, **verify}
        daemon.write()
        self._command = [sys.executable, "-m", "invalidator", "verify", "--config", str(daemon.config), "--debug"]
        self._command += ["--report", str(self._report), *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        with (self._folder / "verifier.log").open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready:"), f"it said {line!r}\n{(self._folder / 'verifier.log').read_text()}"
        self.url = re.findall(r"http://\S+", line)[0]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return str(answer.read().decode())

    def status(self) -> Mapping[str, Any]:
        return dict(json.loads(self.get("/status")))

    def log(self) -> list[dict[str, Any]]:
        lines = (self._folder / "verifier.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stopped(self, code: int, when: Callable[[Mapping[str, Any]], object]) -> Mapping[str, Any]:
        """Wait until its page says so, then stop it as an orchestrator does; what it reports."""
        until(lambda: when(self.status()))
        assert self._process is not None
        self._process.terminate()
        return self.ended(code)

    def ended(self, code: int) -> Mapping[str, Any]:
        """What it reports when its time is up."""
        assert self._process is not None
        said, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == code, f"{said}\n{(self._folder / 'verifier.log').read_text()[-3000:]}"
        self.said = said.splitlines()
        return dict(json.loads(self._report.read_text()))


def plant(url: str, name: bytes, raw: bytes) -> None:
    """Put these bytes where the item is, past every rule."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.set(name, raw, px=60_000)
        return
    host, _, port = url.removeprefix("memcached://").partition(":")
    client = pymemcache.Client((host, int(port)))
    assert client.set(name, raw, 60, noreply=False)
    client.close()
