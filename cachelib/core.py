"""The core of a cache, written once for threads and asyncio: entities, plans, reads, changes by hand.

Everything that waits is awaited; `client.py` runs it to its end in the calling thread, `aio.py`
awaits it. The hit path returns before any of this is entered.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from cachelib.budget import Budget
from cachelib.call import Call
from cachelib.comparing import Comparer
from cachelib.entity import Entity
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.grounds import Grounds, Where
from cachelib.history import History
from cachelib.keys import Key, check_namespace
from cachelib.l1 import Near
from cachelib.lane import Lane, trusts_of, way
from cachelib.layout import Layout, with_mode, with_new_epochs, with_strong
from cachelib.levels import FREE
from cachelib.loading import Loading
from cachelib.metrics import READS, Tally
from cachelib.model import Name, Revoke
from cachelib.parts import Parts
from cachelib.plans import NOT_ASKED, NotAsked, Raw, hit, level_of, may_look, plan_of
from cachelib.policy import Bounded, Duration, Eventual, Level, Mode, Strong, duration_ms
from cachelib.port import Found
from cachelib.readplan import ReadPlan
from cachelib.steps import read
from cachelib.view import LayoutView, View


@dataclass(frozen=True, slots=True)
class Known:
    """An entity that this cache has met."""

    entity: Entity
    tally: Tally
    loading: Loading


class Core:
    """One cache: a node, a store, and what is known of entities and layout."""

    def __init__(self, parts: Parts) -> None:
        check_namespace(parts.namespace)
        self.parts = parts
        self.namespace = parts.namespace
        self.node = parts.pool
        self.store = parts.store
        self.metrics = parts.metrics
        self.budget = Budget(parts.budget, parts.world)
        self.layout = LayoutView(parts.store, parts.world, parts.metrics.tally("*").note, parts.pool.names)
        self.grounds = Grounds(parts.pool, parts.store, parts.namespace)
        if parts.l1 is not None and parts.pool.first.asks_replicas:
            raise ConfigError(
                "l1= keeps nothing older than what this process wrote, and with replicas=eventual it would:"
                " take one of them"
            )
        self.near = Near(parts.l1)
        self.comparer: Comparer | None = None
        self.known: dict[Entity, Known] = {}
        for entity in parts.entities:
            self.knows(entity)

    # --- entities ----------------------------------------------------------------------------

    def knows(self, entity: Entity) -> Known:
        """The entity as this cache knows it from now on. Raises `ConfigError`."""
        known = self.known.get(entity)
        if known is not None:
            return known
        if not isinstance(entity, Entity):
            raise ConfigError(f"expected an Entity, not {entity!r}")
        for other in list(self.known):
            if other.name == entity.name:
                raise ConfigError(
                    f"{entity!r} and {other!r} would share the name {entity.name!r}: give one of them name='…'"
                )
            if other.template.meets(entity.template):
                raise ConfigError(
                    f"{entity!r} and {other!r} can have the same key in the cache, and one would be served for the"
                    " other: begin one of the templates with another text"
                )
        if not isinstance(entity.consistency, Eventual) and self.store is None:
            raise ConfigError(f"{entity!r} is {entity.consistency!r}: give the cache a store, Cache(…, store=…)")
        bytes_max = self.node.capability.payload_bytes_max
        loading = Loading(entity, self.store, self.parts.table_loader, bytes_max)
        known = Known(entity, self.metrics.tally(entity.name), loading)
        self.known[entity] = known
        return known

    def call(self, known: Known, until: float | None = None) -> Call:
        """A port for one call about keys of an entity."""
        return Call(
            node=self.node,
            world=self.parts.world,
            budget=self.budget,
            loading=known.loading,
            tally=known.tally,
            abandon=self.parts.abandon,
            until=until,
        )

    # --- names -------------------------------------------------------------------------------

    def names(self, view: View, entity: Entity, text: bytes) -> tuple[Name, ...]:
        """Where the item is, and where it is going to be while the layout changes."""
        self.node.learn(view.layout)
        return view.layout.names(self.namespace, entity.name, text)

    def lane(self, view: View, known: Known) -> Lane | None:
        """The hit path of an entity; None where each read has to be thought about."""
        entity, layout = known.entity, view.layout
        view.lanes.pop(entity, None)
        every = self.comparer is not None and self.comparer.every
        if layout.mode(entity.name) is Mode.BYPASS or (entity.strong and view.unread) or every:
            return None
        if isinstance(entity.consistency, Bounded):  # what it may show changes with the time
            return None
        self.node.learn(layout)
        trusts = trusts_of(self.node, entity)
        route = way(self.node, layout, self.namespace, entity, self.parts.faces, lambda: known.tally.note("replica"))
        if route is None:
            return None
        lagging = any(node.asks_replicas for node in self.node.nodes)  # behind what this process wrote, perhaps
        shelf = None if lagging else self.near.shelf(entity, layout.number)
        lane = Lane(entity, route, known.tally, shelf, trusts)
        lane.comparer = self.comparer
        if not entity.strong and layout.mode(entity.name) is Mode.ON:
            lane.joins(plan_of(entity, None, (), Mode.ON, entity.consistency), self.parts.world.flights)
        view.lanes[entity] = lane
        return lane

    def mend_lane(self, entity: Entity) -> None:
        """Make the hit path of an entity anew, where there is none or more (or less) is known of the nodes by now."""
        view = self.layout.view
        if view is not None:
            lane = view.lanes.get(entity)
            if lane is None or (entity.strong and lane.trusts != trusts_of(self.node, entity)):
                self.lane(view, self.knows(entity))

    # --- reads -------------------------------------------------------------------------------

    async def read(
        self,
        entity: Entity,
        key: Key,
        level: Level | None,
        deadline: Duration | None,
        raw: Raw = NOT_ASKED,
        history: History | None = None,
    ) -> Found:
        """One read, timed and counted. `raw`: what the hit path was answered a moment ago; `history`: its session's."""
        known, began = self.knows(entity), time.monotonic()
        until = None if deadline is None else began + duration_ms("deadline", deadline) / 1000
        source = "error"
        try:
            found = await self._read(known, key, level_of(entity, level), until, raw, history)
            source = found.source
            return found
        finally:
            known.tally.add(READS, "source", source)
            known.tally.read_seconds.add(time.monotonic() - began)

    async def _read(
        self, known: Known, key: Key, level: Level, until: float | None, raw: Raw, history: History | None
    ) -> Found:
        text = known.entity.text(key)
        view = await self.view(known.entity, level)
        near = nearby(view, known.entity, key, text, level) if history is None else None
        if near is not None:
            return near
        plan = await self.plan(view, known.entity, key, text, level, history)
        found, vacant = await self._look(plan, known, raw, level)
        if found is None:
            found = await read(self.call(known, until), plan, vacant)
        return found if plan.record is None else plan.record(found)

    async def view(self, entity: Entity, level: Level) -> View:
        """The layout that a read of this level may work by (I13)."""
        if not isinstance(level, Strong):
            return await self.layout.current()
        view = await self.layout.leased()
        if entity.name not in view.layout.strong:  # once in the life of a store
            await self.layout.publish(lambda layout: with_strong(layout, entity.name, entity.tables))
            view = await self.layout.leased()
        return view

    async def plan(
        self, view: View, entity: Entity, key: Key, text: bytes, level: Level, history: History | None = None
    ) -> ReadPlan:
        """Everything about a read that does not depend on what the cache answers."""
        names = self.names(view, entity, text)
        plain = history is None and isinstance(level, Eventual)
        ground = FREE
        if not plain:
            where = Where(text, names, view.layout.number, view.leased)
            ground = await self.grounds.of(entity, level, where, history)
        gutter_ms = self.parts.gutter_ms if plain else 0
        beside = view.layout.gutter(self.namespace, entity.name, text) if gutter_ms else None
        return plan_of(entity, key, names, view.layout.mode(entity.name), level, ground, (beside, gutter_ms))

    async def _look(self, plan: ReadPlan, known: Known, raw: Raw, level: Level) -> tuple[Found | None, bool]:
        """The hit path, for calls that did not come through a lane, and for what a lane cannot say of its answer.

        Besides, whether there seems to be nothing.
        """
        if not may_look(plan):
            return None, False
        asked = isinstance(raw, NotAsked)
        if isinstance(raw, NotAsked):
            try:
                raw = await self.node.get(plan.name)
            except CacheUnavailable:
                return None, False  # the steps will meet it again, and know what to do
        # What a lane was answered may be of another start of the server than the one that the plan stands on.
        found = None if raw is None or (plan.strong and not asked) else hit(raw, plan)
        if found is None or found.source == "stale":
            known.tally.note("miss")
        elif self.comparer is not None and raw is not None:
            self.comparer.offer(known.entity, plan.key, raw, level)
        return found, raw is None

    # --- by hand -----------------------------------------------------------------------------

    async def invalidate(self, entity: Entity, key: Key) -> None:
        """Revoke one key, whatever it holds. Raises `CacheUnavailable`."""
        known = self.knows(entity)
        view = await self.layout.leased()
        for name in self.names(view, entity, entity.text(key)):
            await self.node.execute(name, Revoke(entity.lives.stale_ttl_ms))
        self.forget(entity, entity.text(key))
        known.tally.note("invalidated")

    def forget(self, entity: Entity, text: bytes) -> None:
        """A key was changed here, and its item has been told: what this process found before is shown to nobody who
        comes from now on. Not earlier, or a reader could find the same once more.

        A flight that takes off later looks, or begins to load, after the change.
        """
        self.near.drop(entity, text)
        flights, view = self.parts.world.flights, self.layout.view
        if flights.under_way and view is not None:
            for name in self.names(view, entity, text):
                flights.forget(name)

    async def clear(self, entities: Iterable[Entity] | None) -> None:
        """New epochs for these entities (None: for all keys); returns when they are current."""
        try:
            await self.layout.settle(await self.renew(entities))
        finally:
            self.near.drop_all()

    async def renew(self, entities: Iterable[Entity] | None) -> Layout:
        """Publish new epochs; who does not wait for them to be current leaves that to others."""
        names = None if entities is None else [self.knows(entity).entity.name for entity in entities]
        for name in names or ["*"]:
            self.metrics.tally(name).note("epoch")
        return await self.layout.publish(lambda layout: with_new_epochs(layout, names))

    async def set_mode(self, entity: Entity | None, mode: str) -> Layout:
        """What reads of the entity (None: of all) may do with the cache, in every process."""
        try:
            wanted = Mode(mode)
        except ValueError:
            raise ConfigError(f"mode is {mode!r}: it takes 'on', 'no_fill' or 'bypass'") from None
        name = "*" if entity is None else self.knows(entity).entity.name
        return await self.layout.publish(lambda layout: with_mode(layout, name, wanted))

    async def look(self, entity: Entity, key: Key) -> tuple[ReadPlan, bytes | None]:
        """The plan of a read and what the node holds for it, for `explain`."""
        self.knows(entity)
        level = level_of(entity, None)
        plan = await self.plan(await self.layout.current(), entity, key, entity.text(key), level)
        return plan, await self.node.get(plan.name)


def nearby(view: View, entity: Entity, key: Key, text: bytes, level: Level) -> Found | None:
    """What the process itself still has of a key, where the level allows it."""
    lane = view.lanes.get(entity) if isinstance(level, Eventual) else None
    copy = lane.copy(key, text) if lane is not None else None
    return None if copy is None else Found(copy.value, True, copy.version, "local", copy.as_of_us)
