"""The rules, each dropped in turn by patching the real functions: the simulation must miss every one.

    python -m tests.sim.mutants [--only I9] [--seeds 6000]     # how many seeds each took; README.md has the record

`Mutant.plans` says in which worlds the rule counts; only those are run, and counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from cachelib import commit, core, effects, envelope, levels, plans, standing, steps
from cachelib import item as cache
from cachelib.backends.memcached import rounds
from cachelib.call import Call
from cachelib.errors import CacheUnavailable, DecodeError
from cachelib.layout import Layout, completed
from cachelib.model import ABSENCE, ANY, Item
from cachelib.policy import Mode
from cachelib.testing.sim import Outcome, Plan, Profile, Runner, plan_of, simulation
from cachelib.testing.sim import transaction as store_tx
from cachelib.testing.sim.loop import pause
from cachelib.testing.sim.store import SimStore
from cachelib.view import LayoutView, View
from invalidator import connecting, fleet, looks, positions, session
from invalidator.positions import Begin
from invalidator.session import Session
from invalidator.sources.base import merged
from tests.model import mutants as model
from tests.sim.daemon import daemon_of

Patch = tuple[Any, str, Any]


def alone(profile: Profile) -> bool:
    """Without an invalidator: what is strong is strong by its writers and readers."""
    return profile.source == "none"


def told(profile: Profile) -> bool:
    return profile.source != "none"


def anywhere(profile: Profile) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule, what drops it, and where it counts."""

    rule: str
    patches: tuple[Patch, ...]
    where: Callable[[Profile], bool] = alone

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as patches:
            for owner, name, instead in self.patches:
                patches.enter_context(patch.object(owner, name, instead))
            yield

    def plans(self, seeds: range) -> Iterator[Plan]:
        """The runs that may show it."""
        return (plan for plan in map(plan_of, seeds) if self.where(plan.profile))


# --- what replaces the functions that keep a rule --------------------------------------------

real_read_through, real_plan_of, real_apply = steps._read_through, plans.plan_of, Session.apply
real_decode_hit = plans.decode_hit


class _LoadedBefore:
    """A port whose load was made before the lease was asked for."""

    def __init__(self, port: Any, loaded: Any) -> None:
        self._port, self._loaded = port, loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def load(self, key: Any) -> Any:
        return self._loaded


async def load_then_lease(port: Any, plan: Any) -> Any:
    return await real_read_through(_LoadedBefore(port, await port.load(plan.key)), plan)


async def rows_from_two_statements(self: Any, numbers: Any) -> Any:
    rows = {number: self._store.rows.get(number) for number in numbers}
    await pause(2_000)
    both = {at: (row, self._store.rows.get(at)) for at, row in rows.items() if row is not None}
    apart = {at: store_tx.Held(row.grp, row.tag, (now or row).version) for at, (row, now) in both.items()}
    return {at: store_tx._row(row, self._store.weather.versions) for at, row in apart.items()}


real_seen_from = SimStore.seen_from


def seen_through_a_replica(self: Any, lag_us: int) -> Any:
    return real_seen_from(self, 40_000)


async def joins_first(port: Any, plan: Any) -> Any:
    """What another call of this process is loading will do."""
    joined = await steps._join(port, plan)
    return joined if joined is not None else await steps.read(port, plan)


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


def from_model(rule: str, name: str, where: Callable[[Profile], bool] = alone) -> Mutant:
    return Mutant(rule, model.MUTANTS[name].functions, where)


def serving(serve: Callable[[Item, Any], bool]) -> tuple[Patch, ...]:
    return tuple((module, "serves", serve) for module in (cache, steps, envelope))


def with_faults(*faults: str, base: Callable[[Profile], bool] = alone) -> Callable[[Profile], bool]:
    return lambda profile: base(profile) and all(fault in profile.faults for fault in faults)


def two_nodes(profile: Profile) -> bool:
    return told(profile) and profile.nodes > 1


