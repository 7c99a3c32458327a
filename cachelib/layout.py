"""Where keys live and under which names: the layout, its changes and its lease. Pure.

A name is `namespace/epoch.tenure/key`. The layout is one small JSON document in the store. It
changes in two steps (PROTOCOL.md, "Where a key lives"): a change is published as `next`, and
becomes current two lease times later, when no client can still work by the one before. In
between whoever voids an item voids it under both names, nothing fills the new one, and strong
reads of what moves ask the store.

A cache of one node has one tenure, and the layout does not say which node that is: each client was told
where it is. A pool's nodes are named here (`slots.py`), and every client works by that, whatever it was told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cachelib.errors import ConfigError
from cachelib.policy import Mode
from cachelib.slots import Slots, first_slots, fresh_name, plain_of, slot_of, slots_from, with_new_tenure
from cachelib.slots import with_nodes as slots_with_nodes

FORMAT, POOL_FORMAT = 1, 2
"""A document is written in the first format that can say it, so that a program from before pools reads it."""
GUTTER = b"~"
"""Ends the tenure in a name that is kept for a moment by another node than its own."""
LEASE_MS = 2_000
"""A client works by a layout at most so long after it began to read it."""
REFRESH_MS = 1_000
"""A client that is in use reads the layout anew this often."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What decides a name: epochs of entities and the tenures of nodes; and the modes.

    `base` is the epoch of every entity that has none of its own; a new one voids all keys.
    `tenure` is that of the one node where there are no `slots`.
    """

    base: str
    tenure: str
    epochs: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    slots: Slots | None = None
    """The pool's nodes; None: one node, the one that each client was given."""

    def prefix(self, namespace: str, entity: str, slot: int = 0) -> bytes:
        """What stands before the text of a key in this slot."""
        tenure = self.tenure if self.slots is None else self.slots.tenures[slot]
        return f"{namespace}/{self.epochs.get(entity, self.base)}.{tenure}/".encode()

    def owner(self, slot: int) -> str | None:
        """The node of the keys in this slot; None: the one node."""
        return None if self.slots is None else self.slots.owners[slot]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The pool's nodes; none where there is one node without a name."""
        return () if self.slots is None else self.slots.nodes


@dataclass(frozen=True, slots=True)
class Layout:
    """The document: what holds now, and what is about to hold."""

    number: int
    now: Placing
    next: Placing | None = None
    strong: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entities that somebody reads as strong, and whose tables they are: so that a writer that
    does not know such an entity is refused instead of leaving its readers with old values."""

    def prefixes(self, namespace: str, entity: str, slot: int = 0) -> tuple[bytes, ...]:
        """The current prefix of the names in a slot; the coming one behind it where it differs."""
        current = self.now.prefix(namespace, entity, slot)
        if self.next is None:
            return (current,)
        coming = self.next.prefix(namespace, entity, slot)
        return (current,) if coming == current else (current, coming)

    def names(self, namespace: str, entity: str, text: bytes) -> tuple[bytes, ...]:
        """The current name of a key; the coming one behind it where it differs."""
        slot = slot_of(text) if self.pooled else 0
        return tuple([prefix + text for prefix in self.prefixes(namespace, entity, slot)])

    def told(self, node: str, namespace: str, entity: str, text: bytes) -> list[bytes]:
        """The names of a key that concern this node of the pool: those of slots that it has, or is to have."""
        slot = slot_of(text) if self.pooled else 0
        return [prefix + text for prefix in self.prefixes_on(node, namespace, entity, slot)]

    def prefixes_on(self, node: str, namespace: str, entity: str, slot: int) -> tuple[bytes, ...]:
        """The prefixes of the names in a slot that this node of the pool has, or is to have."""
        placings = [self.now] if self.next is None else [self.now, self.next]
        mine = [placing for placing in placings if placing.owner(slot) in (None, node)]
        return tuple(dict.fromkeys(placing.prefix(namespace, entity, slot) for placing in mine))

    def gutter(self, namespace: str, entity: str, text: bytes) -> bytes | None:
        """What a key is called on the node that keeps it while its own does not answer; None in a pool of one."""
        if len(self.now.nodes) < 2:
            return None
        return self.now.prefix(namespace, entity, slot_of(text))[:-1] + GUTTER + b"/" + text

    @property
    def pooled(self) -> bool:
        """The layout names nodes, or is about to."""
        return self.now.slots is not None or (self.next is not None and self.next.slots is not None)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node that has keys or is about to have; none where there is one node without a name."""
        coming = self.next.nodes if self.next is not None else ()
        return tuple(dict.fromkeys((*self.now.nodes, *coming)))

    @property
    def goal(self) -> Placing:
        """What holds when all that is published has become current."""
        return self.next or self.now

    def mode(self, entity: str) -> Mode:
        """What reads of the entity may do with the cache; "*" stands for all entities."""
        return self.now.modes.get(entity, self.now.modes.get("*", Mode.ON))


