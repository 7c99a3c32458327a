"""What a transaction puts into the cache: the rows as it leaves them, under claims where cold keys are to be filled.

They are read before the commit: afterwards another may have written them once more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from cachelib.call import Call
from cachelib.core import Core, Known
from cachelib.effects import Effect
from cachelib.loading import missing_row
from cachelib.model import Claim, Op, Put, Token
from cachelib.steps import lives_of

THROUGH_KEYS_MAX = 200
"""A transaction that changes more keys of an entity voids them instead of reading them all again."""

LoadRows: TypeAlias = Callable[[Any, Sequence[Any]], Awaitable[Mapping[Any, Any]]]
"""From a loader and keys to the rows, as a transaction sees them."""


def writes_through(known: Known, own: Sequence[Effect]) -> bool:
    """Whether these keys of an entity are put; else they are only voided."""
    entity = known.entity
    few = len(own) <= THROUGH_KEYS_MAX
    return entity.write != "invalidate" and entity.versioned and few and known.loading.loader is not None


async def puts_of(core: Core, load: LoadRows, call: Call, known: Known, own: Sequence[Effect]) -> dict[bytes, Op]:
    """By key: what its row now is, read with `load` inside the transaction, triggers and defaults included."""
    comparable = [effect for effect in own if effect.version and not effect.force]
    alive = [effect for effect in comparable if effect.change.op != "delete"]
    rows = await load(known.loading.loader, [effect.key for effect in alive]) if alive else {}
    by_text = {known.entity.text(key): row for key, row in rows.items()}
    puts = {}
    for effect in comparable:
        row = by_text.get(effect.text, missing_row())
        if row is not missing_row() and getattr(row, "version", None) != effect.version:
            continue  # changed once more behind the log's back: only void what is older
        op = _put(call, known, effect, row)
        if op is not None:
            puts[effect.text] = op
    if known.entity.write == "populate":
        return await _claimed(core, call, known, puts)
    return puts


def _put(call: Call, known: Known, effect: Effect, row: Any) -> Op | None:
    loaded = known.loading.loaded(row, effect.change.at_us)
    change = effect.change.op
    if loaded.content is None or change == "truncate":
        return None
    lives = known.entity.lives
    ttl_ms, soft_ttl_ms = lives_of(call, lives, loaded.content)
    return Put(loaded.content, effect.version, change, ttl_ms, lives.stale_ttl_ms, soft_ttl_ms, loaded.as_of_us)


async def _claimed(core: Core, call: Call, known: Known, puts: dict[bytes, Op]) -> dict[bytes, Op]:
    """Take each key's lease before the commit, so that the put may fill a cold key (I2)."""
    view = await core.layout.leased()
    hold_ms = known.entity.pace.hold_ms
    tokens = {text: call.nonce() for text in puts}
    names = {text: core.names(view, known.entity, text)[0] for text in puts}
    answers = await call.execute_many([(names[text], Claim(tokens[text], hold_ms)) for text in puts])
    for text, answer in zip(list(puts), answers, strict=True):
        put = puts[text]
        if isinstance(answer, Exception):
            known.tally.note("claim_failed")
        elif isinstance(put, Put):
            puts[text] = _with_token(put, tokens[text])
    return puts


def _with_token(put: Put, token: Token) -> Put:
    return Put(put.content, put.version, put.change, put.ttl_ms, put.stale_ttl_ms, put.soft_ttl_ms, put.as_of_us, token)
