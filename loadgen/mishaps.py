"""What goes wrong on purpose while a load runs: one kind at a time, begun after a third of it, ended in time.

Each is done to the real thing: signals to the invalidator's process, a second invalidator, a replay of the
log, a cache server that is killed and started again. Every begin and end is a mark on the run's timeline.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from cachelib.errors import CacheError, ConfigError
from loadgen.result import Mark
from loadgen.servers import HOST, Invalidator, Redis
from loadgen.stage import Stage

HELD_S, LET_S = 0.4, 0.1
"""A delayed bus: the daemon stands still so long, then runs so long, and again."""
REPLAY_S = 60.0
SAVE_S = 10.0


class MishapFailed(CacheError):
    """What was to go wrong could not be made to."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`text`: what is done. `act` does it until `wait` returns False, and has undone it when it returns."""

    name: str
    text: str
    act: Callable[[Mishap], None] | None
    needs: str = ""
    """invalidator, server or redis: what has to be ours to be broken."""


class Mishap:
    """One kind on one stage: a `Director`."""

    def __init__(self, kind: Kind, stage: Stage, seconds: float, said: Callable[[str], None]) -> None:
        self.stage = stage
        self._kind = kind
        self._seconds = seconds
        self._said = said
        self._stop = Event()
        self._until = 0.0
        self._start_ns = 0
        self._marks: list[Mark] = []
        self._error: Exception | None = None

    @contextmanager
    def during(self, start_ns: int, end_ns: int) -> Iterator[Sequence[Mark]]:
        """See `engine.bench.Director`. Raises what could not be done, when the block is left."""
        self._start_ns = start_ns
        thread = Thread(target=self._run, args=(start_ns, end_ns), daemon=True)
        thread.start()
        try:
            yield self._marks
        finally:
            self._stop.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, start_ns: int, end_ns: int) -> None:
        first_s = (start_ns + (end_ns - start_ns) / 3 - time.monotonic_ns()) / 1e9
        if self._kind.act is None or self._stop.wait(max(0.0, first_s)):
            return
        self._until = time.monotonic() + self._seconds
        try:
            self._kind.act(self)
        except (CacheError, OSError, subprocess.SubprocessError) as error:
            self._error = MishapFailed(f"{self._kind.name}: {error}")

    # --- for the kinds ------------------------------------------------------------------------------

    def mark(self, kind: str, text: str) -> None:
        """Now."""
        self._marks.append(Mark(round((time.monotonic_ns() - self._start_ns) / 1e9, 3), kind, text))
        self._said(text)

    def wait(self, seconds: float | None = None) -> bool:
        """Until the mishap is over, or for so long at most; whether it goes on."""
        left = self._until - time.monotonic()
        over = self._stop.wait(max(0.0, left if seconds is None else min(left, seconds)))
        return not over and time.monotonic() < self._until

    def anew(self) -> None:
        """The whole time once more."""
        self._until = time.monotonic() + self._seconds

    @property
    def daemon(self) -> Invalidator:
        """The stage's invalidator."""
        if self.stage.invalidator is None:
            raise MishapFailed("the stage has no invalidator of its own")
        return self.stage.invalidator

    def signal(self, number: signal.Signals) -> None:
        """To the invalidator's process."""
        if (pid := self.daemon.pid) is not None:
            os.kill(pid, number)


# --- the kinds --------------------------------------------------------------------------------------


def _killed(mishap: Mishap) -> None:
    mishap.daemon.kill()
    mishap.mark("killed", "kill -9 of the invalidator")
    mishap.wait()
    mishap.daemon.start()
    mishap.mark("back", "the invalidator is ready again")


def _paused(mishap: Mishap) -> None:
    mishap.signal(signal.SIGSTOP)
    mishap.mark("paused", "the invalidator stands still (SIGSTOP)")
    mishap.wait()
    mishap.signal(signal.SIGCONT)
    mishap.mark("resumed", "the invalidator goes on")


