"""The daemon's part in the layout: reading names under its lease, giving new epochs, completing changes.

A new epoch is published as `next` and made current two lease times later (PROTOCOL.md, "Where a key
lives"). From its publication on it is safe in the store: if this process dies, whoever reads
the log next completes it. So an event that means a new epoch is done once that is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import RLock

from cachelib.errors import LayoutConflict, StoreError
from cachelib.layout import (
    LEASE_MS,
    REFRESH_MS,
    Layout,
    completed,
    decode_layout,
    encode_layout,
    first_layout,
    with_new_epochs,
    with_node_renewed,
)
from cachelib.stores.base import Store
from invalidator.logs import Log
from invalidator.metrics import Metrics
from invalidator.sources.base import Positions, merged, of_now

MARGIN_S = 1.0
"""Beyond two lease times, before a change that another published and left is completed."""
PUBLISH_TRIES = 20
"""Publishing is tried so often against others who publish at the same time."""


@dataclass(frozen=True, slots=True)
class Amnesty:
    """Everything, or all of one node, has got new names: what came before `positions` in the log concerns no item
    any more.

    The positions were read before the publication, and nothing fills the new names before they are
    current: so whoever applies the log from there on has missed nothing.
    """

    positions: Positions
    number: int
    generation: int
    """Which going back of the store it is about; see `service.Service`."""


@dataclass(frozen=True, slots=True)
class _Read:
    layout: Layout
    document: bytes
    began_s: float


class Epochs:
    """Safe across threads. Every method raises `StoreError` where the store cannot be asked."""

    def __init__(self, store: Store, metrics: Metrics, log: Log, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._log = log
        self._clock_s = clock_s
        self._lock = RLock()
        self._last: _Read | None = None
        self._seen: tuple[int, float] | None = None
        """The published change that waits, by its number, and since when we know of it."""
        self._ours = 0
        self.amnesty: Amnesty | None = None
        self._of_nodes: dict[str, Amnesty] = {}

    # --- reading -----------------------------------------------------------------------------

    def layout(self) -> Layout:
        """The layout under its lease. One lease is enough for a batch, however long its answer takes.

        For a change published after this reading becomes current two lease times later; whoever then
        fills a new name loads after that, and sees what the batch is about, which was visible before.
        """
        last, now_s = self._last, self._clock_s()
        if last is not None and now_s - last.began_s < REFRESH_MS / 1000:
            return last.layout
        with self._lock:
            if self._last is not last and self._last is not None:
                return self._last.layout  # another thread has just read it
            try:
                return self._read().layout
            except StoreError:
                if last is not None and self._clock_s() - last.began_s < LEASE_MS / 1000:
                    return last.layout  # the lease runs on for a moment
                raise

    def _read(self) -> _Read:
        began_s = self._clock_s()
        document = self._store.read_layout() or self._first()
        last = self._last
        layout = last.layout if last is not None and last.document == document else decode_layout(document)
        self._last = _Read(layout, document, began_s)
        return self._last

    def _first(self) -> bytes:
        document = encode_layout(first_layout())
        try:
            self._store.write_layout(document, None)
        except LayoutConflict:
            return self._store.read_layout() or document
        return document

    def current(self, number: int) -> bool:
        """Whether the change that was published under this number has become current."""
        layout = self.layout()
        return layout.number > number and layout.next is None

    def pardoned(self, positions: Positions, node: str) -> dict[str, str]:
        """Up to where, in these partitions, the node need not be told: what it holds has got new names since."""
        both = (self.amnesty, self._of_nodes.get(node))
        one, other = (of_now(given.positions, positions) if given is not None else {} for given in both)
        return merged(one, other)

    def given(self, node: str) -> Amnesty | None:
        """The last amnesty that the node was given, alone or with all."""
        return self._of_nodes.get(node, self.amnesty)

    # --- publishing --------------------------------------------------------------------------

    def renew(self, entities: Iterable[str], reason: str) -> None:
        """Give these entities new epochs.

        Those that are published and not yet current are new enough: nothing was filled under them, and what will
        be is loaded later than now. Newer ones each time would never become current, where truncates keep coming.
        """
        names = sorted(set(entities))
        coming: list[Layout] = []

        def change(now: Layout) -> Layout:
            coming[:] = [now] if _coming_anew(now, names) else []
            return now if coming else with_new_epochs(now, names)

        layout = self._publish(change)
        if coming:
            return
        self._published(layout, reason)
        self._log.warning("new epochs", entities=names, reason=reason, layout=layout.number)

    def renew_all(self, end: Positions, reason: str, generation: int) -> Amnesty:
        """Give every entity a new epoch. `end` is the log's end, read before."""
        layout = self._publish(lambda now: with_new_epochs(now, None))
        self._published(layout, reason)
        self.amnesty = Amnesty(end, layout.number, generation)
        self._of_nodes.clear()
        self._log.error("new epochs for everything: the caches begin anew", reason=reason, layout=layout.number)
        return self.amnesty

    def renew_node(self, node: str, end: Positions, reason: str, generation: int) -> Amnesty:
        """Give all that this node of the pool owns a new tenure. `end` is the log's end, read before.

        Where the layout names no nodes, as `renew_all`.
        """
        if not self.layout().pooled:
            return self.renew_all(end, reason, generation)
        layout = self._publish(lambda now: with_node_renewed(now, node))
        if node in layout.goal.nodes:
            self._published(layout, reason)
            number = layout.number
        else:  # it leaves the pool, or has left it: its names end by themselves
            number = layout.number if layout.next is not None else layout.number - 1
        self._of_nodes[node] = Amnesty(end, number, generation)
        self._log.error("a node begins anew", node=node, reason=reason, layout=layout.number)
        return self._of_nodes[node]

    def _published(self, layout: Layout, reason: str) -> None:
        with self._lock:
            self._ours = layout.number
            self._seen = layout.number, self._clock_s()
        self._metrics.epochs.labels(reason).inc()

    def _publish(self, change: Callable[[Layout], Layout]) -> Layout:
        with self._lock:
            for _ in range(PUBLISH_TRIES):
                read = self._read()
                changed, began_s = change(read.layout), self._clock_s()
                if changed is read.layout:
                    return changed
                try:
                    self._store.write_layout(encode_layout(changed), read.document)
                except LayoutConflict:
                    continue
                # What others publish meanwhile is read a second later at most, under the same lease.
                self._last = _Read(changed, encode_layout(changed), began_s)
                return changed
            raise LayoutConflict(f"others changed the layout {PUBLISH_TRIES} times while a change was tried; try again")

    # --- completing --------------------------------------------------------------------------

    def keep(self) -> None:
        """Complete a published change whose time has come; to be called a few times a second."""
        layout = self.layout()
        with self._lock:
            if layout.next is None:
                self._seen = None
                return
            if self._seen is None or self._seen[0] != layout.number:
                self._seen = layout.number, self._clock_s()
            waited_s = self._clock_s() - self._seen[1]
            ours = self._ours == layout.number
        if waited_s >= 2 * LEASE_MS / 1000 + (0 if ours else MARGIN_S):
            self._complete(layout.number, ours=ours)

    def _complete(self, number: int, *, ours: bool) -> None:
        done = self._publish(lambda now: completed(now) if now.number == number else now)
        if done.next is None:
            self._metrics.layouts_completed.labels("own" if ours else "left").inc()
            self._log.info("a new layout is current", layout=done.number, own=ours)


def _coming_anew(layout: Layout, entities: Iterable[str]) -> bool:
    """Whether each of them is about to get an epoch that it has not now."""
    now, coming = layout.now, layout.next
    return coming is not None and all(
        coming.epochs.get(name, coming.base) != now.epochs.get(name, now.base) for name in entities
    )
