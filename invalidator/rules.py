"""From changes to keys: the entities that the daemon was told of, by table.

What a change means for a key is `cachelib.effects`, the same rule by which the library tells the
caches after its own writes. Here is what one change log needs beside it: which entities a table
concerns, and what to do where a change names no key.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cachelib.effects import Effect, coalesce, concerns, effects
from cachelib.entity import Entity
from cachelib.errors import BadKey, ConfigError
from cachelib.model import RowChange
from cachelib.policy import refuse_unknown
from invalidator.images import BYTES_MAX, with_image
from invalidator.sources.base import Event, Poison

_LARGE = 1000
"""Bytes of a record."""
_RULE = frozenset(("name", "template", "table", "key", "version", "depends_on", "stale_ttl", "tombstone_ttl"))


@dataclass(slots=True)
class Reading:
    """What a batch of changes comes to.

    `renew`: entities whose keys cannot be named one by one, with the reason, and where the change
    stood: they need a new epoch before the batch counts as done.
    """

    effects: list[Effect] = field(default_factory=list)
    keys: int = 0
    """How many keys the changes named, before those of one key became one."""
    renew: list[tuple[Event, str, str]] = field(default_factory=list)
    tables: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    strangers: list[Event] = field(default_factory=list)
    """Changes of tables that no entity depends on."""
    problems: list[tuple[Event, str]] = field(default_factory=list)
    """Changes whose key cannot be told, and why."""
    unmade: Counter[tuple[str, str]] = field(default_factory=Counter)
    """After-images that could not be made, by entity and why."""
    highest: int = 0
    oldest_us: int = 0


class Rules:
    """Entities by the tables that change them."""

    def __init__(self, entities: Sequence[Entity], image_bytes_max: int = BYTES_MAX) -> None:
        if not entities:
            raise ConfigError("nothing is cached: name entities (--entities, entities = ...) or give [[rules]]")
        for what, said in (("name", [one.name for one in entities]), ("key", [one.template.text for one in entities])):
            twice = [one for one, times in Counter(said).items() if times > 1]
            if twice:
                raise ConfigError(f"two entities have the {what} {twice[0]!r}: give each its own")
        self.entities = tuple(entities)
        self._image_bytes_max = image_bytes_max
        self.names = frozenset(one.name for one in entities)
        tables = {one.table for one in entities if one.table} | {table for one in entities for table in one.depends_on}
        self.tables: Mapping[str, tuple[Entity, ...]] = {
            table: tuple(one for one in entities if concerns(one, (table,))) for table in sorted(tables)
        }

    def read(self, events: Iterable[Event], poison: Iterable[Poison] = ()) -> Reading:
        """Everything that these changes mean, and what cannot be read; keys coalesced."""
        reading = Reading()
        found: list[Effect] = [effect for one in poison for effect in self._instead(one, reading)]
        for event in events:
            change = event.change
            reading.highest = max(reading.highest, change.version or 0)
            if change.at_us and (not reading.oldest_us or change.at_us < reading.oldest_us):
                reading.oldest_us = change.at_us
            concerned = self.tables.get(change.table)
            if concerned is None:
                reading.unknown[change.table] += 1
                reading.strangers.append(event)
                continue
            reading.tables[change.table] += 1
            for entity in concerned:
                found += self._effects(entity, event, reading)
        reading.keys = len(found)
        reading.effects = coalesce(found)
        return reading

    def not_in(self, older: Rules) -> list[str]:
        """The entities that the older rules did not have, or had with other keys or tables."""
        return [one.name for one in self.entities if _shape(one) not in {_shape(other) for other in older.entities}]

    def _instead(self, poison: Poison, reading: Reading) -> Iterable[Effect]:
        """What a record may have been about that cannot be read: never nothing (I12)."""
        for change in poison.instead or (RowChange("", "truncate"),):
            event = Event(poison.partition, poison.position, change)
            concerned = self.tables.get(change.table)
            if concerned is None or change.op == "truncate":
                # A table that nobody caches may only be a topic that is not named after its table.
                renewed = self.entities if concerned is None else concerned
                reading.renew += [(event, entity.name, "undecodable") for entity in renewed]
                continue
            for entity in concerned:
                yield from self._effects(entity, event, reading, doubtful=True)

    def _effects(self, entity: Entity, event: Event, reading: Reading, *, doubtful: bool = False) -> Sequence[Effect]:
        if event.change.op == "truncate":
            reading.renew.append((event, entity.name, "truncate"))
            return ()
        try:
            found = effects(entity, event.change)
        except BadKey as error:
            # It changed some key of this entity, and we cannot say which: doubt is a miss (I12).
            reading.renew.append((event, entity.name, "undecodable" if doubtful else "bad_key"))
            if not doubtful:
                reading.problems.append((event, f"table {event.change.table!r}: {error}"))
            return ()
        missing = _missing(entity, event.change)
        if missing:
            reading.renew.append((event, entity.name, "undecodable" if doubtful else "bad_key"))
        if entity.refresh is not None and not (doubtful or missing):
            return [self._refreshed(one, event.change, reading) for one in found]
        if event.record is not None and len(event.record.value or b"") > _LARGE:
            # What is kept for nodes that are behind must not be whole rows: of the change only its kind is needed.
            kind = RowChange(event.change.table, event.change.op)
            found = [replace(one, change=kind) for one in found]
        if missing and not doubtful:
            why = (
                f"table {event.change.table!r}: the log does not carry {', '.join(missing)}, which {entity.name!r}"
                " needs: watch these columns (install again)"
            )
            reading.problems.append((event, why))
        return found

    def _refreshed(self, effect: Effect, change: RowChange, reading: Reading) -> Effect:
        made, why = with_image(effect, change, self._image_bytes_max)
        if why is not None:
            reading.unmade[effect.entity.name, why] += 1
        return made


def _shape(entity: Entity) -> tuple[object, ...]:
    columns = tuple(sorted(entity.depends_on.items()))
    return entity.name, entity.template.text, entity.table, entity.key, entity.version, columns


def _missing(entity: Entity, change: RowChange) -> list[str]:
    """Columns that name the key and are not in the log: unlike NULL, which is no key, that says nothing."""
    if entity.table == change.table:
        return [column for column in entity.key if column not in change.key]
    images = [image for image in (change.before, change.after) if image is not None] or [change.key]
    return [column for column in entity.depends_on[change.table] if any(column not in image for image in images)]


def rules_from(names: Sequence[str], tables: Sequence[Mapping[str, Any]], image_bytes_max: int = BYTES_MAX) -> Rules:
    """From modules that declare entities and from [[rules]]. Raises `ConfigError`."""
    entities = [entity for name in names for entity in _imported(name)]
    return Rules([*entities, *(_declared(table) for table in tables)], image_bytes_max)


def _imported(name: str) -> list[Entity]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(f"entities = {name!r}: {module_name} cannot be imported: {error!r}") from error
    if not attribute:
        found: Any = vars(module)
    elif hasattr(module, attribute):
        found = getattr(module, attribute)
    else:
        raise ConfigError(f"entities = {name!r}: {module_name} has no {attribute!r}")
    if isinstance(found, Entity):
        return [found]
    values = list(found.values() if isinstance(found, Mapping) else found)
    entities = list(dict.fromkeys(value for value in values if isinstance(value, Entity)))
    if not entities or (attribute and len(entities) != len(values)):
        raise ConfigError(f"entities = {name!r}: that is not an Entity, nor a list or module of them")
    return [entity for entity in entities if entity.table or entity.depends_on]


def _declared(table: Mapping[str, Any]) -> Entity:
    if not isinstance(table.get("template"), str):
        raise ConfigError(f"a rule needs a template, such as 'order:{{id}}': {table!r}")
    settings = dict(table)
    if "refresh" in settings:
        raise ConfigError(
            f"the rule {table['template']!r} has refresh: what a row's value is only a function can tell; declare the"
            " entity in a module with refresh=, and name that in entities"
        )
    refuse_unknown(f"the rule {table['template']!r}", sorted(set(settings) - _RULE), _RULE)
    if settings.get("version") == "":
        settings["version"] = None  # TOML has no null
    for name in ("table", "depends_on"):
        if isinstance(settings.get("key"), list):
            settings["key"] = tuple(settings["key"])
        if name in settings and not settings[name]:
            del settings[name]
    if not settings.get("table") and not settings.get("depends_on"):
        raise ConfigError(f"the rule {table['template']!r} needs table = or depends_on =")
    return Entity(settings.pop("template"), **settings)
