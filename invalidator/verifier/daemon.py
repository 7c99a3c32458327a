"""From settings to a running verifier: the store, the log as an onlooker sees it, the nodes, the status server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from cachelib.errors import ConfigError
from cachelib.truths import Truths
from invalidator.config import redacted
from invalidator.daemon import open_nodes, open_store, read_rules
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.onlooker import looking_on
from invalidator.settings import Settings
from invalidator.status import StatusServer
from invalidator.verifier.probe import Probe
from invalidator.verifier.report import VerifierOverview, report, told
from invalidator.verifier.service import Verifier, World


class VerifierDaemon:
    """`with VerifierDaemon(settings) as daemon: daemon.verifier.run()`. Raises `ConfigError`, `StoreError`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = read_rules(settings)
        self._log = open_log(settings.log)
        self._server: StatusServer | None = None
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._opened.close()
            raise
        return self

    def _open(self) -> None:
        settings, opened = self._settings, self._opened
        store = open_store(settings)
        opened.callback(store.close)
        store.identity()  # creates the log where there is none
        nodes = []
        for name, backend in open_nodes(settings):
            nodes.append(Probe(name, backend, settings.namespace, settings.consumer, self._log))
            opened.callback(nodes[-1].close)
        source = opened.enter_context(looking_on(settings, store, self._rules, self._log))
        # A reader of its own: nothing that it reads or leaves unread is committed for anybody.
        reader = source.reader(source.end())
        opened.callback(reader.close)
        self.verifier = Verifier(
            World(store, reader, nodes, self._rules, Truths(store)),
            settings.verify,
            settings.namespace,
            metrics=Metrics(),
            log=self._log,
        )
        if settings.http.port >= 0:
            self._server = StatusServer(VerifierOverview(self.verifier, settings.http), settings.http)
            self._server.start()
            opened.callback(self._server.stop)

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def says(self) -> str:
        """One line about what it does, without secrets."""
        nodes = ", ".join(node.name for node in self.verifier.world.nodes)
        where = f"; status on {self._server.url}" if self._server is not None else ""
        return f"verifying {nodes} against {redacted(self._settings.store_url())}{where}"

    def told(self) -> Iterator[str]:
        """The report for people."""
        return told(self.verifier, time.monotonic())

    def write(self, path: Path) -> None:
        """The report as JSON. Raises `ConfigError`."""
        try:
            path.write_text(json.dumps(report(self.verifier, time.monotonic()), indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--report: {path} cannot be written: {error.strerror}") from error
