"""A server of GETs that stands still for a second in every ten: `python -m tests.integration.stalling_server`.

Its port is its first line; each pause is a line of its start and end, nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import selectors
import socket
import time

PERIOD_S, PAUSE_S = 10.0, 1.0
FIRST_S = 4.0
"""After the first request, so that a load of eleven seconds meets one pause, and all of it."""
REPLY = b"$1\r\nx\r\n"


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    pause_at = float("inf")
    while True:
        for key, _ in selector.select(min(PERIOD_S, max(0.0, pause_at - time.monotonic()))):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            data = connection.recv(1 << 20)
            if data:
                pause_at = min(pause_at, time.monotonic() + FIRST_S)
                connection.sendall(REPLY * data.count(b"\r\nGET\r\n"))
            else:
                selector.unregister(connection)
                connection.close()
        if time.monotonic() >= pause_at:
            start_ns = time.monotonic_ns()
            time.sleep(PAUSE_S)
            print(start_ns, time.monotonic_ns(), flush=True)
            pause_at += PERIOD_S


if __name__ == "__main__":
    main()
