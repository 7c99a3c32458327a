"""What happens to the servers and processes while registers are read and written."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess

from cachelib import Cache
from cachelib.errors import CacheError
from loadgen.servers import Invalidator
from tests.servers.memcached import MemcachedServer
from tests.servers.process import ask
from tests.servers.redis import RedisServer
from tests.soak.register_disasters import Nodes
from tests.soak.registers import ENTITY

_AWAY_S = (0.0, 2.0)
_OLD_S = (0.5, 3.0)
_MODES = ("no_fill", "bypass", "on")


class Crew:
    """Processes by name; each may be killed, and another takes its place."""

    def __init__(self, starts: Mapping[str, Callable[[], BaseProcess]]) -> None:
        self._starts = starts
        self._processes = {name: start() for name, start in starts.items()}

    def replace(self, name: str) -> None:
        """`kill -9`, and a new one."""
        self._processes[name].kill()
        self._processes[name].join()
        self._processes[name] = self._starts[name]()

    def names(self, kind: str) -> list[str]:
        """Of readers, or of writers."""
        return [name for name in self._starts if name.startswith(kind)]

    def ended(self) -> list[str]:
        """Those that ended although nobody asked them to."""
        return [f"{name} ended with {one.exitcode}" for name, one in self._processes.items() if not one.is_alive()]

    def join(self, timeout_s: float) -> list[str]:
        """Wait for all; what went wrong."""
        said = []
        for name, process in self._processes.items():
            process.join(timeout_s)
            if process.exitcode != 0:
                said.append(f"{name} ended with {process.exitcode}")
                process.kill()
        return said


class Faults:
    """A thread that breaks one thing after the other; each kind once in random order before any comes again."""

    def __init__(
        self,
        nodes: Nodes,
        daemon: Invalidator,
        crew: Crew,
        cache: Cache,
        seed: int,
        every_s: tuple[float, float],
        stop: threading.Event,
        more: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.failed = ""
        self._nodes, self._daemon, self._crew, self._cache = nodes, daemon, crew, cache
        self._more = more
        self._chance = random.Random(seed)
        self._every_s = every_s
        self._stop = stop
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Break nothing more; everything runs again."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        kinds = [self._kill_cache, self._pause_cache, self._kill_daemon, self._kill_writer, self._kill_reader]
        kinds += [self._clear, self._switch_modes, *self._more]
        if isinstance(self._server, RedisServer):
            kinds.append(self._old_cache)
        try:
            while True:
                self._chance.shuffle(kinds)
                for kind in kinds:
                    if self._stop.wait(self._chance.uniform(*self._every_s)):
                        return
                    kind()
                    self.counts[kind.__name__.strip("_").replace("_", " ")] += 1
        except Exception as error:  # noqa: BLE001 - without its faults the run says nothing: told at the end
            self.failed = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    @property
    def _server(self) -> RedisServer | MemcachedServer:
        return self._nodes.first

    def _kill_cache(self) -> None:
        self._server.kill()
        (self._server.folder / "dump.rdb").unlink(missing_ok=True)
        self._stop.wait(self._chance.uniform(*_AWAY_S))
        self._server.start()

    def _pause_cache(self) -> None:
        self._server.pause()
        self._stop.wait(self._chance.uniform(*_AWAY_S))
        self._server.resume()

    def _old_cache(self) -> None:
        if not ask(self._server.port, b"SAVE\r\n", timeout_s=20).startswith(b"+OK"):
            raise RuntimeError("Redis did not save")
        self._stop.wait(self._chance.uniform(*_OLD_S))
        self._server.kill()
        self._server.start()

    def _kill_daemon(self) -> None:
        self._daemon.kill()
        self._stop.wait(self._chance.uniform(*_AWAY_S))
        self._daemon.start()

    def _kill_writer(self) -> None:
        self._crew.replace(self._chance.choice(self._crew.names("writer")))

    def _kill_reader(self) -> None:
        self._crew.replace(self._chance.choice(self._crew.names("reader")))

    def _clear(self) -> None:
        self._persistently(self._cache.clear)

    def _switch_modes(self) -> None:
        for mode in _MODES:
            self._persistently(lambda mode=mode: self._cache.set_mode(ENTITY, mode))
            self._stop.wait(0.5)

    def _persistently(self, deed: Callable[[], object]) -> None:
        """The layout is changed by others at the same time."""
        for _ in range(10):
            try:
                deed()
            except CacheError:
                time.sleep(0.2)
            else:
                return
        deed()