def came_back(profile: Profile) -> bool:
    return told(profile) and "old" in profile.faults


def versioned(profile: Profile) -> bool:
    return alone(profile) and profile.weather.versions


def unversioned(profile: Profile) -> bool:
    return alone(profile) and not profile.weather.versions


def puts(profile: Profile) -> bool:
    return versioned(profile) and profile.write != "invalidate"


def cas(profile: Profile) -> bool:
    return alone(profile) and profile.cas


def shows_early(profile: Profile) -> bool:
    return profile.source in ("early", "bus") and profile.weather.hidden_us > 0


MUTANTS: dict[str, Mutant] = {
    "a floor may fall": from_model("I1", "a floor may fall"),
    "fill without the lease": from_model("I2", "fill without the lease"),
    "put creates an item": from_model("I2", "put creates an item"),
    "put on an item without content": from_model("I2", "put on an item without content", versioned),
    "put does not compare versions": from_model("I2", "put does not compare versions", puts),
    "fill without the floor": from_model("I3", "fill without the floor", versioned),
    "content below the floor is served": Mutant("I3", serving(model.serves_below_floor)),
    "revoked content is served": Mutant("I3", serving(model.serves_void)),
    "nothing raises a floor": from_model("I3", "nothing raises a floor"),
    "refused put leaves the floor": from_model("I3", "refused put leaves the floor", versioned),
    "fill under a lease that another took over": from_model(
        "I4", "fill under a lease that another took over", unversioned
    ),
    "every lease has the same token": Mutant("I4", ((Call, "nonce", nonce_is_one),), unversioned),
    "revoke keeps the lease": from_model("I4", "revoke keeps the lease"),
    "absence stored although an upsert set the floor": from_model(
        "I5", "absence stored although an upsert set the floor", versioned
    ),
    "the load begins before the lease": Mutant("I6", ((steps, "_read_through", load_then_lease),)),
    "value and version from two statements": Mutant(
        "I6", ((store_tx.Reading, "rows_of", rows_from_two_statements),), versioned
    ),
    "loads from a replica": Mutant("I6", ((SimStore, "seen_from", seen_through_a_replica),)),
    "a write is acknowledged before its cache step": Mutant("I7", ((commit, "settle", settled_later),)),
    "a step without an answer counts as done": from_model("I7", "a step without an answer counts as done"),
    "a commit of unknown outcome raises the floor": Mutant(
        "I7", ((commit, "_after_unknown", raises_after_unknown),), with_faults("unknown", base=told)
    ),
    "a refused strong read just returns": from_model("I8", "a refused strong read just returns", versioned),
    "a refused strong read without a version just returns": from_model(
        "I8", "a refused strong read of absence just returns"
    ),
    "a strong read joins a flight": Mutant("I8", ((core, "read", joins_first),)),
    "a strong read is shown what is stale": Mutant("I8", ((core, "plan_of", shows_stale),)),
    "a refused read reads again": Mutant("I8, I10", ((steps, "_own_load", reads_again_when_refused),)),
    "an event is done before the node has answered": Mutant(
        "I9", ((Session, "apply", apply_is_not_answered), (Session, "verify", believes_itself)), told
    ),
    "the committed offset is that of the furthest node": Mutant("I9", ((fleet, "least", furthest),), two_nodes),
    "no second look": Mutant(
        "I9", ((looks.BySnapshot, "hidden", never_hidden), (looks.SettleDelay, "hidden", never_hidden)), shows_early
    ),
    "changes of a key are not told apart": Mutant(
        "I9", ((effects, "_both", newest_only), (session, "coalesce", effects.coalesce)), told
    ),
    "the position is where the others are": Mutant(
        "I11", ((connecting, "begin", committed_is_good_enough),), came_back
    ),
    "one note is believed alone": Mutant("I11", ((positions, "_joined", last_note_alone),), came_back),
    "notes are not read back": Mutant(
        "I11", ((Session, "verify", believes_itself), (Session, "check_instance", does_nothing)), came_back
    ),
    "bytes that cannot be read are absence": Mutant(
        "I12", ((plans, "decode_hit", takes_any_bytes),), with_faults("garbage")
    ),
    "the lease of the layout is not looked at": Mutant(
        "I13",
        ((LayoutView, "leased", leased_for_ever), (LayoutView, "current", current_for_ever), (View, "leased", True)),
    ),
    "a writer tells the current name only": Mutant("I13", ((Layout, "prefixes", only_now),)),
    "strong reads of what moves go on": Mutant("I13", ((core, "plan_of", reads_on_while_it_moves),)),
    "a change of the layout is current at once": Mutant("I13", ((LayoutView, "settle", completes_at_once),)),
    "a write goes out again over another connection": Mutant(
        "I14", ((rounds.Rounds, "run", writes_without_reading_again),), cas
    ),
    "who loses every race does nothing": Mutant(
        "I14", ((rounds.Rounds, "_give_way", gives_way_for_nothing), (rounds.Rounds, "run", loses_once)), cas
    ),
    "a server that came back is believed": Mutant(
        "failover",
        ((standing, "strong_ground", believes_any_server), (core, "plan_of", on_any_ground)),
        with_faults("old", base=alone),
    ),
}


