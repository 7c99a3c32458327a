"""A free port on the loopback address."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections (32768 and up), so that
# no client can sit on a server's port while that server restarts.
_LOWEST, _HIGHEST = 20_000, 32_000
# Not the seeded `random` of a test: two runs with one seed at the same time would want the same ports.
_choose = random.SystemRandom().randrange
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on and that this process has not given out before."""
    for _ in range(1000):
        port = _choose(_LOWEST, _HIGHEST)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port between {_LOWEST} and {_HIGHEST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
