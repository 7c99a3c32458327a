"""A real Prometheus: scrapes what it is told to, evaluates rules, and is asked about alerts and queries."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.missing import require
from tests.servers.ports import HOST
from tests.servers.process import Server, ask

Target = tuple[str, Mapping[str, str]]
"""An address (`127.0.0.1:8625`) and the labels of everything that is scraped from it."""


class PrometheusServer(Server):
    """`PrometheusServer({"invalidator": [("127.0.0.1:8625", {"pod": "a"})]}, rules=text, every="500ms")`.

    Jobs to their targets; `rules` is the text of a rule file; scrapes and rules come `every` so often.
    """

    name = "prometheus"

    def __init__(
        self, jobs: Mapping[str, Sequence[Target]], *, rules: str = "groups: []", every: str = "500ms"
    ) -> None:
        self.binary = require("prometheus")
        super().__init__()
        self._jobs, self._rules, self._every = jobs, rules, every

    @property
    def url(self) -> str:
        """Of its interface."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str | Path]:
        """See `Server.command`; writes the configuration first."""
        scrapes = [
            {
                "job_name": job,
                "static_configs": [{"targets": [address], "labels": dict(labels)} for address, labels in targets],
            }
            for job, targets in self._jobs.items()
        ]
        every = {"scrape_interval": self._every, "scrape_timeout": self._every, "evaluation_interval": self._every}
        config = {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": scrapes}
        (self.folder / "rules.yaml").write_text(self._rules)
        (self.folder / "prometheus.yaml").write_text(json.dumps(config))  # which YAML is
        return [
            self.binary,
            f"--config.file={self.folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        """Ready, as it says itself."""
        return b" 200 " in ask(self.port, b"GET /-/ready HTTP/1.0\r\n\r\n")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now, series by series. Raises `OSError` where it is refused."""
        found: list[dict[str, Any]] = self._get(f"query?query={urllib.parse.quote(expression)}")["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    def _get(self, path: str) -> dict[str, Any]:
        # Without proxies: this is a loopback address whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data
