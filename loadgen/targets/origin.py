"""A store that notes each load, and may be made as slow as one across a network."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any

from cachelib import Row
from cachelib.stores import SqlStore
from cachelib.stores.base import Loaded, SyncLoader

LOAD_FIELDS = ("key", "start", "end", "version")
"""A row of the log; version 0: absent, or without one."""
now_ns = time.monotonic_ns


def number_of(name: str) -> int:
    """The number of a key, from its name (`KeySpace.names`)."""
    return int(name[1:].rstrip("-"), 16)


class WatchedStore(SqlStore):
    """Half of `origin_ms` passes before a load's snapshot and half after, in which a write makes it old."""

    def __init__(self, url: str, origin_ms: float) -> None:
        super().__init__(url)
        self._half_s = origin_ms / 2000
        self.log = array("q")

    def load(self, loader: SyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `Store.load`."""
        start_ns = now_ns()
        if self._half_s:
            time.sleep(self._half_s)
        loaded = super().load(loader, keys, timeout_s=timeout_s)
        if self._half_s:
            time.sleep(self._half_s)
        note_loads(self.log, keys, start_ns, loaded)
        return loaded


def note_loads(log: array[int], keys: Sequence[Any], start_ns: int, loaded: Loaded) -> None:
    """One row for each key."""
    end_ns = now_ns()
    for key in keys:
        row = loaded.rows.get(key)
        version = row.version if isinstance(row, Row) and row.version else 0
        # One call: threads that load at the same time must not mix their rows.
        log.extend((number_of(str(key)), start_ns, end_ns, version))
