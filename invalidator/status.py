"""What an orchestrator, a monitoring system and a person on call ask: probes, metrics, status."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from cachelib.errors import ConfigError
from invalidator.metrics import Metrics
from invalidator.settings import HttpSettings

PAGE = Path(__file__).with_name("page.html")
_TEXT = "text/plain; charset=utf-8"
_PAGE_MAY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)
"""It asks nobody but this server."""


class Watched(Protocol):
    """What is looked at: the daemon, or the relay."""

    @property
    def metrics(self) -> Metrics:
        """What `/metrics` shows."""

    def healthy(self) -> bool:
        """For `/healthz`."""

    def ready(self) -> bool:
        """For `/readyz`."""

    def status(self) -> Mapping[str, Any]:
        """For `/status`; JSON."""


class StatusServer:
    """Serves `/`, `/healthz`, `/readyz`, `/metrics` and `/status` from threads of its own."""

    def __init__(self, watched: Watched, settings: HttpSettings) -> None:
        class Handler(_Handler):
            pass

        Handler.watched = watched
        try:
            self._server = _Server((settings.host, settings.port), Handler)
        except OSError as error:
            raise ConfigError(
                f"http: cannot listen on {settings.host}:{settings.port} ({error.strerror}); give another port, or -1"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that hangs up before it has its answer is no news; what else fails is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    watched: Watched
    timeout = 10

    def do_GET(self) -> None:
        answer = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/status": self._status,
            "/": self._page,
        }.get(self.path.partition("?")[0])
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, b"there are / /healthz /readyz /metrics /status\n", _TEXT)
        else:
            answer()

    def _healthz(self) -> None:
        self._probe(self.watched.healthy(), "the loop turns", "the loop has not turned for too long")

    def _readyz(self) -> None:
        self._probe(self.watched.ready(), "ready", "the log was not read yet, or a node is not yet told all of it")

    def _probe(self, good: bool, yes: str, no: str) -> None:
        code = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(code, f"{yes if good else no}\n".encode(), _TEXT)

    def _metrics(self) -> None:
        metrics = self.watched.metrics
        metrics.ready.set(self.watched.ready())
        self._send(HTTPStatus.OK, metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    def _status(self) -> None:
        self._send(HTTPStatus.OK, json.dumps(self.watched.status(), indent=2).encode(), "application/json")

    def _page(self) -> None:
        self._send(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8", _PAGE_MAY)

    def _send(self, code: HTTPStatus, body: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(code)
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""
