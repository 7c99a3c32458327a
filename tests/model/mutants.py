"""The rules, each dropped in turn by patching the real functions: every one must be missed.

A mutant that the search does not catch means a rule that nobody needs, or a search that sees too little.
A configuration here must hold while the rule stands, or its violation says nothing: search it once without the patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from cachelib import item as cache
from cachelib import steps
from cachelib.model import (
    Fill,
    Item,
    Kind,
    LeaseLost,
    NoOp,
    Put,
    Raised,
    RaiseFloor,
    Revoke,
    Stored,
    Superseded,
)
from tests.model.world import Config


@dataclass(frozen=True, slots=True)
class Mutant:
    """A configuration in which the rule counts, and what replaces the functions that keep it."""

    config: Config
    functions: tuple[tuple[Any, str, Callable[..., Any]], ...] = ()

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as patches:
            for module, name, function in self.functions:
                patches.enter_context(patch.object(module, name, function))
            yield


real_fill, real_put, real_raise, real_revoke, real_own_load = (
    cache._fill,
    cache._put,
    cache._raise_floor,
    cache._revoke,
    steps._own_load,
)


def stored(op: Fill | Put, now_ms: int) -> Item:
    gone, ends_ms = op.content.kind is Kind.ABSENCE, now_ms + op.ttl_ms
    item = Item(op.content, known=True, version=op.version, floor=op.version, floor_gone=gone, expires_ms=ends_ms)
    return item.but(as_of_us=op.as_of_us)


def fill_without_token(item: Item | None, op: Fill, now_ms: int) -> Any:
    return real_fill((item or Item()).but(lease=op.token), op, now_ms)


def fill_without_floor(item: Item | None, op: Fill, now_ms: int) -> Any:
    if item is None or item.lease != op.token:
        return item, LeaseLost()
    return stored(op, now_ms), Stored()


def fill_lowers_floor_of_absence(item: Item | None, op: Fill, now_ms: int) -> Any:
    """Absence without a version is stored over whatever floor there is."""
    if item is not None and op.content.kind is Kind.ABSENCE:
        item = item.but(floor_gone=True)
    return real_fill(item, op, now_ms)


def fill_knows_absence(item: Item | None, op: Fill, now_ms: int) -> Any:
    after, answer = real_fill(item, op, now_ms)
    return (after.but(known=True), answer) if isinstance(answer, Stored) and after is not None else (after, answer)


def put_creates(item: Item | None, op: Put, now_ms: int) -> Any:
    if item is None:
        return stored(op, now_ms), Stored()
    return real_put(item, op, now_ms)


def put_needs_no_content(item: Item, op: Put) -> bool:
    return op.version > item.version


def put_over_void(item: Item, op: Put) -> bool:
    return item.known and item.content.kind is not Kind.NONE and op.version > item.version


def put_does_not_compare(item: Item, op: Put) -> bool:
    return item.known and not item.void and item.content.kind is not Kind.NONE


def put_is_only_put(item: Item | None, op: Put, now_ms: int) -> Any:
    """A put that may not store leaves the floor where it was."""
    after, answer = real_put(item, op, now_ms)
    return (after, answer) if isinstance(answer, Stored) else (item, Superseded())


def put_below_floor(item: Item | None, op: Put, now_ms: int) -> Any:
    if item is not None and cache._put_has_ground(item, op):
        return stored(op, now_ms), Stored()
    return real_put(item, op, now_ms)


def raise_lowers(item: Item | None, op: RaiseFloor, now_ms: int) -> Any:
    if item is not None and op.version < item.floor:
        return item.but(floor=op.version, floor_gone=op.change == "delete"), Raised()
    return real_raise(item, op, now_ms)


def raise_does_nothing(item: Item | None, op: RaiseFloor, now_ms: int) -> Any:
    return item, NoOp()


def revoke_keeps_lease(item: Item | None, op: Revoke, now_ms: int) -> Any:
    after, answer = real_revoke(item, op, now_ms)
    if item is not None and after is not None:
        after = after.but(lease=item.lease, lease_until_ms=item.lease_until_ms)
    return after, answer


def fill_under_any_lease(item: Item | None, op: Fill, now_ms: int) -> Any:
    lease = item.lease if item is not None else 0
    return real_fill(item, replace(op, token=lease or op.token), now_ms)


async def own_load_only_returns(port: Any, plan: Any, loaded: Any, stuck: bool = False) -> Any:
    return await real_own_load(port, replace(plan, strong=False), loaded, stuck)


async def own_load_never_revokes(port: Any, plan: Any, loaded: Any, stuck: bool = False) -> Any:
    return await real_own_load(port, replace(plan, strong=plan.strong and loaded.version != 0), loaded)


async def own_load_never_frees(port: Any, plan: Any, loaded: Any, stuck: bool = False) -> Any:
    return await real_own_load(port, plan, loaded)


async def settle_later(port: Any, plan: Any) -> bool:
    """The write is acknowledged, and its cache step is sent by and by."""
    for name in plan.names:
        port.abandon(name, plan.op)
    return True


async def told_once_and_believed(port: Any, name: Any, op: Any) -> bool:
    try:
        await port.execute(name, op)
    except steps.CacheUnavailable:
        pass
    return True


def serves_below_floor(item: Item, requirement: Any) -> bool:
    return item.content.kind is not Kind.NONE and not item.void


def serves_void(item: Item, requirement: Any) -> bool:
    return item.content.kind is not Kind.NONE and item.version >= item.floor


PLAIN = Config()
DELETES = Config(deletes=True)

MUTANTS: dict[str, Mutant] = {
    "fill without the lease": Mutant(PLAIN, ((cache, "_fill", fill_without_token),)),
    "fill without the floor": Mutant(PLAIN, ((cache, "_fill", fill_without_floor),)),
    "fill under a lease that another took over": Mutant(
        Config(many_rows=True, reads=2, writers=1), ((cache, "_fill", fill_under_any_lease),)
    ),
    "put creates an item": Mutant(PLAIN, ((cache, "_put", put_creates),)),
    "put on an item without content": Mutant(PLAIN, ((cache, "_put_has_ground", put_needs_no_content),)),
    "put does not compare versions": Mutant(
        PLAIN, ((cache, "_put_has_ground", put_does_not_compare), (cache, "_put", put_below_floor))
    ),
    "put on revoked content": Mutant(
        Config(deletes=True, reads=2, evict=0, expire=0), ((cache, "_put_has_ground", put_over_void),)
    ),
    "refused put leaves the floor": Mutant(PLAIN, ((cache, "_put", put_is_only_put),)),
    "put over absence of unknown version": Mutant(DELETES, ((cache, "_fill", fill_knows_absence),)),
    "absence stored although an upsert set the floor": Mutant(
        Config(deletes=True, row_at_first=False, log_ahead=True, tombstones=True),
        ((cache, "_fill", fill_lowers_floor_of_absence),),
    ),
    "content below the floor is served": Mutant(PLAIN, ((cache, "serves", serves_below_floor),)),
    "revoked content is served": Mutant(Config(many_rows=True), ((cache, "serves", serves_void),)),
    "a floor may fall": Mutant(PLAIN, ((cache, "_raise_floor", raise_lowers),)),
    "nothing raises a floor": Mutant(PLAIN, ((cache, "_raise_floor", raise_does_nothing),)),
    "revoke keeps the lease": Mutant(Config(many_rows=True), ((cache, "_revoke", revoke_keeps_lease),)),
    "a create without a version leaves the lease": Mutant(
        Config(versions="none", deletes=True, row_at_first=False, crash=1),
        ((cache, "_may_hide_a_create", lambda item: cache._hides_a_create(item, "create")),),
    ),
    "no create rule, a counter that restarts": Mutant(
        Config(plans=("strong",), versions="restart", deletes=True, write="revoke", crash=1),
        ((cache, "_hides_a_create", lambda item, change: False),),
    ),
    "no create rule, an insert drew before a delete": Mutant(
        Config(plans=("strong",), versions="early_insert", deletes=True, write="revoke", crash=1),
        ((cache, "_hides_a_create", lambda item, change: False),),
    ),
    "a refused strong read just returns": Mutant(
        Config(reads=2, writers=1), ((steps, "_own_load", own_load_only_returns),)
    ),
    "a refused strong read of absence just returns": Mutant(
        Config(deletes=True, writers=1, reads=2), ((steps, "_own_load", own_load_never_revokes),)
    ),
    "a refused read without a version keeps the floor": Mutant(
        Config(plans=("eventual",), deletes=True), ((steps, "_own_load", own_load_never_frees),)
    ),
    "a write acknowledged before its cache step": Mutant(PLAIN, ((steps, "settle", settle_later),)),
    "a step without an answer counts as done": Mutant(Config(fault=1), ((steps, "_told", told_once_and_believed),)),
    "log ahead, no second look": Mutant(Config(log_ahead=True, second_look=False, crash=1)),
    "log ahead, tombstones that are evicted, no second look": Mutant(
        Config(log_ahead=True, tombstones=True, second_look=False, crash=1)
    ),
    "log ahead, refresh at the first look": Mutant(Config(log_ahead=True, refresh="first_look", reads=2, writers=1)),
    "replicas, no tombstones": Mutant(Config(replica_lag=1, second_look=False, strong=False)),
}
