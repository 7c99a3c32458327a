"""The world of threads: nothing here ever suspends but for a socket, it blocks. Safe after a fork.

`Direct…` give a blocking backend or store the awaited form that the core is written for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from queue import Empty, SimpleQueue
from typing import Any

from cachelib.backends.base import Backend, Batch, Overlapping, Results, wire_of
from cachelib.drivers import run_now
from cachelib.flights import ThreadFlights
from cachelib.model import Answer, Name, Op, RowChange
from cachelib.overlap import side_by_side
from cachelib.proof import Seen
from cachelib.stores.base import AsyncLoader, Loaded, Store, StoreTransaction


class ThreadGate:
    """See `Gate`."""

    def __init__(self, places: int) -> None:
        self._count = places
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        # Places that were used lie in a queue, because that is written in C: a semaphore is ten calls of Python a load.
        self._free: SimpleQueue[None] = SimpleQueue()
        self._unused = self._count
        self._lock = threading.Lock()

    async def enter(self, timeout_s: float) -> bool:
        """See `Gate.enter`."""
        if self._pid != os.getpid():  # places that the parent's threads hold are never given back here
            self._reset()
        try:
            self._free.get_nowait()
        except Empty:
            return self._take_unused() or self._wait(timeout_s)
        return True

    def _take_unused(self) -> bool:
        with self._lock:
            if not self._unused:
                return False
            self._unused -= 1
            return True

    def _wait(self, timeout_s: float) -> bool:
        try:
            self._free.get(timeout=max(0.0, timeout_s))
        except Empty:
            return False
        return True

    def leave(self) -> None:
        """See `Gate.leave`."""
        self._free.put(None)


def in_thread(call: Coroutine[Any, Any, None]) -> threading.Thread:
    """Run it to its end in a thread of its own, which does not keep the process alive."""
    thread = threading.Thread(target=run_now, args=(call,), name="leasecache compare", daemon=True)
    thread.start()
    return thread


def joined(thread: threading.Thread | None, timeout_s: float = 5.0) -> None:
    """Wait for its end."""
    if thread is not None:
        thread.join(timeout_s)


class ThreadWorld:
    """See `World`."""

    def __init__(self) -> None:
        self.flights = ThreadFlights()

    def gate(self, places: int) -> ThreadGate:
        """See `World.gate`."""
        return ThreadGate(places)

    async def sleep(self, seconds: float) -> None:
        """See `World.sleep`."""
        time.sleep(seconds)

    async def together(self, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
        """See `World.together`: all are asked, then each is read when it answers; see `overlap.py`."""
        side_by_side(calls)

    async def within(self, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """See `World.within`: in a thread, as nothing else gets out of a driver that waits for ever."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                run_now(call())
            except BaseException as error:  # noqa: BLE001 - raised by the caller, if it still waits
                raised.append(error)

        thread = threading.Thread(target=run, name="leasecache", daemon=True)
        thread.start()
        thread.join(seconds)
        if raised:
            raise raised[0]
        return not thread.is_alive()


class DirectBackend:
    """A `Backend` in the awaited form."""

    def __init__(self, backend: Backend) -> None:
        self.capability = backend.capability
        self._backend = backend
        self._overlapping: Overlapping | None = getattr(backend, "overlapping", None)
        self.direct_get: Callable[[Name], bytes | None] = getattr(backend, "get_made", backend.get)
        """What the hit path calls: no coroutine in between. A backend whose `get` has to look at names, whether they
        can be sent at all, may have a `get_made` that does not: the hit path asks for names of `keys.py` alone."""
        self.wire = wire_of(backend)
        self.blocking = backend
        self.eventual_get = getattr(backend, "eventual_get", None)
        """The same, for eventual reads, where replicas may answer."""
        self.start_of = getattr(backend, "start_of", None)
        """See `standing.StartOf`."""
        self.address: str = getattr(backend, "address", "")
        """See `base.Addressed`."""

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return self._backend.get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        overlapping = self._overlapping
        return self._backend.get_many(names) if overlapping is None else await overlapping.get_many(names)

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return self._backend.execute(name, op, now_ms)

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        if self._overlapping is None:
            return self._backend.execute_many(batch, now_ms)
        return await self._overlapping.execute_many(batch, now_ms)

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return self._backend.apply(batch, notes, now_ms)

    async def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return self._backend.read_notes(names)

    async def instance(self) -> str:
        """See `Backend.instance`."""
        return self._backend.instance()

    async def watch(self, seen: Seen) -> None:
        """See `Backend.watch`."""
        self._backend.watch(seen)

    async def close(self) -> None:
        """See `Backend.close`."""
        self._backend.close()


class DirectTransaction:
    """A `StoreTransaction` in the awaited form."""

    def __init__(self, tx: StoreTransaction) -> None:
        self.blocking = tx
        self.connection = tx.connection

    async def changes(self) -> Sequence[RowChange] | None:
        """See `StoreTransaction.changes`."""
        return self.blocking.changes()

    async def touched(self) -> frozenset[str]:
        """See `StoreTransaction.touched`."""
        return self.blocking.touched()

    async def load(self, loader: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        """Run a loader inside the transaction."""
        rows: Mapping[Any, Any] = loader(self.blocking, keys)
        return rows

    async def commit(self) -> None:
        """See `StoreTransaction.commit`."""
        self.blocking.commit()


class DirectStore:
    """A `Store` in the awaited form."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def identity(self) -> str:
        """See `Store.identity`."""
        return self._store.identity()

    async def now_us(self) -> int:
        """See `Store.now_us`."""
        return self._store.now_us()

    async def load(self, loader: AsyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `Store.load`; the loader is a blocking one."""
        return self._store.load(loader, keys, timeout_s=timeout_s)  # type: ignore[arg-type]

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[DirectTransaction]:
        """See `Store.transaction`."""
        with self._store.transaction(connection) as tx:
            yield DirectTransaction(tx)

    async def read_layout(self) -> bytes | None:
        """See `Store.read_layout`."""
        return self._store.read_layout()

    async def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """See `Store.write_layout`."""
        self._store.write_layout(document, expected)

    async def close(self) -> None:
        """See `Store.close`."""
        self._store.close()
