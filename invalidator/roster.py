"""Which nodes there are: those of the settings, and those that the layout names.

Where the layout names none, every node of the settings has all keys. A pool's nodes stand in the layout: one that
joins is told from then on, one that has left no longer, and the settings only say how nodes are reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from cachelib.backends.base import Backend, Batch, Capability, Results
from cachelib.errors import CacheError, CacheUnavailable
from cachelib.layout import Layout
from cachelib.model import Answer, Name, Op
from cachelib.places import node_name
from cachelib.proof import Seen

Reach = Callable[[str], Backend]


class Roster:
    """`nodes`: those of the settings, by the names that logs and metrics give them. `reach`: any other, by its name."""

    def __init__(self, nodes: Sequence[tuple[str, Backend]], reach: Reach) -> None:
        self._given = {node_name(name): (name, backend) for name, backend in nodes}
        self._reach = reach
        self._reached: dict[str, Backend] = {}

    def of(self, layout: Layout) -> dict[str, tuple[str, Backend]]:
        """Every node that is to be told, by what the layout calls it: its name here, and the way to it."""
        wanted = dict.fromkeys(layout.nodes)
        if layout.now.slots is None:
            wanted = dict.fromkeys(self._given) | wanted
        return {place: self._given.get(place) or (place, self._backend(place)) for place in wanted}

    def _backend(self, place: str) -> Backend:
        backend = self._reached.get(place)
        if backend is None:
            try:
                backend = self._reach(place)
            except (CacheError, ValueError) as error:
                backend = Unreachable(f"the layout names the node {place!r}, and there is no way to it: {error}")
            self._reached[place] = backend
        return backend


class Unreachable:
    """Stands for a node that nobody knows how to reach, so that it shows as one that does not answer."""

    capability = Capability("unknown", 250, 1, 1, 1, names_printable=True, shared=True)

    def __init__(self, why: str) -> None:
        self._why = why

    def _fail(self) -> NoReturn:
        raise CacheUnavailable(self._why)

    def get(self, name: Name) -> bytes | None:
        """Raises `CacheUnavailable`, as all of them."""
        self._fail()

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `get`."""
        self._fail()

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `get`."""
        self._fail()

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `get`."""
        self._fail()

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `get`."""
        self._fail()

    def read_notes(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `get`."""
        self._fail()

    def instance(self) -> str:
        """See `get`."""
        self._fail()

    def watch(self, seen: Seen) -> None:
        """No connection is ever made."""

    def close(self) -> None:
        """Nothing to close."""
