"""What a run on the wire stands on: a cache server, filled."""

from __future__ import annotations

import select
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from loadgen.engine.crew import Heard
from loadgen.engine.share import space_of
from loadgen.engine.site import Advance, Verdict
from loadgen.plan import RunPlan, TargetPlan
from loadgen.servers import Memcached, Redis, ServerFailed, cache_server
from loadgen.targets.wire import RECEIVE_BYTES, Line
from loadgen.targets.wire_protocols import dialect_of
from loadgen.workloads.values import Values

CHUNK = 1000
FILL_WAIT_S = 30.0


class WireSite:
    """See `Site`."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._folder = Path(tempfile.mkdtemp(prefix="loadgen-"))
        self._server: Redis | Memcached | None = None

    def open(self, advance: Advance) -> None:
        """See `Site.open`."""
        try:
            if not self._plan.target.cache_url:
                self._server = cache_server(self._plan.target.backend, self._folder)
                self._server.processors = self._plan.pins.cache
                self._server.start()
            if self._plan.prefill:
                self._fill(advance)
        except BaseException:
            self.close()
            raise

    def _fill(self, advance: Advance) -> None:
        plan = self._plan
        space = space_of(plan)
        dialect, values = dialect_of(self.target.cache_url), Values(space)
        line = Line(self.target.cache_url, dialect)
        for first in range(0, space.keys, CHUNK):
            last = min(first + CHUNK, space.keys)
            for key in range(first, last):
                line.out.append(dialect.set(space.names[key].encode(), values.of(key), int(space.ttl_s[key])))
            self._answered(line, last - first)
            advance("values of the cache", last, space.keys)
        line.socket.close()

    def _answered(self, line: Line, count: int) -> None:
        while count:
            line.flush()
            blocked = [line.socket] if line.unsent else []
            readable, writable, _ = select.select([line.socket], blocked, [], FILL_WAIT_S)
            if not readable and not writable:
                raise ServerFailed(f"the cache at {self.target.cache_url} does not answer")
            if readable:
                for reply in line.replies.feed(line.socket.recv(RECEIVE_BYTES)):
                    if isinstance(reply, str):
                        raise ServerFailed(f"the cache at {self.target.cache_url} refused a value: {reply}")
                    count -= 1

    @property
    def target(self) -> TargetPlan:
        """See `Site.target`."""
        return replace(self._plan.target, cache_url=self._server.url) if self._server else self._plan.target

    def pids(self) -> Mapping[str, int]:
        """See `Site.pids`."""
        server = self._server
        return {server.name: server.pid} if server is not None and server.pid is not None else {}

    def begin(self) -> None:
        """See `Site.begin`."""

    def verdict(self, plan: RunPlan, heard: Sequence[Heard], start_ns: int) -> Verdict:
        """See `Site.verdict`."""
        if self._server is not None and not self._server.running:
            raise ServerFailed(f"{self._server.name} ended by itself: {self._server.last_words()}")
        return Verdict()

    def close(self) -> None:
        """See `Site.close`."""
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
