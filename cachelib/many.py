"""Many keys of one entity: one look for the hits, in one pipeline a node; then rounds for the misses, with one load."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cachelib.core import Core, Known, nearby
from cachelib.drivers import AskingPort, lockstep
from cachelib.entity import Entity
from cachelib.envelope import plain_values
from cachelib.errors import CacheError, CacheUnavailable
from cachelib.history import History
from cachelib.keys import Key
from cachelib.l1 import PLAIN_KEYS
from cachelib.lane import Lane
from cachelib.metrics import READS
from cachelib.model import Name
from cachelib.plans import hit, level_of, may_look
from cachelib.policy import Duration, Eventual, Level, duration_ms
from cachelib.port import Found
from cachelib.readplan import ReadPlan
from cachelib.steps import read
from cachelib.view import View

_ABSENT: Any = object()
NOTHING_ASKED: Mapping[bytes, bytes | None] = MappingProxyType({})


async def get_many(
    core: Core, entity: Entity, keys: Sequence[Key], level: Level | None, deadline: Duration | None
) -> dict[Key, Any]:
    """The values of the keys that exist, in the order asked."""
    began, view = time.monotonic(), core.layout.view
    lane: Lane | None = None
    if level is None and isinstance(entity.consistency, Eventual) and view is not None and began < view.refresh_at:
        lane = view.lanes.get(entity)
    if lane is None or view is None:
        found = await read_many(core, entity, keys, level, deadline)
        core.mend_lane(entity)
        return {key: one.value for key, one in zip(keys, found, strict=True) if one.found}
    copies = _copies(lane, keys, began)
    asked = [key for key in keys if key not in copies] if copies else keys
    values, missing = await _hits(core, view, lane, asked, began)
    if not missing and not copies:
        lane.tally.read_seconds.add(time.monotonic() - began)
        return dict(zip(asked, values, strict=True))
    here = copies | dict(zip(asked, values, strict=True))
    late = [asked[at] for at in missing]
    raws = {lane.render(asked[at]): raw for at, raw in missing.items()}
    for key, one in zip(late, await read_many(core, entity, late, None, deadline, raws), strict=True):
        here[key] = one.value if one.found else _ABSENT
    return {key: here[key] for key in keys if here[key] is not _ABSENT}


def _copies(lane: Lane, keys: Sequence[Key], now: float) -> dict[Key, Any]:
    """What the process itself still has of them."""
    near = lane.near
    if near is None:
        return {}
    copies = ((key, near(key if key.__class__ in PLAIN_KEYS else lane.render(key))) for key in keys)
    here = {key: copy.value for key, copy in copies if copy is not None and now < copy.until}
    lane.tally.locals.steps(len(here))
    return here


async def _hits(
    core: Core, view: View, lane: Lane, keys: Sequence[Key], began: float
) -> tuple[list[Any], dict[int, bytes | None]]:
    """The values of the plain hits, and the places and bytes of all the others."""
    if not keys:
        return [], {}
    stamp = 0 if lane.shelf is None else lane.shelf.stamp
    try:
        raws = await core.node.get_many(_names(core, view, lane, keys))
    except CacheUnavailable:
        raws = [None] * len(keys)  # the steps will meet it again, and know what to do
    values, others = plain_values(raws, time.time() * 1000, lane.packer.prefix, lane.packer.decode)
    missing = {at: raws[at] for at in others}
    lane.tally.hits.steps(len(keys) - len(missing))
    if lane.comparer is not None:
        at = random.randrange(len(keys))  # one stands for the batch: each hit has the chance that it has alone
        if at not in missing and (one := raws[at]) is not None:
            lane.comparer.offer(lane.entity, keys[at], one, lane.entity.consistency, len(keys))
    if lane.shelf is not None:
        for at, (key, raw) in enumerate(zip(keys, raws, strict=True)):
            if at not in missing and raw is not None:
                lane.keep(key, raw, values[at], began, stamp)
    return values, missing


def _names(core: Core, view: View, lane: Lane, keys: Sequence[Key]) -> list[Name]:
    if lane.prefix:  # one node
        return lane.entity.template.render_all(keys, lane.prefix)
    return [core.names(view, lane.entity, lane.render(key))[0] for key in keys]


async def read_many(
    core: Core,
    entity: Entity,
    keys: Sequence[Key],
    level: Level | None,
    deadline: Duration | None,
    raws: Mapping[bytes, bytes | None] = NOTHING_ASKED,
    history: History | None = None,
) -> list[Found]:
    """The long answers, in the order asked. `raws`: what the hit path was answered a moment ago, by text.

    `history`: that of the session that they belong to.
    """
    known, began = core.knows(entity), time.monotonic()
    until = None if deadline is None else began + duration_ms("deadline", deadline) / 1000
    level = level_of(entity, level)
    texts = [entity.text(key) for key in keys]
    view = await core.view(entity, level)
    found: dict[bytes, Found] = {}
    plans: dict[bytes, ReadPlan] = {}
    for key, text in zip(keys, texts, strict=True):
        near = nearby(view, entity, key, text, level) if history is None else None
        if near is not None:
            found[text] = near
        elif text not in plans:
            plans[text] = await core.plan(view, entity, key, text, level, history)
    found |= await _look_many(core, plans, raws)
    missing = [text for text in plans if text not in found]
    for text in plans:
        if text not in found or found[text].source == "stale":
            known.tally.note("miss")
    found |= await _read_missing(core, known, plans, missing, until)
    known.tally.read_seconds.add(time.monotonic() - began)
    for text, plan in plans.items():
        if plan.record is not None:
            found[text] = plan.record(found[text])
    for text in found:
        known.tally.add(READS, "source", found[text].source)
    return [found[text] for text in texts]


async def _look_many(
    core: Core, plans: dict[bytes, ReadPlan], raws: Mapping[bytes, bytes | None]
) -> dict[bytes, Found]:
    looks = [(text, plan) for text, plan in plans.items() if may_look(plan)]
    if not looks:
        return {}
    if raws:
        answers = [raws[text] for text, _ in looks]
    else:
        try:
            answers = [*await core.node.get_many([plan.name for _, plan in looks])]
        except CacheUnavailable:
            return {}
    pairs = ((text, hit(raw, plan)) for (text, plan), raw in zip(looks, answers, strict=True))
    return {text: found for text, found in pairs if found is not None}


async def _read_missing(
    core: Core, known: Known, plans: dict[bytes, ReadPlan], texts: list[bytes], until: float | None
) -> dict[bytes, Found]:
    if not texts:
        return {}
    call = core.call(known, until)
    results = await lockstep(call, [read(AskingPort(call), plans[text]) for text in texts])
    for result in results:
        if isinstance(result, CacheError):
            known.tally.add(READS, "source", "error", len(texts))
            raise result
    return {text: result for text, result in zip(texts, results, strict=True) if isinstance(result, Found)}
