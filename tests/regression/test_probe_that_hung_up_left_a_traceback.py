"""A probe that hung up before it had its answer left a traceback on standard error, some lines of it each time.

Order of events: a probe's time is over, and it closes its end · the server writes what it has, and the kernel says
BrokenPipe or ConnectionReset · the standard library prints a traceback, between lines of JSON. What else a page fails
of is still told.

Of its class: the abuse that tests/integration/test_abuse.py does to the other servers.
"""

from __future__ import annotations

import socket
import struct
import threading
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from invalidator.metrics import Metrics
from invalidator.settings import HttpSettings
from invalidator.status import StatusServer

WAIT_S = 60.0
LONG = "x" * 8_000_000
"""More than the buffers of a socket take."""


class Slow:
    """Its status is ready when the one who asked has gone."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.asked, self.gone = threading.Event(), threading.Event()
        self.answers: list[threading.Thread] = []

    def healthy(self) -> bool:
        raise KeyError("a fault of ours")

    def ready(self) -> bool:
        return True

    def status(self) -> dict[str, str]:
        self.answers.append(threading.current_thread())
        self.asked.set()
        assert self.gone.wait(WAIT_S)
        return {"what": LONG}


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_probe_that_hangs_up_is_no_news(capfd: pytest.CaptureFixture[str], reset: bool) -> None:
    watched = Slow()
    server = StatusServer(watched, HttpSettings(port=0))
    server.start()
    try:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), WAIT_S) as probe:
            probe.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            assert watched.asked.wait(WAIT_S)
            if reset:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        watched.gone.set()
        watched.answers[0].join(WAIT_S)
        assert not watched.answers[0].is_alive()
        with urlopen(f"{server.url}/readyz", timeout=WAIT_S) as answer:
            assert answer.status == 200
    finally:
        server.stop()
    assert capfd.readouterr().err == ""


def test_fault_of_ours_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    server = StatusServer(Slow(), HttpSettings(port=0))
    server.start()
    try:
        with pytest.raises((URLError, ConnectionError)):
            urlopen(f"{server.url}/healthz", timeout=WAIT_S)
    finally:
        server.stop()
    assert "a fault of ours" in capfd.readouterr().err
