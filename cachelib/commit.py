"""The end of a transaction: which keys it changed, the commit, and telling the cache before the caller is told.

The order of events is the protocol's (I7): read the change-log rows inside the transaction, load
what is to be put, claim what is to be populated, commit, one batched cache step, and only then
the acknowledgement. The ways in which a commit can end are judged here against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from cachelib.call import Call
from cachelib.core import Core, Known
from cachelib.drivers import AskingPort, lockstep
from cachelib.effects import Effect, coalesce, concerns, effects
from cachelib.entity import Entity
from cachelib.errors import CacheError, CacheUnavailable, CommitUnknown, ConfigError, StoreError, Unconfirmed
from cachelib.metrics import WRITES
from cachelib.model import Op, Put, Release, Revoke, RowChange, Version
from cachelib.puts import puts_of, writes_through
from cachelib.steps import WritePlan, settle
from cachelib.strangers import refuse_strangers
from cachelib.writes import Writes

LEAVE_S = 0.5
"""Who is cancelled in the middle of a bulk write's commit waits so long for its new epochs to be published."""
LAYOUT_TRIES = 4
"""A cache step is repeated at most so often because the layout changed meanwhile (I10)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed transaction did. `version`: the highest that it drew; 0 without versions.

    `confirmed`: the cache knows of every changed key. False: the change log will tell it.
    """

    version: Version
    confirmed: bool
    keys: int


