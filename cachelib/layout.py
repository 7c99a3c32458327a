"""Where keys live and under which names: the layout, its changes and its lease. Pure.

A name is `namespace/epoch.tenure/key`. The layout is one small JSON document in the store. It
changes in two steps (PROTOCOL.md, "Where a key lives"): a change is published as `next`, and
becomes current two lease times later, when no client can still work by the one before. In
between whoever voids an item voids it under both names, nothing fills the new one, and strong
reads of what moves ask the store.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cachelib.errors import ConfigError
from cachelib.policy import Mode

LEASE_MS = 2_000
"""A client works by a layout at most so long after it began to read it."""
REFRESH_MS = 1_000
"""A client that is in use reads the layout anew this often."""


def fresh_name() -> str:
    """A random epoch or tenure; 40 bits, never used again in practice."""
    return secrets.token_hex(5)


@dataclass(frozen=True, slots=True)
class Placing:
    """What decides a name: epochs of entities and the tenure of the node; and the modes.

    `base` is the epoch of every entity that has none of its own; a new one voids all keys.
    """

    base: str
    tenure: str
    epochs: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)

    def prefix(self, namespace: str, entity: str) -> bytes:
        """What stands before a key's text."""
        return f"{namespace}/{self.epochs.get(entity, self.base)}.{self.tenure}/".encode()


@dataclass(frozen=True, slots=True)
class Layout:
    """The document: what holds now, and what is about to hold."""

    number: int
    now: Placing
    next: Placing | None = None
    strong: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entities that somebody reads as strong, and whose tables they are: so that a writer that
    does not know such an entity is refused instead of leaving its readers with old values."""

    def prefixes(self, namespace: str, entity: str) -> tuple[bytes, ...]:
        """The current prefix of an entity's names; the coming one behind it where it differs."""
        current = self.now.prefix(namespace, entity)
        if self.next is None:
            return (current,)
        coming = self.next.prefix(namespace, entity)
        return (current,) if coming == current else (current, coming)

    def mode(self, entity: str) -> Mode:
        """What reads of the entity may do with the cache; "*" stands for all entities."""
        return self.now.modes.get(entity, self.now.modes.get("*", Mode.ON))


def first_layout() -> Layout:
    """The layout of a store that has none yet."""
    return Layout(1, Placing(fresh_name(), fresh_name()))


def with_new_epochs(layout: Layout, entities: Iterable[str] | None) -> Layout:
    """Publish new epochs for these entities, None for all; on top of what is published already."""
    goal = layout.next or layout.now
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
    document: dict[str, Any] = {"format": 1, "number": layout.number, "now": _plain(layout.now)}
    document["strong"] = {name: list(tables) for name, tables in layout.strong.items()}
    if layout.next is not None:
        document["next"] = _plain(layout.next)
    return json.dumps(document, sort_keys=True).encode()


def decode_layout(document: bytes) -> Layout:
    """Raises `ConfigError` where the document is none of ours: doubt must not become a name."""
    try:
        plain = json.loads(document)
        if plain["format"] != 1:
            raise ValueError(f"format {plain['format']}")
        coming = plain.get("next")
        strong = {str(name): tuple(map(str, tables)) for name, tables in plain.get("strong", {}).items()}
        return Layout(int(plain["number"]), _placing(plain["now"]), _placing(coming) if coming else None, strong)
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ConfigError(
            f"the layout document in the store cannot be read ({cause!r}): a newer version of this package wrote it,"
            " or it is damaged"
        ) from cause


def _plain(placing: Placing) -> dict[str, Any]:
    modes = {name: mode.value for name, mode in placing.modes.items()}
    return {"base": placing.base, "tenure": placing.tenure, "epochs": dict(placing.epochs), "modes": modes}


def _placing(plain: Mapping[str, Any]) -> Placing:
    modes = {str(name): Mode(mode) for name, mode in plain["modes"].items()}
    return Placing(str(plain["base"]), str(plain["tenure"]), dict(plain["epochs"]), modes)
