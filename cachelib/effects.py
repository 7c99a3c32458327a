"""From a changed row to the keys that it changes, and to what each key's item must be told.

One rule for both who tell the caches: the library after its own commit, and the invalidator
from the change log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from cachelib.entity import Entity
from cachelib.keys import Key
from cachelib.model import Content, Kind, Op, Put, RaiseFloor, Revoke, RowChange, Version


@dataclass(frozen=True, slots=True)
class Effect:
    """One key of one entity has changed. `text` names it. `version` 0: it cannot be compared."""

    entity: Entity
    key: Key
    text: bytes
    version: Version
    change: RowChange
    force: bool = False
    """Void the item whatever it holds: several changes that no single comparison covers."""
    content: Content | None = None
    """What the key is after the change, where it may be written through (`Entity.refresh`): only what is surely
    visible in the store, or a strong read could be followed by one that loads the row as it was before."""

    def writers_op(self) -> Op:
        """What a writer says of its own change before it is acknowledged.

        Without a version it always revokes: the item may still show the row from before a delete
        that nobody has told yet, and a create that is about to be acknowledged must hide that, too.
        """
        return self.op() if self.version and not self.force else Revoke(self.entity.lives.stale_ttl_ms)

    def op(self) -> Op:
        """What voids everything older than the change, by PROTOCOL.md's rules for an event of the log."""
        entity, change = self.entity, self.change
        stale_ttl_ms = entity.lives.stale_ttl_ms
        if self.force:
            return Revoke(stale_ttl_ms)
        if self.version:
            kind = change.op if change.op in ("create", "delete") else "update"
            return RaiseFloor(self.version, kind, stale_ttl_ms, entity.tombstone_ttl_ms)
        # A create without a version concerns only cached absence; but of a key of many rows it
        # changes the list, so there everything revokes.
        return Revoke(stale_ttl_ms, create=change.op == "create" and entity.table is not None)

    def refresh(self, chance: Callable[[], float]) -> Put | None:
        """The put that writes the change through where the key is cached (I2), or None: `op` is all there is to say.

        `chance` answers numbers in [0, 1), for the spread of lives. As a writer's put it voids what is older where
        it may not be stored.
        """
        change = self.change.op
        if self.content is None or self.force or not self.version or change == "truncate":
            return None
        lives = self.entity.lives
        ttl_ms, soft_ttl_ms = lives.of(self.content.kind is Kind.ABSENCE, chance)
        return Put(self.content, self.version, change, ttl_ms, lives.stale_ttl_ms, soft_ttl_ms, self.change.at_us)


def effects(entity: Entity, change: RowChange) -> list[Effect]:
    """The keys of `entity` that `change` changes, each once. A truncate names none: it is an epoch's matter.

    Raises `BadKey` where a column does not fit the key template.
    """
    if change.op == "truncate":
        return []
    if entity.table == change.table:
        keys = [entity.template.from_columns(change.key, entity.key)]
        version = (change.version or 0) if entity.versioned else 0
        return _each(entity, keys, version, change)
    columns = entity.depends_on.get(change.table)
    if columns is None:
        return []
    images = [image for image in (change.before, change.after) if image is not None] or [change.key]
    return _each(entity, [entity.template.from_columns(image, columns) for image in images], 0, change)


def concerns(entity: Entity, tables: Iterable[str]) -> bool:
    """Whether changes of any of these tables change keys of the entity."""
    return any(table == entity.table or table in entity.depends_on for table in tables)


def coalesce(found: Iterable[Effect]) -> list[Effect]:
    """One effect for each key that leaves the item as safe as all of them would, in their order."""
    latest: dict[tuple[str, bytes], Effect] = {}
    for effect in found:
        at = effect.entity.name, effect.text
        other = latest.get(at)
        latest[at] = effect if other is None else _both(other, effect)
    return list(latest.values())


def _both(older: Effect, newer: Effect) -> Effect:
    if older.force:
        return older
    if older.version and newer.version:
        return _newest(older, newer)
    if older.version == newer.version and older.change.op == newer.change.op == "create":
        return newer
    return replace(newer, force=True)


def _newest(older: Effect, newer: Effect) -> Effect:
    """Of two changes with versions: the higher, and what the lower says beyond its version.

    A create says more: it voids absence whatever its version, as a counter may have begun anew.
    """
    if newer.version > older.version:
        if older.change.op != "create" or newer.change.op == "create":
            return newer
        if newer.change.op == "update":
            return replace(newer, change=replace(newer.change, op="create"))
        return replace(newer, force=True)  # created and gone: no single change says both
    # A create that does not rise: a counter that began anew, or a log that was rewound.
    again = newer.change.op == "create" and (newer.version, "create") != (older.version, older.change.op)
    if not again and (newer.version, newer.change.op) == (older.version, older.change.op):
        return newer if older.content is None else older  # one change, at its first look and at its last
    return replace(newer, force=True) if again else older


def _each(entity: Entity, keys: Iterable[Any], version: Version, change: RowChange) -> list[Effect]:
    by_text: dict[bytes, Effect] = {}
    for key in keys:
        if key is not None:
            text = entity.text(key)
            by_text[text] = Effect(entity, key, text, version, change)
    return list(by_text.values())
