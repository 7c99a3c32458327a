"""All nodes together: what is done for every one that counts, and which one no longer does (I9)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from cachelib.backends.base import Backend
from invalidator.epochs import Epochs
from invalidator.lineage import Lineage
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.node import NodeWorker
from invalidator.settings import ApplySettings
from invalidator.sources.base import Committed, Positions, covers, leading_number, least

_STOP_S = 5.0
_LOOK_S = 0.02


class Fleet:
    """The workers."""

    def __init__(
        self,
        settings: ApplySettings,
        epochs: Epochs,
        lineage: Lineage,
        metrics: Metrics,
        log: Log,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers: list[NodeWorker] = []
        self._settings = settings
        self._epochs = epochs
        self._lineage = lineage
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._dying: dict[str, int] = {}

    def __iter__(self) -> Iterator[NodeWorker]:
        return iter(self._workers)

    def add(self, worker: NodeWorker) -> None:
        """One more."""
        self._workers = [*self._workers, worker]  # others may be going through the list

    def drop(self, worker: NodeWorker) -> None:
        """One that has no keys any more: nobody waits for it."""
        worker.counts = False
        self._workers = [one for one in self._workers if one is not worker]
        self._dying.pop(worker.name, None)
        worker.stop(_STOP_S)
        self._metrics.forget_node(worker.name)

    def follow(self, wanted: Mapping[str, tuple[str, Backend]], join: Callable[[str, Backend], None]) -> None:
        """Have a worker for each of these nodes, by what the layout calls them, and for no other."""
        known = {worker.place: worker for worker in self._workers}
        for place in wanted.keys() - known.keys():
            name, backend = wanted[place]
            self._log.info("a node joins", node=name)
            join(name, backend)
        for place in known.keys() - wanted.keys():
            self._log.info("a node has left the layout", node=known[place].name)
            self.drop(known[place])

    def raise_if_crashed(self) -> None:
        """Raise what a worker died of: a dead thread must not be silent."""
        for worker in self._workers:
            if worker.crashed is not None:
                raise worker.crashed

    def all_go_along(self) -> bool:
        """Every node was told all up to where the log was read, or is dead."""
        return all(worker.in_window or self._is_dead(worker) for worker in self._workers)

    def done(self) -> Committed | None:
        """What is done for every node that counts; None where none counts, or one has not begun yet."""
        counting = [worker for worker in self._workers if worker.counts]
        if not counting or not all(worker.confirmed for worker in counting):
            return None
        positions = least([worker.confirmed for worker in counting])
        return Committed(positions, frozenset(worker.name for worker in counting))

    def drain(self, end: Positions) -> None:
        """Wait until every node that answers was told all up to `end`, for `drain` at most; then stop them."""
        until_s = self._clock_s() + self._settings.drain_s
        while self._clock_s() < until_s and any(self._owes(worker, end) for worker in self._workers):
            time.sleep(_LOOK_S)
        for worker in self._workers:
            worker.stop(_STOP_S)

    def _owes(self, worker: NodeWorker, end: Positions) -> bool:
        return worker.counts and worker.failing_since_s is None and not covers(worker.confirmed, end)

    # --- looking after them ------------------------------------------------------------------

    def look_after(self) -> None:
        """Give up who is dead, and show how all are. Raises `StoreError`."""
        for worker in self._workers:
            self._show(worker)
        for worker in self._workers:
            self._bury(worker)

    def _bury(self, worker: NodeWorker) -> None:
        """A node that fails for too long: new names for what it has, and once they are current nobody waits for it."""
        if not self._is_dead(worker) or not worker.counts:
            self._dying.pop(worker.name, None)
            return
        number = self._dying.get(worker.name)
        if number is None:
            self._log.error("a node is given up", node=worker.name, error=worker.last_error)
            self._dying[worker.name] = self._lineage.start_over("node_dead", True, worker.place).number
        elif self._epochs.current(number):
            worker.counts = False
            self._log.error("a node counts no longer", node=worker.name)

    def _is_dead(self, worker: NodeWorker) -> bool:
        since_s = worker.failing_since_s
        return since_s is not None and self._clock_s() - since_s >= self._settings.node_dead_after_s

    def _show(self, worker: NodeWorker) -> None:
        metrics, name, session = self._metrics, worker.name, worker.session
        metrics.node_counts.labels(name).set(worker.counts)
        metrics.behind.labels(name).set(worker.behind())
        if session is not None and session.proof.watermark_us is not None:
            metrics.lag.labels(name).set(max(0, time.time_ns() // 1000 - session.proof.watermark_us) / 1e6)
        for partition, position in worker.confirmed.items():
            metrics.position.labels(name, partition).set(leading_number(position))
