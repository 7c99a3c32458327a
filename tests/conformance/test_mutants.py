# ruff: noqa: E501 - a mutant is one line
"""Is the suite any good? Backends with one rule missing must be told apart from `item.apply`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import fakeredis
import pytest
from hypothesis import Phase

from cachelib.backends.base import Batch, Results
from cachelib.backends.memory import Memory
from cachelib.backends.redis import Redis
from cachelib.backends.redis.talks import ITEM, Script
from cachelib.errors import CacheError
from cachelib.model import Answer, Leased, Name, NoOp, Op, RaiseFloor
from cachelib.testing.conformance import (
    CHECKS,
    Subject,
    check_concurrent_claims,
    check_early_refresh,
    check_ttls,
    run_refinement,
)
from tests.conformance.test_fakeredis import subject_over

# What is taken out of item.lua, and what stands in its place.
WITHOUT = {
    "fill without its lease": ("not item or op.token == ZERO or item.lease ~= op.token then return item, L", "not item then return item, L"),
    "fill under token 0": ("if not item or op.token == ZERO or item.lease ~= op.token then return item, L", "if not item or item.lease ~= op.token then return item, L"),
    "fill below the floor": ("if less(version, item.floor) then", "if false then"),
    "absence claims any floor": ("absent and item.gone then version", "absent then version"),
    "absence claims no floor": ("absent and item.gone then version", "false then version"),
    "fill forgets the floor": ("item.version, item.floor, item.gone = op.kind, known, version, version, gone", "item.version, item.floor, item.gone = op.kind, known, version, ZERO, gone"),
    "fill forgets what a delete left": ("op.version ~= ZERO, absent and item.gone)", "op.version ~= ZERO, false)"),
    "fill without a version is known": ("filled(op, version, op.version ~= ZERO,", "filled(op, version, true,"),
    "put into an empty slot": ("if item and put_has_ground(item, op)", "item = item or new_item() if put_has_ground(item, op)"),
    "put without ground": ("return compared or (op.token ~= ZERO and item.lease == op.token)", "return true"),
    "put over void content": ("item.known and not item.void and item.kind", "item.known and item.kind"),
    "put over what came without a version": ("item.known and not item.void", "not item.void"),
    "put over the same version": ("if compared and not less(item.version, op.version)", "if compared and less(op.version, item.version)"),
    "put under token 0": ("(op.token ~= ZERO and item.lease", "(item.lease"),
    "put below the floor": (" and not less(op.version, item.floor) then", " then"),
    "a refused put raises nothing": ("local after, answer = raise_floor(item, op)", "local after, answer = item, NO_OP"),
    "floors fall": ("if less(item.floor, op.version) then -- I1", "if item.floor ~= op.version then"),
    "raise ignores the create rule": ("if hides_a_create(item, op.create) then return revoke", "if false then return revoke"),
    "raise ignores what a delete left": ("(item.kind == ABSENCE or item.gone)", "(item.kind == ABSENCE)"),
    "raise drops the lease": ("return live(item, op.tombstone), RAISED", "item.lease = ZERO return live(item, op.tombstone), RAISED"),
    "raise forgets the delete": ("item.floor, item.gone = op.version, op.delete\n    return live", "item.floor = op.version\n    return live"),
    "raise forgets stale_until": ("if fresh(item) then item.stale_until", "if false then item.stale_until"),
    "tombstones where none was asked": ("if op.tombstone == 0 then return nil, NO_OP end", ""),
    "revoke keeps the floor": ("item.lease_until = true, ZERO, false, ZERO, ZERO", "item.lease_until = true, item.floor, false, ZERO, ZERO"),
    "revoke keeps the lease": ("item.lease_until = true, ZERO, false, ZERO, ZERO", "item.lease_until = true, ZERO, false, item.lease, item.lease_until"),
    "revoke for a create voids values": ("(only_for_create and not may_hide_a_create(item))", "false"),
    "revoke for a create keeps a lease": ("return item.lease ~= ZERO or hides_a_create(item, true)", "return hides_a_create(item, true)"),
    "a refused fill keeps its lease": ("    item.lease, item.lease_until, item.changed = ZERO, ZERO, true\n    return item, { BELOW", "    return item, { BELOW"),
    "two leases at a time": ("if leased(item) then return item, { HELD", "if false then return item, { HELD"),
    "leases never end": ("return left > 0 and left <= LEASE_MS_MAX", "return true"),
    "leases from a wrong clock": ("math.min(op.life, LEASE_MS_MAX)", "op.life"),
    "hits below the floor": ("and not less(item.version, item.floor) end", "end"),
    "hits on void content": ("not item.void and not less", "not less"),
    "requirements are not asked": ("if not op.asks_version and not op.asks_as_of then return true end", "do return true end"),
    "both requirements must be met": ("not less(item.version, op.version)) or (op", "not less(item.version, op.version)) and (op"),
    "never refreshed early": ("now >= num(item.soft) and not leased(item)", "false"),
    "release of another's lease": ("if not item or op.token == ZERO or item.lease ~= op.token then return item, NO_OP end\n", "if not item then return item, NO_OP end\n"),
    "claim waits for the holder": ("if op.code == CLAIM then", "if op.code == CLAIM and item and leased(item) then return item, CLAIMED end if op.code == CLAIM then"),
    "versions as doubles": ("if x ~= y then return x < y end", "if x ~= y and i < 7 then return x < y end"),
    "signed versions": ("if x ~= y then return x < y end", "if x ~= y then if i == 1 then x, y = (x + 128) % 256, (y + 128) % 256 end return x < y end"),
    "the stale payload is cut": ("redis.pcall('SETRANGE', name, 0, header(item))", "redis.pcall('SET', name, header(item), 'PX', life_of(item))"),
    "bad magic is read": ("or sub(h, 1, 3) ~= MAGIC then", "then"),
}  # fmt: skip

LIVES = {
    "a grant lengthens the life of what is fresh": ("if fresh(item) then return item end -- keeps", "-- keeps"),
    "no end of life": ("(item.payload or ''), 'PX', life_of(item))", "(item.payload or ''))"),
    "life is not extended": ("if item.longer and not", "if false and not"),
    "life is shortened": ("if now + life > num(item.expires) then", "do"),
    "life in seconds": ("'PX', life_of(item))", "'EX', life_of(item))"),
}


def script_without(old: str, new: str) -> Script:
    text = ITEM.text.decode()
    assert text.count(old) >= 1, f"item.lua no longer says {old!r}"
    return Script(text.replace(old, new).encode())


@pytest.fixture
def subject_of() -> Iterator[Callable[[Script], Subject]]:
    server = fakeredis.FakeServer()
    behind = fakeredis.FakeRedis(server=server)
    opened: list[Redis] = []

    def subject_of(script: Script) -> Subject:
        opened.append(Redis.from_client(fakeredis.FakeRedis(server=server), script=script))
        return subject_over(opened[-1], behind)

    yield subject_of
    for backend in opened:
        backend.close()
    behind.close()


def told_apart(subject: Subject) -> None:
    def search() -> None:
        check_early_refresh(subject)  # three turns of a clock that the machine seldom takes
        run_refinement(
            subject, examples=400, steps=30, derandomize=True, database=None, phases=[Phase.generate], print_blob=False
        )

    with pytest.raises((AssertionError, CacheError)):  # an answer that cannot be read is told apart, too
        search()


@pytest.mark.parametrize("what", WITHOUT)
def test_suite_tells_apart(subject_of: Callable[[Script], Subject], what: str) -> None:
    told_apart(subject_of(script_without(*WITHOUT[what])))


@pytest.mark.parametrize("what", LIVES)
def test_check_of_lives_tells_apart(subject_of: Callable[[Script], Subject], what: str) -> None:
    with pytest.raises(AssertionError):
        check_ttls(subject_of(script_without(*LIVES[what])))


class Forgetful(Memory):
    """Drops items by itself, long before their end."""

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        answer = super().execute(name, op, now_ms)
        if isinstance(op, RaiseFloor):
            self.evict(name)
        return answer


class Unordered(Memory):
    """Answers a batch in another order."""

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        return super().execute_many(batch, now_ms)[::-1]


class Lazy(Memory):
    """Says that there was nothing to do, and does nothing, where an item has no content yet."""

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        return NoOp() if isinstance(op, RaiseFloor) else super().execute(name, op, now_ms)


class Generous(Memory):
    """Leases to everybody who asks."""

    def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        answer = super().execute(name, op, now_ms)
        token = getattr(op, "token", 0)
        return Leased(token, answer.item) if hasattr(answer, "retry_after_ms") else answer


def subject_in(memory: Memory) -> Subject:
    return Subject(memory, memory.evict, memory.plant, memory.life_ms, large_payload_bytes=1000)


@pytest.mark.parametrize("broken", [Forgetful, Unordered, Lazy, Generous])
def test_suite_tells_broken_backends_apart(broken: type[Memory]) -> None:
    told_apart(subject_in(broken()))


def test_check_of_claims_tells_two_leases_apart() -> None:
    with pytest.raises(AssertionError):
        check_concurrent_claims(subject_in(Generous()))


def test_a_sound_backend_passes_all_that_mutants_fail() -> None:
    subject = subject_in(Memory())
    for check in CHECKS:
        check(subject)
