"""The nodes of a cache together: each operation goes to the node that its name belongs to.

A tenure, a part of every name, is of one node only. So whoever has a name need not know the layout that
it came from, and a call that began under an older one ends where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cachelib.backends.base import AsyncBackend, Batch, Capability, Results
from cachelib.breaker import Breaker
from cachelib.errors import CacheError, CacheUnavailable
from cachelib.layout import GUTTER, Layout, Placing
from cachelib.model import Answer, Name, Op
from cachelib.nodes import Node
from cachelib.places import Places
from cachelib.slots import ranked, slot_of
from cachelib.world import World

LAYOUTS_KEPT = 8
"""A call that takes longer than so many changes of the layout is told that its node is gone."""


class Pool:
    """See the module. `wrap` makes of a backend what is awaited; each node has a breaker like `breaker`."""

    def __init__(
        self, places: Places[Any], wrap: Callable[[Any], AsyncBackend], breaker: Breaker | None, world: World
    ) -> None:
        self._places = places
        self._wrap = wrap
        self._breaker = breaker
        self._world = world
        self._nodes: dict[str, Node] = {}
        self.first = Node(wrap(places.first), breaker, places.names[0] if places.names else "")
        """The node that a layout without names means."""
        if places.names:
            self._nodes[places.names[0]] = self.first
        self.names = places.names
        self._only: Node | None = self.first
        self._homes: dict[bytes, str | None] = {}
        self._layouts: tuple[Layout, ...] = ()
        self._nodes_of: dict[bytes, tuple[str, ...]] = {}

    @property
    def capability(self) -> Capability:
        """Of the first node: the others are to be like it."""
        return self.first.capability

    @property
    def nodes(self) -> list[Node]:
        """Every node that was spoken to."""
        return [self.first, *(node for node in list(self._nodes.values()) if node is not self.first)]

    # --- which node --------------------------------------------------------------------------

    def learn(self, layout: Layout) -> None:
        """Know the names of this layout from now on."""
        known = self._layouts
        if known and (known[-1] is layout or layout in known):  # a call that began before may still go by an older one
            return
        self._layouts = kept = (*known, layout)[-LAYOUTS_KEPT:]
        homes: dict[bytes, str | None] = {}
        nodes_of: dict[bytes, tuple[str, ...]] = {}
        for one in kept:
            for placing in (one.now, one.next):
                if placing is not None:
                    found = _homes(placing)
                    homes |= found
                    nodes_of |= dict.fromkeys(found, placing.nodes)
        self._homes, self._nodes_of = homes, nodes_of
        if layout.pooled:
            self._only = None

    def node(self, name: str) -> Node:
        """The node that the layout calls so. Raises `CacheUnavailable` where nobody knows the way to it."""
        node = self._nodes.get(name)
        if node is None:
            breaker = None if self._breaker is None else self._breaker.another()
            made = Node(self._wrap(self._places.reach(name)), breaker, name)
            node = self._nodes.setdefault(name, made)
        return node

    def of(self, name: Name) -> Node:
        """The node that keeps this name."""
        only = self._only
        if only is not None:
            return only
        tenure, text = _tenure_and_text(name)
        if tenure.endswith(GUTTER):
            return self._beside(tenure[: -len(GUTTER)], text)
        try:
            home = self._homes[tenure]
        except KeyError:
            raise CacheUnavailable(
                f"the layout changed too often while key {text!r} was asked for; try again"
            ) from None
        return self.first if home is None else self.node(home)

    def _beside(self, tenure: bytes, text: bytes) -> Node:
        """Who keeps a key for a moment while its node is down: the next in rank for its slot."""
        others = ranked(self._nodes_of.get(tenure, ()), slot_of(text))[1:2]
        if not others:
            raise CacheUnavailable("the pool has no other node")
        return self.node(others[0])

    # --- what a node is asked ----------------------------------------------------------------

    async def get(self, name: Name) -> bytes | None:
        """See `Backend.get`."""
        return await self.of(name).get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`; a node that does not answer has nothing. Raises where there is one node."""
        if self._only is not None:
            return await self._only.get_many(names, alone=True)
        raws: list[bytes | None] = [None] * len(names)

        async def look(node: Node, ats: list[int]) -> None:
            for at, raw in zip(ats, await node.get_many([names[at] for at in ats]), strict=True):
                raws[at] = raw

        groups, _ = self._by_node(names)
        await self._all([(node, ats, look(node, ats)) for node, ats in groups])
        return raws

    async def execute(self, name: Name, op: Op) -> Answer:
        """See `Backend.execute`."""
        return await self.of(name).execute(name, op)

    async def execute_many(self, batch: Batch) -> Results:
        """See `Backend.execute_many`; of a node that does not answer, the error stands in each place."""
        if self._only is not None:
            return await self._only.execute_many(batch)
        groups, lost = self._by_node([name for name, _ in batch])
        results: dict[int, Answer | CacheError] = dict(lost)

        async def run(node: Node, ats: list[int]) -> None:
            results.update(zip(ats, await node.execute_many([batch[at] for at in ats]), strict=True))

        for ats, failure in await self._all([(node, ats, run(node, ats)) for node, ats in groups]):
            results.update(dict.fromkeys(ats, failure))
        return [results[at] for at in range(len(batch))]

    async def close(self) -> None:
        """Close every connection."""
        for node in self.nodes:
            await node.close()

    def _by_node(self, names: Sequence[Name]) -> tuple[list[tuple[Node, list[int]]], dict[int, CacheError]]:
        """The places of each node's names, and the names that no node has."""
        groups: dict[int, tuple[Node, list[int]]] = {}
        lost: dict[int, CacheError] = {}
        for at, name in enumerate(names):
            try:
                node = self.of(name)
            except CacheUnavailable as failure:
                lost[at] = failure
            else:
                groups.setdefault(id(node), (node, []))[1].append(at)
        return list(groups.values()), lost

    async def _all(
        self, calls: list[tuple[Node, list[int], Coroutine[Any, Any, None]]]
    ) -> list[tuple[list[int], CacheError]]:
        """Run each node's part, and answer the parts that failed: one node's silence is not the others'."""
        failed: list[tuple[list[int], CacheError]] = []

        async def tried(ats: list[int], part: Coroutine[Any, Any, None]) -> None:
            try:
                await part
            except CacheError as failure:
                failed.append((ats, failure))

        await self._world.together([tried(ats, part) for _, ats, part in calls])
        return failed


def _tenure_and_text(name: Name) -> tuple[bytes, bytes]:
    _, words, text = name.split(b"/", 2)
    return words.partition(b".")[2], text


def _homes(placing: Placing) -> dict[bytes, str | None]:
    if placing.slots is None:
        return {placing.tenure.encode(): None}
    return {tenure.encode(): node for tenure, node in placing.slots.homes.items()}
