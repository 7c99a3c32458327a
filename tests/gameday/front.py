"""One address for a pod that may be made anew with another port, as a Service is."""

from __future__ import annotations

from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.gameday.cluster import Cluster


class Front:
    """See the module; `port` is the address's."""

    def __init__(self, cluster: Cluster) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pods = cluster.pods
                code, text = cluster.first().get(self.path) if pods else (0, "")
                if not code:
                    self.close_connection = True
                    return
                with suppress(BrokenPipeError, ConnectionResetError):  # a scrape that took too long was given up
                    self.send_response(code)
                    self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Answer no longer."""
        self._server.shutdown()
        self._server.server_close()
