"""What replaces the functions that keep a rule: the same, without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cachelib import commit, levels, plans, steps
from cachelib.backends.memcached import rounds
from cachelib.errors import CacheUnavailable, DecodeError
from cachelib.layout import Layout, completed
from cachelib.model import ABSENCE, ANY, Item
from cachelib.policy import Mode
from cachelib.testing.sim import transaction as store_tx
from cachelib.testing.sim.loop import pause
from cachelib.testing.sim.store import SimStore
from invalidator import positions
from invalidator.positions import Begin
from invalidator.session import Session
from invalidator.sources.base import merged
from tests.model import mutants as model

real_read_through, real_plan_of, real_apply = steps._read_through, plans.plan_of, Session.apply
real_decode_hit, real_joined = plans.decode_hit, positions._joined


class _LoadedBefore:
    """A port whose load was made before the lease was asked for."""

    def __init__(self, port: Any, loaded: Any) -> None:
        self._port, self._loaded = port, loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def load(self, key: Any) -> Any:
        return self._loaded


async def load_then_lease(port: Any, plan: Any, *more: Any) -> Any:
    return await real_read_through(_LoadedBefore(port, await port.load(plan.key)), plan, *more)


async def rows_from_two_statements(self: Any, numbers: Any) -> Any:
    rows = {number: self._store.rows.get(number) for number in numbers}
    await pause(2_000)
    both = {at: (row, self._store.rows.get(at)) for at, row in rows.items() if row is not None}
    apart = {at: store_tx.Held(row.grp, row.tag, (now or row).version) for at, (row, now) in both.items()}
    return {at: store_tx._row(row, self._store.weather.versions) for at, row in apart.items()}


real_seen_from = SimStore.seen_from


def seen_through_a_replica(self: Any, lag_us: int) -> Any:
    return real_seen_from(self, 40_000)


async def joins_first(port: Any, plan: Any, *more: Any) -> Any:
    """What another call of this process is loading will do."""
    joined = await steps._join(port, plan)
    return joined if joined is not None else await steps.read(port, plan, *more)


def shows_stale(*given: Any, **named: Any) -> Any:
    plan = real_plan_of(*given, **named)
    return replace(plan, strong=False, stale=True)


async def reads_again_when_refused(port: Any, plan: Any, loaded: Any, stuck: bool = False) -> Any:
    await port.load(plan.key)
    return await model.real_own_load(port, plan, loaded, stuck)


async def settled_later(port: Any, plan: Any) -> bool:
    for name in plan.names:
        port.abandon(name, plan.op)
    return True


async def raises_after_unknown(core: Any, call: Any, made: Any) -> None:
    """It is told as if it had happened."""
    await commit._settle_all(core, call, made)


def nonce_is_one(self: Any) -> int:
    return 1


def takes_any_bytes(raw: bytes, requirement: Any, now_ms: int) -> Item | None:
    try:
        return real_decode_hit(raw, requirement, now_ms)
    except DecodeError:
        return Item(ABSENCE)


def apply_is_not_answered(self: Any, works: Any, layout: Any, now_ms: int) -> Any:
    """A node that does not answer has surely heard it."""
    try:
        return real_apply(self, works, layout, now_ms)
    except CacheUnavailable:
        self.noted = self.confirmed = self.positions
        return []


def furthest(several: Any) -> Any:
    found: dict[str, str] = {}
    for one in several:
        found = merged(found, one)
    return found


def committed_is_good_enough(node: str, notes: Any, **known: Any) -> Any:
    """Where the others are, this node is, too."""
    committed = known["committed"]
    return Begin(committed.positions, "committed") if committed is not None else positions.begin(node, notes, **known)


def last_note_alone(notes: Any) -> Any:
    return max((note for note in notes if note is not None), key=lambda note: note.upto, default=None)


def does_nothing(*_: Any, **__: Any) -> None:
    pass


def believes_itself(self: Any) -> None:
    """What was written is surely there."""
    self.confirmed = self.positions


def only_now(self: Layout, namespace: str, entity: str, slot: int = 0) -> tuple[bytes, ...]:
    return (self.now.prefix(namespace, entity, slot),)


def reads_on_while_it_moves(*given: Any, **named: Any) -> Any:
    plan = real_plan_of(*given, **named)
    return replace(plan, names=plan.names[:1]) if plan.mode is Mode.ON else plan


async def completes_at_once(self: Any, published: Any) -> None:
    await self.publish(lambda layout: completed(layout))


async def leased_for_ever(self: Any) -> Any:
    return self.view if self.view is not None else await self.read()


async def current_for_ever(self: Any) -> Any:
    return self.view if self.view is not None else await self.read()


async def writes_without_reading_again(self: Any, link: Any, tasks: Any, now_ms: int) -> None:
    """After a broken connection the write goes out once more, over another one."""
    left = [task for task in tasks if task.write]
    if left:
        for task, what in await rounds._send(link, left):
            if what is rounds.Wrote.DONE:
                task.result = task.answer
    await real_rounds_run(self, link, [task for task in tasks if task.result is None], now_ms)


real_rounds_run = rounds.Rounds.run


async def gives_way_for_nothing(self: Any, link: Any, tasks: Any) -> None:
    for task in tasks:
        task.result = rounds._as_beaten(task) if not task.voids else rounds.NoOp()


async def loses_once(self: Any, link: Any, tasks: Any, now_ms: int) -> None:
    """One try, so that who loses a race has lost."""
    left = list(tasks)
    await rounds._read(link, left)
    for task in left:
        self._decide(task, now_ms)
    left = await self._write(link, [task for task in left if task.result is None])
    if left:
        await self._give_way(link, left)


def believes_any_server(caught_up: bool, since_us: int | None, holds: Any) -> Any:
    return levels.FREE


def on_any_ground(*given: Any, **named: Any) -> Any:
    return replace(real_plan_of(*given, **named), requirement=ANY, holds=levels.always, proven=True)


def newest_only(older: Any, newer: Any) -> Any:
    return newer


def never_hidden(self: Any, events: Any) -> Any:
    return ()


def create_is_an_update(item: Any, change: Any) -> bool:
    return False


def lone_note_too(notes: Any) -> Any:
    return next((note for note in notes if note is not None), None) if None in notes else real_joined(notes)


def forgets_copies_only(self: Any, entity: Any, text: bytes) -> None:
    """Whoever comes after a write of its own process still joins who loads since before it."""
    self.near.drop(entity, text)


def always(*_: Any) -> bool:
    return True