SEEDS_FOUND = {
    "a floor may fall": 176,
    "fill without the lease": 254,
    "put creates an item": 3096,
    "put on an item without content": 2435,
    "fill without the floor": 2435,
    "content below the floor is served": 12,
    "revoked content is served": 10,
    "nothing raises a floor": 12,
    "refused put leaves the floor": 12,
    "revoke keeps the lease": 254,
    "absence stored although an upsert set the floor": 1275,
    "the load begins before the lease": 51,
    "value and version from two statements": 396,
    "loads from a replica": 1,
    "a write is acknowledged before its cache step": 4,
    "a step without an answer counts as done": 573,
    "a commit of unknown outcome raises the floor": 23,
    "a refused strong read just returns": 429,
    "a refused strong read without a version just returns": 429,
    "a strong read joins a flight": 191,
    "a strong read is shown what is stale": 429,
    "a refused read reads again": 1,
    "bytes that cannot be read are absence": 25,
    "the lease of the layout is not looked at": 399,
}
"""A seed that showed it once."""
OPEN = [name for name in MUTANTS if name not in SEEDS_FOUND]
"""The search has not been long enough for these; README.md says so."""

# --- searching -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """How long the search took; `outcome` None: it found nothing."""

    runs: int
    seconds: float
    seed: int = 0
    outcome: Outcome | None = None


def search(mutant: Mutant, seeds: range) -> Found:
    """Run seeds until one misses the rule. To be called within `simulation`."""
    began, runs, runner = time.process_time(), 0, Runner(daemon_of)
    with mutant.applied():
        for plan in mutant.plans(seeds):
            runs += 1
            outcome = runner.run(plan)
            if not outcome.well:
                return Found(runs, time.process_time() - began, plan.seed, outcome)
    return Found(runs, time.process_time() - began)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose rule or name contains this")
    parser.add_argument("--seeds", type=int, default=20_000)
    chosen = parser.parse_args(arguments)
    missed = 0
    print("| rule | dropped | runs it took | seed | breaks |\n|---|---|---|---|---|")
    with simulation("invalidator"):
        for name, mutant in MUTANTS.items():
            if chosen.only not in name and chosen.only not in mutant.rule:
                continue
            found = search(mutant, range(chosen.seeds))
            missed += found.outcome is None
            runs = str(found.runs) if found.outcome else f"NOT FOUND in {found.runs}"
            promise = found.outcome.promise if found.outcome else "–"
            print(f"| {mutant.rule} | {name} | {runs} | {found.seed} | {promise} |", flush=True)
            print(f"    {found.seconds:.1f} s", file=sys.stderr)
    print(f"{'every mutant was found' if not missed else f'{missed} mutants were NOT FOUND'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
