"""One server as a child process: started in a folder of its own, watched, and sure to die with us.

A child dies with the test process in two ways: by `atexit` where Python ends as it should, and by the
kernel (`setpriv --pdeathsig`, Linux) where it is killed. The kernel watches the *thread* that started the
child, so all are started from one thread that lives as long as the process does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import psutil

from tests.servers.ports import HOST, free_port

START_S = 30.0
STOP_S = 10.0
_PROBE_EVERY_S = 0.02
_STARTS_MAX = 3

_starter = ThreadPoolExecutor(1, thread_name_prefix="servers")
_running: weakref.WeakSet[Server] = weakref.WeakSet()


class ServerFailed(RuntimeError):
    """A server did not start or did not stop; the message carries the end of its log."""


class Server(ABC):
    """A server process. `port` and `folder`, and with it what the server has on disk, outlive a restart."""

    name: str
    stop_signal = signal.SIGTERM
    orphan_signal = "KILL"
    """What the kernel sends when the test process dies."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._port_is_ours_to_change = port is None
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.log_file = self.folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command line, with the current port."""

    @abstractmethod
    def answers(self) -> bool:
        """Ask the server whether it serves; False or `OSError` while it does not."""

    @property
    def user(self) -> str | None:
        """Whom to run as, where that is not us."""
        return None

    # --- life --------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """The process is there (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start, and wait until the server answers. A new server whose port was snatched takes another one."""
        for _ in range(_STARTS_MAX):
            self._spawn()
            if self._wait_until_ready():
                self._port_is_ours_to_change = False
                return self
            if not self._port_is_ours_to_change:
                break
            self.port = free_port()
        raise ServerFailed(f"{self.name} did not start:\n{self.log()}")

    def stop(self) -> None:
        """Stop as an operator would, and wait until it is gone; nothing to do where it is not running."""
        self.resume()
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Kill -9, the whole process tree, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop (if it is running), and start on the same port and folder."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers. They stop one by one, and so do
        their threads: it returns when all have."""
        self._signal_tree(signal.SIGSTOP)
        until_s = time.monotonic() + STOP_S
        while not all(_stopped(process.pid) for process in self._tree()) and time.monotonic() < until_s:
            time.sleep(_PROBE_EVERY_S / 10)

    def resume(self) -> None:
        """SIGCONT; nothing to do where it is not paused."""
        self._signal_tree(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, lines: int = 30) -> str:
        """The end of the server's log."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how ---------------------------------------------------------------------------------

    def _spawn(self) -> None:
        command = [*self._guard(), *map(str, self.command())]
        self._process = _starter.submit(self._popen, command).result()
        _running.add(self)

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            # A session of its own: Ctrl-C is for pytest, whose fixtures then stop the servers.
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _guard(self) -> list[str]:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            return ["runuser", "-u", self.user, "--"] if self.user else []
        become = [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"] if self.user else []
        return [setpriv, *become, f"--pdeathsig={self.orphan_signal}"]

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + START_S
        while self.running and time.monotonic() < deadline:
            try:
                # Still running: it may have found its port taken by a server that answers just as well.
                if self.answers() and self.running:
                    return True
            except OSError:
                pass  # not listening yet
            time.sleep(_PROBE_EVERY_S)
        self.kill()
        return False

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except (psutil.NoSuchProcess, ServerFailed):
            return []

    def _signal_tree(self, number: signal.Signals) -> None:
        for process in self._tree():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                pass  # a worker that ended in between

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        tree = self._tree()  # before the root is gone: its children would no longer be found
        if number is signal.SIGKILL:
            self._signal_tree(number)
        else:
            self._process.send_signal(number)
        _, alive = psutil.wait_procs([p for p in tree if p.pid != self._process.pid], timeout=STOP_S)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            alive.append(psutil.Process(self._process.pid))
        for process in alive:
            process.kill()
        self._process.wait(STOP_S)
        self._process = None
        _running.discard(self)
        if alive:
            raise ServerFailed(f"{self.name} did not stop within {STOP_S:g} s and was killed:\n{self.log()}")


@atexit.register
def _close_all() -> None:
    for server in list(_running):
        server.close()


def ask(port: int, request: bytes, timeout_s: float = 1.0) -> bytes:
    """Send a line to a port and return the first piece of the answer; `OSError` where nobody answers."""
    with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def am_root() -> bool:
    """Whether servers that refuse to run as root need another user."""
    return os.geteuid() == 0


def _stopped(pid: int) -> bool:
    """Whether every thread of a process stands still (Linux; elsewhere it is taken to)."""
    try:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except OSError:
        return True
    return all(state in "Tt" for state in states)
