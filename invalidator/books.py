"""The committed offset and the purge: what is written to the store, by a thread of its own.

A write may wait for the store's writers (SQLite has one lock for all of them); reading on must not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from cachelib.errors import StoreError
from invalidator.fleet import Fleet
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.settings import Settings
from invalidator.sources.base import ChangeSource, Committed


class Books:
    """`source` is used for `commit`, `forget` and `purge` only, and by this thread only."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        source: ChangeSource,
        metrics: Metrics,
        log: Log,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.committed: Committed | None = None
        self.last_error = ""
        """Why the last try failed; "" where it did not."""
        self._settings = settings
        self._fleet = fleet
        self._source = source
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._purged_at_s = clock_s()
        self._lock = threading.Lock()
        self._partitions: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="books", daemon=True)

    def place(self, committed: Committed | None, partitions: Collection[str]) -> None:
        """Reading goes on from here, in these partitions; nodes may speak of others for a while."""
        with self._lock:
            self.committed, self._partitions = committed, frozenset(partitions)

    def start(self) -> None:
        """Begin to keep them."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Commit once more, and stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():  # in the source, which is for one thread: what was done is told again
            return self._failed(f"a commit has not come back within {timeout_s:g} s")
        return self.keep()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.apply.commit_s):
            self.keep()

    def keep(self) -> None:
        """Commit what is done; purge where it is time. A store that fails is asked again the next time."""
        try:
            self._commit()
            if self._clock_s() - self._purged_at_s >= self._settings.source.purge_s:
                self._purged_at_s = self._clock_s()
                self._purge()
        except StoreError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a thread that ended would save nothing more, and say nothing
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self.last_error = ""

    def _failed(self, why: str) -> None:
        self._metrics.commit_errors.inc()
        if not self.last_error:
            self._log.error("the committed offset is not saved", error=why)
        self.last_error = why

    def _commit(self) -> None:
        done = self._fleet.done()
        with self._lock:
            before, partitions = self.committed, self._partitions
        if done is not None:
            done = placed(done, before, partitions)
        if done is None or done == before:
            return
        # First: an offset that did not wait for a node must never be found beside its name (I9).
        for node in sorted(before.counted - done.counted) if before is not None else ():
            self._source.forget(node)
        self._source.commit(done)
        with self._lock:
            if self.committed is before:  # else other partitions are read by now, and this is not about them
                self.committed = done
        self._metrics.commits.inc()

    def _purge(self) -> None:
        dropped = self._source.purge()
        if dropped:
            self._metrics.purged.inc(dropped)
            self._log.info("purged the change log", changes=dropped)


def placed(done: Committed, before: Committed | None, partitions: Collection[str]) -> Committed | None:
    """What is done of these partitions; where no node has said anything yet, what was committed before."""
    said = before.positions if before is not None else {}
    known = {
        at: position for at, position in done.positions.items() if at in partitions and (position or at not in said)
    }
    rest = {at: position for at, position in said.items() if at not in known}
    if before is None or not rest:
        return Committed(known, done.counted) if known else None
    return Committed({**known, **rest}, done.counted & before.counted)
