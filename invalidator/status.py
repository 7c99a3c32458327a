"""What an orchestrator, a monitoring system and a person on call ask: probes, metrics, status."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cachelib.errors import ConfigError
from invalidator.service import Service
from invalidator.settings import HttpSettings

_TEXT = "text/plain; charset=utf-8"


def status_of(service: Service) -> dict[str, Any]:
    """Everything that one looks at first."""
    committed = service.books.committed
    return {
        "ready": service.ready(),
        "healthy": service.healthy(),
        "store_error": service.store_error,
        "store": service.lineage.current()[0],
        "generation": service.lineage.current()[1],
        "read": dict(service.positions),
        "committed": dict(committed.positions) if committed else None,
        "entities": [entity.name for entity in service.rules.entities],
        "tables": sorted(service.rules.tables),
        "nodes": {
            worker.name: {
                "answers": worker.session is not None and worker.failing_since_s is None,
                "counts": worker.counts,
                "goes_along": worker.in_window,
                "behind": worker.behind(),
                "position": dict(worker.confirmed),
                "watermark_us": worker.session.proof.watermark_us if worker.session else None,
                "caught_up": worker.session.proof.caught_up if worker.session else False,
                "error": worker.last_error,
            }
            for worker in service.fleet
        },
    }


class StatusServer:
    """Serves `/healthz`, `/readyz`, `/metrics` and `/status` from threads of its own."""

    def __init__(self, service: Service, settings: HttpSettings) -> None:
        class Handler(_Handler):
            pass

        Handler.service = service
        try:
            self._server = ThreadingHTTPServer((settings.host, settings.port), Handler)
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


class _Handler(BaseHTTPRequestHandler):
    service: Service
    timeout = 10

    def do_GET(self) -> None:
        answer = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/status": self._status,
        }.get(self.path.partition("?")[0])
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, b"there are /healthz /readyz /metrics /status\n", _TEXT)
        else:
            answer()

    def _healthz(self) -> None:
        self._probe(self.service.healthy(), "the loop turns", "the loop has not turned for too long")

    def _readyz(self) -> None:
        self._probe(self.service.ready(), "ready", "the log was not read yet, or a node is not yet told all of it")

    def _probe(self, good: bool, yes: str, no: str) -> None:
        code = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(code, f"{yes if good else no}\n".encode(), _TEXT)

    def _metrics(self) -> None:
        self.service.metrics.ready.set(self.service.ready())
        self._send(HTTPStatus.OK, self.service.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    def _status(self) -> None:
        self._send(HTTPStatus.OK, json.dumps(status_of(self.service), indent=2).encode(), "application/json")

    def _send(self, code: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""