class OpenTransaction(Protocol):
    """A store transaction, awaited."""

    async def changes(self) -> Sequence[RowChange] | None:
        """See `StoreTransaction.changes`."""

    async def touched(self) -> frozenset[str]:
        """See `StoreTransaction.touched`."""

    async def load(self, loader: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        """Run a loader inside the transaction."""

    async def commit(self) -> None:
        """See `StoreTransaction.commit`."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One key's cache step."""

    known: Known
    effect: Effect
    op: Op


async def commit(core: Core, tx: OpenTransaction, writes: Writes | None = None) -> Written:
    """Commit and tell the cache. `writes`: where to report for a session.

    Raises:
        Unconfirmed: committed, but an entity demands confirmation and the cache did not answer.
        CommitUnknown: the store did not say; the keys were revoked.
        StoreError: the store refused; nothing is committed and no cache was touched.
    """
    changes = await tx.changes()
    tables = await tx.touched() if changes is None else frozenset(change.table for change in changes)
    await refuse_strangers(core, tables)
    concerned = [known for known in list(core.known.values()) if concerns(known.entity, tables)]
    if changes is None:
        return await _commit_bulk(core, tx, concerned, writes or Writes())
    found = coalesce(e for change in changes for known in concerned for e in effects(known.entity, change))
    call = Call(
        node=core.node,
        world=core.parts.world,
        budget=core.budget,
        loading=None,
        tally=core.metrics.tally("*"),
        abandon=core.parts.abandon,
    )
    steps: list[_Step] = []
    writes = writes or Writes()
    try:
        await _prepare(core, tx, call, found, steps)
    except BaseException:
        await _release_claims(core, call, steps)
        raise
    writes.sent(found)
    try:
        await tx.commit()
    except CommitUnknown:
        await _after_unknown(core, call, steps)
        raise
    except CacheError:
        writes.refused()
        await _release_claims(core, call, steps)
        raise
    except BaseException:  # cancelled in the middle of it: nobody knows how it ended, and nobody may wait
        call.note("commit_unknown")
        _leave_behind(core, call, _revoking(steps))
        _forget(core, steps)
        raise
    writes.done()
    version = max((change.version or 0 for change in changes), default=0)
    return await _tell(core, call, steps, version, writes)


# --- before the commit -----------------------------------------------------------------------


async def _prepare(core: Core, tx: OpenTransaction, call: Call, found: list[Effect], steps: list[_Step]) -> None:
    for known in {effect.entity: core.knows(effect.entity) for effect in found}.values():
        own = [effect for effect in found if effect.entity is known.entity]
        puts = await puts_of(core, tx.load, call, known, own) if writes_through(known, own) else {}
        steps += [_Step(known, effect, puts.get(effect.text) or effect.writers_op()) for effect in own]


async def _release_claims(core: Core, call: Call, steps: Sequence[_Step]) -> None:
    """The commit failed: the next reader need not wait for our claims to end."""
    claims = [(step, step.op.token) for step in steps if isinstance(step.op, Put) and step.op.token]
    if not claims:
        return
    with suppress(StoreError):
        view = await core.layout.leased()
        for step, token in claims:
            call.abandon(core.names(view, step.known.entity, step.effect.text)[0], Release(token))


# --- after the commit ------------------------------------------------------------------------


async def _tell(core: Core, call: Call, steps: Sequence[_Step], version: Version, writes: Writes) -> Written:
    try:
        answered = await _settle_all(core, call, steps)
    except BaseException:  # cancelled: the commit stands, so the cache should hear of it all the same
        _leave_behind(core, call, steps)
        raise
    finally:
        _forget(core, steps)
    for step, told in zip(steps, answered, strict=True):
        step.known.tally.add(WRITES, "outcome", "confirmed" if told else "unconfirmed")
    writes.confirmed(step.effect for step, told in zip(steps, answered, strict=True) if told)
    missed = [step for step, told in zip(steps, answered, strict=True) if not told]
    for step in missed:
        if step.known.entity.confirm:
            raise Unconfirmed(
                f"committed (version {version}), but the cache did not confirm that it knows of key"
                f" {step.effect.key!r} of {step.known.entity!r}: readers may see the old value until the change"
                " log reaches the cache; never repeat the write",
                version,
            )
    return Written(version, not missed, len(steps))


async def _settle_all(core: Core, call: Call, steps: Sequence[_Step]) -> list[bool]:
    """Whether each key's item was told, under a layout that held until after the answers (I13)."""
    if not steps:
        return []
    try:
        view = await core.layout.leased()
        for _ in range(LAYOUT_TRIES):
            plans = [WritePlan(core.names(view, s.known.entity, s.effect.text), s.op) for s in steps]
            results = await lockstep(call, [settle(AskingPort(call), plan) for plan in plans])
            answered = [result is True for result in results]
            if view.leased:
                return answered
            later = await core.layout.read(required=True)
            if later.layout == view.layout:
                return answered
            call.note("repeated_step")
            view = later
    except (StoreError, CacheUnavailable, ConfigError):  # ConfigError: a layout of a later program
        call.note("layout_unread")
    return [False] * len(steps)


async def _after_unknown(core: Core, call: Call, steps: Sequence[_Step]) -> None:
    """The commit may have happened or not: a floor could refuse what the store really has, so revoke."""
    call.note("commit_unknown")
    try:
        await _settle_all(core, call, _revoking(steps))
    finally:
        _forget(core, steps)


def _forget(core: Core, steps: Sequence[_Step]) -> None:
    """What this process had found of these keys, see `Core.forget`."""
    for step in steps:
        core.forget(step.known.entity, step.effect.text)


def _revoking(steps: Sequence[_Step]) -> list[_Step]:
    return [_Step(s.known, s.effect, Revoke(s.known.entity.lives.stale_ttl_ms)) for s in steps]


def _leave_behind(core: Core, call: Call, steps: Sequence[_Step]) -> None:
    """Have the steps done without waiting for them: the call is being cancelled."""
    view = core.layout.view
    if view is None:
        return
    for step in steps:
        for name in core.names(view, step.known.entity, step.effect.text):
            call.abandon(name, step.op)


async def _left(core: Core, entities: Sequence[Entity]) -> None:
    """A bulk write may be committed: publish its new epochs, which others will make current."""
    core.metrics.tally("*").note("commit_unknown")
    if entities:
        with suppress(StoreError, ConfigError):
            await core.parts.world.within(LEAVE_S, lambda: core.renew(entities))
        core.near.drop_all()


async def _commit_bulk(core: Core, tx: OpenTransaction, concerned: Sequence[Known], writes: Writes) -> Written:
    """Too many rows to name, or a truncate: new epochs, current before the acknowledgement."""
    entities = [known.entity for known in concerned]
    writes.sent(None)
    try:
        await tx.commit()
    except CommitUnknown:
        core.metrics.tally("*").note("commit_unknown")
        if entities:
            with suppress(StoreError, ConfigError):
                await core.clear(entities)
        raise
    except CacheError:
        writes.refused()
        raise
    except BaseException:  # cancelled in the middle of it: nobody knows how it ended, and nobody may wait for long
        await _left(core, entities)
        raise
    for known in concerned:
        known.tally.note("bulk")
    if entities:
        try:
            await core.clear(entities)
        except (StoreError, ConfigError) as cause:
            if not any(entity.confirm for entity in entities):
                return Written(0, False, 0)
            raise Unconfirmed(
                "committed, but the new epochs of "
                + ", ".join(repr(known.entity) for known in concerned)
                + " could not be published: readers may see old values until the change log reaches the cache;"
                " never repeat the write, call cache.clear(entity)"
            ) from cause
    return Written(0, True, 0)
