"""What loses writes, or moves keys, while registers are read and written: a promoted replica, a restored store, nodes
that come and go.

A store that is restored from an older copy has lost acknowledged writes; no cache can bring them back. What is checked
then is that no read shows what the store does not hold. The order of events, which is an operator's:

    a copy is made, and writes go on
    writers stop; from here on nothing is judged, since caches and store differ
    the store comes back from the copy; the invalidator finds that it went back, and gives new epochs
    they are current: what the store holds now is what counts, and every read is judged again
"""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cachelib.cli_layout import view_of
from cachelib.drivers import run_now
from cachelib.errors import StoreError
from cachelib.layout import Layout, decode_layout, with_nodes
from cachelib.places import node_name
from cachelib.stores import SqlStore
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.postgresql import PostgresServer
from tests.servers.process import ask
from tests.servers.redis import RedisServer
from tests.soak.registers import Place

T = TypeVar("T")
CacheServer = RedisServer | MemcachedServer
_STEP_S = 60.0
_TRIES = 50
_LOST_WRITES = 20
_BEHIND_S = (0.3, 2.0)


@dataclass
class Nodes:
    """The servers of a round: `first` is where everybody is sent; it may be another server after a promotion."""

    first: CacheServer
    spare: CacheServer
    """Joins and leaves the pool."""
    replica: RedisServer | None = None

    @classmethod
    def of(cls, backend: str, start: Callable[[CacheServer], CacheServer]) -> Nodes:
        """`start` starts a server, and has it closed in the end."""
        if backend == "memcached":
            return cls(start(MemcachedServer()), start(MemcachedServer()))
        first = RedisServer(repl_diskless_sync_delay=0)
        start(first)
        replica = RedisServer(repl_diskless_sync_delay=0, replicaof=f"{HOST} {first.port}")
        start(replica)
        replica.settings.pop("replicaof")  # who is whose replica changes
        return cls(first, start(RedisServer()), replica)


class Disasters:
    """Each is a fault of its own; what does not come about within a minute raises."""

    def __init__(
        self, place: Place, postgres: PostgresServer, store: SqlStore, nodes: Nodes, stop: threading.Event, seed: int
    ) -> None:
        self._place, self._postgres, self._store, self._nodes = place, postgres, store, nodes
        self._stop = stop
        self._chance = random.Random(seed)

    def kinds(self) -> list[Callable[[], None]]:
        """Those that this backend can have."""
        kinds = [self._restored_store, self._moved_nodes]
        return [*kinds, self._promoted_replica] if self._nodes.replica is not None else kinds

    # --- a replica without the last writes -----------------------------------------------------

    def _promoted_replica(self) -> None:
        first, second = self._nodes.first, self._nodes.replica
        assert isinstance(first, RedisServer)
        assert second is not None
        self._wait("the replica is in step", lambda: b"master_link_status:up" in _info(second))
        _told(second, "REPLICAOF NO ONE")  # from here on it learns nothing
        self._stop.wait(self._chance.uniform(*_BEHIND_S))
        first.kill()
        _told(second, f"CONFIG SET port {first.port}")
        first.port, second.port = second.port, first.port
        self._nodes.first, self._nodes.replica = second, first
        (first.folder / "dump.rdb").unlink(missing_ok=True)
        first.start()
        _told(first, f"REPLICAOF {HOST} {second.port}")

    # --- an older copy of the store --------------------------------------------------------------

    def _restored_store(self) -> None:
        board, postgres = self._place.board, self._postgres
        copy = postgres.folder / "copy"
        postgres.stop()
        shutil.rmtree(copy, ignore_errors=True)
        _copied(postgres.data, copy)
        postgres.start()
        written = int(board.writes.sum())
        self._wait("there is something to lose", lambda: int(board.writes.sum()) >= written + _LOST_WRITES)
        board.phase[0] += 1  # where what follows fails it stays so: nothing can be judged any more
        self._wait("the writers stop", lambda: not board.busy.any())
        # What the invalidator has not read cannot tell it that the store went back.
        self._wait("the invalidator has read what will be lost", lambda: self._persistently(self._all_read))
        postgres.kill()
        shutil.rmtree(postgres.data)
        copy.rename(postgres.data)
        postgres.start()
        before = self._persistently(self._layout).now.base
        self._wait("new epochs are current", lambda: self._is_new(self._persistently(self._layout), before))
        self._persistently(self._begin_anew)
        board.phase[0] += 1

    def _all_read(self) -> bool:
        return not self._store.poll_changes(self._store.load_consumer("invalidator") or "", 1).entries

    def _layout(self) -> Layout:
        return decode_layout(self._store.read_layout() or b"")

    def _is_new(self, layout: Layout, before: str) -> bool:
        return layout.next is None and layout.now.base != before

    def _begin_anew(self) -> None:
        """What the store holds is what was acknowledged; counts above are lost, and never written again."""
        board = self._place.board
        with self._store.transaction() as tx:
            rows = {row[0]: row[1] for row in tx.execute("select id, count from registers")}
        for key in range(len(board.begun)):
            kept = rows.get(key, 0)
            board.lost_above[key], board.lost_upto[key] = kept, board.begun[key]
            board.acknowledged[key] = kept
        board.gone_begun[:] = 0
        board.shown[:] = 0
        time.sleep(1.0)  # for a read that was judged just before
        board.shown[:] = 0

    # --- nodes that come and go --------------------------------------------------------------------

    def _moved_nodes(self) -> None:
        first, spare = (node_name(one.url) for one in (self._nodes.first, self._nodes.spare))
        for names in ([first, spare], [first]):
            self._placed(names)
            self._stop.wait(self._chance.uniform(*_BEHIND_S))

    def _placed(self, names: list[str]) -> None:
        with view_of(self._place.store_url) as view:
            published = self._persistently(lambda: run_now(view.publish(lambda now: with_nodes(now, names))))
            run_now(view.settle(published))

    def _persistently(self, deed: Callable[[], T]) -> T:
        """The store has just come back, and connections to it are found to be broken."""
        for _ in range(_TRIES):
            try:
                return deed()
            except StoreError:
                time.sleep(0.1)
        return deed()

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        until_s = time.monotonic() + _STEP_S
        while not holds():
            if time.monotonic() > until_s:
                raise RuntimeError(f"{what}: not within {_STEP_S:g} s")
            time.sleep(0.05)


def _told(server: RedisServer, command: str) -> None:
    said = ask(server.port, f"{command}\r\n".encode(), timeout_s=10)
    if not said.startswith(b"+OK"):
        raise RuntimeError(f"{command}: Redis said {said!r}")


def _info(server: RedisServer) -> bytes:
    return ask(server.port, b"INFO replication\r\n", timeout_s=10)


def _copied(data: Path, copy: Path) -> None:
    subprocess.run(["cp", "-a", data, copy], check=True)  # with owners: PostgreSQL is not ours to be