def first_layout(nodes: Sequence[str] = ()) -> Layout:
    """The layout of a store that has none yet: of a pool of these nodes, or of one node without a name."""
    return Layout(1, Placing(fresh_name(), fresh_name(), slots=first_slots(nodes) if nodes else None))


def with_nodes(layout: Layout, nodes: Sequence[str]) -> Layout:
    """Publish a pool of these nodes; on top of what is published already. Raises `ConfigError`.

    Where the layout named none before, every key moves: clients may have called the one node by different names.
    """
    slots = layout.goal.slots
    if slots is not None and set(slots.nodes) == set(nodes):
        return layout
    goal = replace(layout.goal, slots=first_slots(nodes) if slots is None else slots_with_nodes(slots, nodes))
    return replace(layout, number=layout.number + 1, next=goal)


def with_node_renewed(layout: Layout, node: str) -> Layout:
    """Publish a new tenure for all that a node of the pool owns: what it holds is never asked for again."""
    slots = layout.goal.slots
    if slots is None or node not in slots.nodes:
        return layout
    goal = replace(layout.goal, slots=with_new_tenure(slots, node))
    return replace(layout, number=layout.number + 1, next=goal)


def with_new_epochs(layout: Layout, entities: Iterable[str] | None) -> Layout:
    """Publish new epochs for these entities, None for all; on top of what is published already."""
    goal = layout.goal
    if entities is None:
        goal = replace(goal, base=fresh_name(), epochs={})
    else:
        goal = replace(goal, epochs={**goal.epochs, **{name: fresh_name() for name in entities}})
    return replace(layout, number=layout.number + 1, next=goal)


def with_mode(layout: Layout, entity: str, mode: Mode) -> Layout:
    """Set an entity's mode, now: it changes no name, so it needs no second step."""

    def switched(placing: Placing) -> Placing:
        kept = {name: other for name, other in placing.modes.items() if name != entity}
        return replace(placing, modes=kept if mode is Mode.ON and entity == "*" else {**kept, entity: mode})

    coming = switched(layout.next) if layout.next else None
    return replace(layout, number=layout.number + 1, now=switched(layout.now), next=coming)


def with_strong(layout: Layout, entity: str, tables: Iterable[str]) -> Layout:
    """Declare that an entity is read as strong and depends on these tables."""
    named = tuple(sorted(tables))
    if layout.strong.get(entity) == named:
        return layout
    return replace(layout, number=layout.number + 1, strong={**layout.strong, entity: named})


def completed(layout: Layout) -> Layout:
    """Make what is published current. Only two lease times after it was published."""
    return layout if layout.next is None else replace(layout, number=layout.number + 1, now=layout.next, next=None)


def encode_layout(layout: Layout) -> bytes:
    """The document as a person can read it."""
    document: dict[str, Any] = {"format": POOL_FORMAT if layout.pooled else FORMAT, "number": layout.number}
    document["now"] = _plain(layout.now)
    document["strong"] = {name: list(tables) for name, tables in layout.strong.items()}
    if layout.next is not None:
        document["next"] = _plain(layout.next)
    return json.dumps(document, sort_keys=True).encode()


def decode_layout(document: bytes) -> Layout:
    """Raises `ConfigError` where the document is none of ours: doubt must not become a name."""
    try:
        plain = json.loads(document)
        if plain["format"] not in (FORMAT, POOL_FORMAT):
            raise ValueError(f"format {plain['format']}")
        coming = plain.get("next")
        strong = {str(name): tuple(map(str, tables)) for name, tables in plain.get("strong", {}).items()}
        return Layout(int(plain["number"]), _placing(plain["now"]), _placing(coming) if coming else None, strong)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as cause:
        raise ConfigError(
            f"the layout document in the store cannot be read ({cause!r}): a newer version of this package wrote it,"
            " or it is damaged"
        ) from cause


def _plain(placing: Placing) -> dict[str, Any]:
    modes = {name: mode.value for name, mode in placing.modes.items()}
    plain = {"base": placing.base, "tenure": placing.tenure, "epochs": dict(placing.epochs), "modes": modes}
    return plain if placing.slots is None else plain | {"pool": plain_of(placing.slots)}


def _placing(plain: Mapping[str, Any]) -> Placing:
    modes = {str(name): Mode(mode) for name, mode in plain["modes"].items()}
    pool = plain.get("pool")
    slots = None if pool is None else slots_from(pool)
    return Placing(str(plain["base"]), str(plain["tenure"]), dict(plain["epochs"]), modes, slots)
