"""What the conformance suite needs to know of a backend, and an async backend as a sync one."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from cachelib.backends.base import AsyncBackend, Backend, Batch, Results
from cachelib.envelope import decode
from cachelib.errors import DecodeError
from cachelib.model import Answer, Item, Name, Op

T = TypeVar("T")

_run = os.urandom(4).hex().encode()
_numbers = itertools.count()


@dataclass(slots=True)
class Subject:
    """A backend under test, and the ways to touch its server behind its back.

    `evict(name)` drops an item, `plant(name, raw)` keeps these bytes as the item (for an hour, say),
    `life_ms(name)` tells how long the server will still keep it; None where it does not have it.
    """

    backend: Backend
    evict: Callable[[Name], None]
    plant: Callable[[Name, bytes], None]
    life_ms: Callable[[Name], int | None]
    large_payload_bytes: int | None = None
    """The largest payload that `check_value_sizes` tries, where the capability allows more than is practical."""

    def name(self, ending: bytes) -> Name:
        """A name that nobody used yet: tests share a server and never flush it."""
        return b"t%b.%d/%b" % (_run, next(_numbers), ending)

    def item(self, name: Name) -> Item | None:
        """What the backend holds, as it hands it out; None too where nobody can read it."""
        return readable(self.backend.get(name))


def must(condition: bool, otherwise: str) -> None:
    """An assertion that `python -O` keeps."""
    if not condition:
        raise AssertionError(otherwise)


def readable(raw: bytes | None) -> Item | None:
    """The item in these bytes, or None (I12)."""
    try:
        return None if raw is None else decode(raw)
    except DecodeError:
        return None


class OnALoop:
    """An `AsyncBackend` as a `Backend`: its calls run on an event loop in a thread of its own."""

    def __init__(self, backend: AsyncBackend) -> None:
        self._backend = backend
        self.capability = backend.capability
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="conformance loop", daemon=True)
        self._thread.start()

    def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return self.run(self._backend.get(name))

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return self.run(self._backend.get_many(names))

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        return self.run(self._backend.execute(name, op, now_ms))

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        return self.run(self._backend.execute_many(batch, now_ms))

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        return self.run(self._backend.apply(batch, notes, now_ms))

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.read_notes`."""
        return self.run(self._backend.read_notes(names))

    def instance(self) -> str:
        """See `Backend.instance`."""
        return self.run(self._backend.instance())

    def close(self) -> None:
        """Close the backend, and end the loop and its thread."""
        self.run(self._backend.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


def on_a_loop(backend: AsyncBackend) -> OnALoop:
    """The async backend for a `Subject`; close it at the end."""
    return OnALoop(backend)
