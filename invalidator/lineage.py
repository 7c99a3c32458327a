"""Is it still the same store, with the same past? And what if not.

A store that was restored or failed over may be behind what the caches hold, and a log that was purged
or re-created does not lead on from where we are. Then a new *generation* begins: everything gets
new epochs, and every node is connected to anew, because what its notes say may be of the past
that was lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cachelib.stores.base import Store
from invalidator.epochs import Amnesty, Epochs
from invalidator.logs import Log
from invalidator.sources.base import ChangeSource, Positions


class Lineage:
    """Who the store is. Safe across threads; every method raises `StoreError` where it cannot be asked.

    `versions`: those of the changes are the store's.
    """

    def __init__(self, store: Store, epochs: Epochs, log: Log, *, versions: bool = True) -> None:
        self._store = store
        self._versions = versions
        self._epochs = epochs
        self._log = log
        self._lock = threading.Lock()
        self._identity = ("", 0)
        self._highest = 0
        self._side: ChangeSource | None = None

    def begin(self, side: ChangeSource) -> None:
        """Ask the store who it is. `side`: a reader of the log for our own use."""
        self._side = side
        self._identity = self._store.identity(), 0

    def current(self) -> tuple[str, int]:
        """The store's identity, and the generation."""
        return self._identity

    def saw(self, version: int) -> None:
        """A change with this version was read."""
        self._highest = max(self._highest, version)

    def highest_version(self) -> int | None:
        """The last version that the store has given out; None where it does not tell."""
        tells = getattr(self._store, "highest_version", None) if self._versions else None
        return int(tells()) if callable(tells) else None

    def check(self, go_on: Callable[[Positions], None]) -> None:
        """Begin a new generation where the store is another one, or went back."""
        identity = self._store.identity()
        if identity != self._identity[0]:
            self.broken("store_changed", f"it was {self._identity[0]} and is {identity}", go_on, identity)
            return
        highest = self.highest_version()
        if highest is not None and highest < self._highest:
            self.broken("store_went_back", f"its last version is {highest}, and {self._highest} was seen", go_on)

    def broken(self, why: str, what: str, go_on: Callable[[Positions], None], identity: str = "") -> None:
        """A new generation. `go_on` is called with where the log goes on: its end, taken before the new epochs."""
        self._log.error("the change log does not lead on", why=why, what=what)
        was, generation = self._identity
        with self._lock:
            end = self._end()
            self._epochs.renew_all(end, why, generation + 1)
        self._highest = 0
        go_on(end)
        self._identity = identity or was, generation + 1  # last: now the workers connect anew

    def moved(self) -> None:
        """Other partitions are read: every node is connected to anew, and the last new epochs say nothing of them."""
        was, generation = self._identity
        self._identity = was, generation + 1

    def start_over(self, why: str, anew: bool, node: str) -> Amnesty:
        """A new tenure for a node of the pool; where the layout names none, new epochs for everything.

        Unless `anew`, what was given in this generation is good, too.
        """
        with self._lock:
            amnesty, generation = self._epochs.given(node), self._identity[1]
            if anew or amnesty is None or amnesty.generation != generation:
                amnesty = self._epochs.renew_node(node, self._end(), why, generation)
            return amnesty

    def _end(self) -> Positions:
        assert self._side is not None, "begin() comes first"
        return self._side.horizon()
