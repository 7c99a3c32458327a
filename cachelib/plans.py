"""From what a caller asks to a plan for the steps, and the hit path of calls that have one."""

from __future__ import annotations

from typing import TypeAlias

from cachelib.entity import Entity
from cachelib.envelope import decode, decode_hit
from cachelib.errors import ConfigError, DecodeError
from cachelib.item import serves, shown_while_held
from cachelib.keys import Key
from cachelib.levels import FREE, Ground
from cachelib.model import Item, Kind, Name
from cachelib.nodes import now_ms
from cachelib.policy import Bounded, Duration, Eventual, Level, Mode, Strong, duration_ms
from cachelib.port import Found
from cachelib.readplan import ReadPlan

GUTTER_MS_MAX = 2000
"""Nobody voids what the gutter keeps, so an eventual read may be so far behind while a node is down."""


def plan_of(
    entity: Entity,
    key: Key,
    names: tuple[Name, ...],
    mode: Mode,
    level: Level,
    ground: Ground = FREE,
    gutter: tuple[Name | None, int] = (None, 0),
) -> ReadPlan:
    """Everything about a read that does not depend on what the cache answers."""
    strong = isinstance(level, Strong)
    raises = entity.on_failure.read == "raise" or (isinstance(level, Strong) and level.unavailable == "raise")
    return ReadPlan(
        key=key,
        names=names,
        pace=entity.pace,
        lives=entity.lives,
        decode=entity.packer.unpack,
        requirement=ground.requirement,
        holds=ground.holds,
        proven=ground.proven,
        strong=strong,
        mode=mode,
        stale=ground.stale and not strong and entity.lives.stale_ttl_ms > 0,
        also=ground.also,
        joins=not strong,
        joins_from_us=ground.joins_from_us,
        record=ground.record,
        store_when_down=not raises,
        gutter=gutter[0] if isinstance(level, Eventual) else None,
        gutter_ms=gutter[1],
    )


def gutter_ms(given: Duration | None) -> int:
    """The setting; 0 for none. Raises `ConfigError`."""
    return 0 if given is None else duration_ms("gutter", given, least_ms=10, most_ms=GUTTER_MS_MAX)


def level_of(entity: Entity, asked: Level | None) -> Level:
    """The level of a read. Raises `ConfigError` for a level that the entity's writers do not support."""
    level = asked if asked is not None else entity.consistency
    if isinstance(level, Strong) and not entity.strong:
        raise ConfigError(
            f"{entity!r} was asked for Strong(), but its writers need not be confirmed:"
            " declare the entity with consistency=Strong()"
        )
    if not isinstance(level, Strong | Bounded | Eventual):
        raise ConfigError(f"consistency is {level!r}: it takes Eventual(), Bounded('2s') or Strong()")
    if isinstance(level, Bounded) and not entity.tables:
        raise ConfigError(f"{entity!r} was asked for {level!r}, but says not whose changes change it: give table= …")
    return level


class NotAsked:
    """The node has not been asked yet: not the same as its having nothing."""


NOT_ASKED = NotAsked()
Raw: TypeAlias = bytes | NotAsked | None
"""The bytes of an item, None where there is none."""


def hit(raw: bytes | None, plan: ReadPlan) -> Found | None:
    """What the bytes of an item answer to a plan, also as stale; or None: then ask the server properly."""
    if raw is None:
        return None
    now = now_ms()
    try:
        item = decode_hit(raw, plan.requirement, now)
        if item is None:
            return _stale_while_held(decode(raw), plan, now) if plan.shows_stale else None
        if not plan.holds() or not serves(item, plan.also):
            return None
        if item.content.kind is Kind.ABSENCE:
            return Found(None, False, item.version, "hit", item.as_of_us)
        return Found(plan.decode(item.content.payload), True, item.version, "hit", item.as_of_us)
    except DecodeError:
        return None


def _stale_while_held(item: Item, plan: ReadPlan, now: int) -> Found | None:
    """What the steps would show, were the server asked to lease what another holds: so it need not be asked."""
    if plan.mode is not Mode.ON or not shown_while_held(item, now):
        return None
    if item.content.kind is Kind.ABSENCE:
        return Found(None, False, item.version, "stale", item.as_of_us)
    return Found(plan.decode(item.content.payload), True, item.version, "stale", item.as_of_us)


def may_look(plan: ReadPlan) -> bool:
    """Whether the hit path may be tried at all."""
    return plan.mode is not Mode.BYPASS and plan.proven and not (plan.strong and len(plan.names) > 1)