def _delayed(mishap: Mishap) -> None:
    mishap.mark("delayed", f"every change may wait up to {HELD_S:g} s before the invalidator sees it")
    going = True
    while going:
        mishap.signal(signal.SIGSTOP)
        going = mishap.wait(HELD_S)
        mishap.signal(signal.SIGCONT)
        going = going and mishap.wait(LET_S)
    mishap.mark("prompt", "changes are seen at once again")


def _duplicated(mishap: Mishap) -> None:
    second = mishap.stage.new_invalidator()
    second.environment["INVALIDATOR_CONSUMER"] = "second"  # its own offsets: it reads every change too
    second.start()
    mishap.mark("doubled", "a second invalidator applies every change once more")
    mishap.anew()  # its start has taken some of the time
    mishap.wait()
    second.stop()
    mishap.mark("single", "the second invalidator is gone")


def _rewound(mishap: Mishap) -> None:
    mishap.mark("rewound", "the whole log is applied again, from its beginning")
    going, times = True, 0
    while going:
        line = [part if part != "run" else "replay" for part in mishap.daemon.command()]
        line = [*line[: line.index("--http-port")], "--from", "START"]
        ended = subprocess.run(
            line,
            env=os.environ | mishap.daemon.environment,
            capture_output=True,
            text=True,
            timeout=REPLAY_S,
            check=False,
        )
        if ended.returncode:
            raise MishapFailed(ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else "the replay failed")
        times, going = times + 1, mishap.wait(0.1)
    mishap.mark("applied", f"the log was applied {times} times more")


def _emptied(mishap: Mishap) -> None:
    server = mishap.stage.server
    assert server is not None
    server.kill()
    mishap.mark("killed", "kill -9 of the cache server")
    mishap.wait(0.5)
    server.start()
    mishap.mark("empty", "the cache server is back, and empty")


def _old(mishap: Mishap) -> None:
    server = mishap.stage.server
    assert isinstance(server, Redis)
    with socket.create_connection((HOST, server.port), timeout=SAVE_S) as connection:
        connection.sendall(b"SAVE\r\n")
        if not connection.recv(64).startswith(b"+OK"):
            raise MishapFailed("the cache server did not save its data")
    mishap.mark("saved", "the cache server has saved what it holds")
    mishap.wait()
    server.kill()
    server.start()
    mishap.mark("old", "the cache server was killed, and is back with what it had saved")


KINDS = {
    one.name: one
    for one in (
        Kind("none", "nothing goes wrong", None),
        Kind("invalidator-killed", "kill -9, and a new start after a while", _killed, "invalidator"),
        Kind(
            "invalidator-paused",
            "it stands still for a while, then goes on",
            _paused,
            "invalidator",
        ),
        Kind("bus-delayed", "changes come late, in bursts", _delayed, "invalidator"),
        Kind("bus-duplicated", "every change is applied by two invalidators", _duplicated, "invalidator"),
        Kind("bus-rewound", "the log is applied again from its beginning, over and over", _rewound, "invalidator"),
        Kind("cache-emptied", "the cache server is killed, and is back empty", _emptied, "server"),
        Kind("cache-old", "the cache server is killed, and is back with data of some time ago", _old, "redis"),
        Kind("slow-store", "each load of the store takes a quarter of a second", None),
    )
}
SLOW_ORIGIN_MS = 250.0


def kinds_of(names: Sequence[str], backend: str) -> list[Kind]:
    """By name; none given: every one that the backend can have. Raises `ConfigError`."""
    if not names:
        return [kind for kind in KINDS.values() if kind.needs != "redis" or backend == "redis"]
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"there is no fault {name!r}: there are {', '.join(KINDS)}")
        if KINDS[name].needs == "redis" and backend != "redis":
            raise ConfigError(f"{name} needs a server that saves its data: {backend} does not, take redis")
    return [KINDS[name] for name in names]
