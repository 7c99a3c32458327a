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
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from cachelib import commit, core, effects, envelope, grounds, history, plans, shown, standing, steps
from cachelib import item as cache
from cachelib.backends.memcached import rounds
from cachelib.call import Call
from cachelib.core import Core
from cachelib.grounds import Grounds
from cachelib.history import History, Mark
from cachelib.layout import Layout
from cachelib.model import Item
from cachelib.standing import Standing, Trust
from cachelib.storeclock import StoreClock
from cachelib.testing.sim import Outcome, Plan, Profile, Runner, plan_of, simulation
from cachelib.testing.sim import transaction as store_tx
from cachelib.testing.sim.node import PlainBackend
from cachelib.testing.sim.store import SimStore
from cachelib.view import LayoutView, View
from invalidator import connecting, fleet, looks, positions, session
from invalidator.session import Session
from invalidator.work import Work
from tests.model import mutants as model
from tests.sim import broken, broken_levels
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


def from_model(rule: str, name: str, where: Callable[[Profile], bool] = alone) -> Mutant:
    return Mutant(rule, model.MUTANTS[name].functions, where)


def serving(serve: Callable[[Item, Any], bool]) -> tuple[Patch, ...]:
    return tuple((module, "serves", serve) for module in (cache, shown, steps, envelope))


def with_faults(*faults: str, base: Callable[[Profile], bool] = alone) -> Callable[[Profile], bool]:
    return lambda profile: base(profile) and all(fault in profile.faults for fault in faults)


def two_nodes(profile: Profile) -> bool:
    return told(profile) and profile.nodes > 1


def told_unknown(profile: Profile) -> bool:
    return told(profile) and "unknown" in profile.faults


def versioned(profile: Profile) -> bool:
    return alone(profile) and profile.weather.versions


def unversioned(profile: Profile) -> bool:
    return alone(profile) and not profile.weather.versions


def puts(profile: Profile) -> bool:
    return versioned(profile) and profile.write != "invalidate"


def cas(profile: Profile) -> bool:
    return alone(profile) and profile.cas


def sessions(profile: Profile) -> bool:
    return profile.level == "eventual" and not profile.weather.lag_us


def dropped_marks(profile: Profile) -> bool:
    return sessions(profile) and profile.marks < 64


def two_memcacheds(profile: Profile) -> bool:
    return dropped_marks(profile) and profile.cas and profile.nodes > 1


def proven(profile: Profile) -> bool:
    """Where an invalidator says up to when everything is applied."""
    return profile.level == "eventual" and profile.source == "outbox"


def strong_and_told(profile: Profile) -> bool:
    return profile.level == "strong" and told(profile)


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
    "every lease has the same token": Mutant("I4", ((Call, "nonce", broken.nonce_is_one),), unversioned),
    "revoke keeps the lease": from_model("I4", "revoke keeps the lease"),
    "absence stored although an upsert set the floor": from_model(
        "I5", "absence stored although an upsert set the floor", versioned
    ),
    "the load begins before the lease": Mutant("I6", ((steps, "_read_through", broken.load_then_lease),)),
    "value and version from two statements": Mutant(
        "I6", ((store_tx.Reading, "rows_of", broken.rows_from_two_statements),), versioned
    ),
    "loads from a replica": Mutant("I6", ((SimStore, "seen_from", broken.seen_through_a_replica),)),
    "a write is acknowledged before its cache step": Mutant("I7", ((commit, "settle", broken.settled_later),)),
    "a step without an answer counts as done": from_model("I7", "a step without an answer counts as done"),
    "a commit of unknown outcome raises the floor": Mutant(
        "I7", ((commit, "_after_unknown", broken.raises_after_unknown),), told_unknown
    ),
    "a refused strong read just returns": from_model("I8", "a refused strong read just returns", versioned),
    "a refused strong read without a version just returns": from_model(
        "I8", "a refused strong read of absence just returns"
    ),
    "a strong read joins a flight": Mutant("I8", ((core, "read", broken.joins_first),)),
    "a strong read is shown what is stale": Mutant("I8", ((core, "plan_of", broken.shows_stale),)),
    "a refused read reads again": Mutant("I8, I10", ((steps, "_own_load", broken.reads_again_when_refused),)),
    "an event is done before the node has answered": Mutant(
        "I9", ((Session, "apply", broken.apply_is_not_answered), (Session, "verify", broken.believes_itself)), told
    ),
    "the committed offset is that of the furthest node": Mutant("I9", ((fleet, "least", broken.furthest),), two_nodes),
    "no second look": Mutant(
        "I9",
        ((looks.BySnapshot, "hidden", broken.never_hidden), (looks.SettleDelay, "hidden", broken.never_hidden)),
        shows_early,
    ),
    "a change is written through at the first look": Mutant(
        "refresh", ((Work, "early", Work.first_look),), shows_early
    ),
    "changes of a key are not told apart": Mutant(
        "I9", ((effects, "_both", broken.newest_only), (session, "coalesce", effects.coalesce)), told
    ),
    "the position is where the others are": Mutant(
        "I11", ((connecting, "begin", broken.committed_is_good_enough),), told
    ),
    "one note is believed alone": Mutant("I11", ((positions, "_joined", broken.last_note_alone),), told),
    "notes are not read back": Mutant(
        "I11", ((Session, "verify", broken.believes_itself), (Session, "check_instance", broken.does_nothing)), told
    ),
    "bytes that cannot be read are absence": Mutant(
        "I12", ((plans, "decode_hit", broken.takes_any_bytes),), with_faults("garbage")
    ),
    "the lease of the layout is not looked at": Mutant(
        "I13",
        (
            (LayoutView, "leased", broken.leased_for_ever),
            (LayoutView, "current", broken.current_for_ever),
            (View, "leased", True),
        ),
    ),
    "a writer tells the current name only": Mutant("I13", ((Layout, "prefixes", broken.only_now),)),
    "strong reads of what moves go on": Mutant("I13", ((core, "plan_of", broken.reads_on_while_it_moves),)),
    "a change of the layout is current at once": Mutant("I13", ((LayoutView, "settle", broken.completes_at_once),)),
    "a write goes out again over another connection": Mutant(
        "I14", ((rounds.Rounds, "run", broken.writes_without_reading_again),), cas
    ),
    "who loses every race does nothing": Mutant(
        "I14",
        ((rounds.Rounds, "_give_way", broken.gives_way_for_nothing), (rounds.Rounds, "run", broken.loses_once)),
        cas,
    ),
    "what was found before an own write is joined": Mutant(
        "own writes", ((Core, "forget", broken.forgets_copies_only),), sessions
    ),
    "a server that came back is believed": Mutant(
        "failover",
        ((standing, "strong_ground", broken.believes_any_server), (core, "plan_of", broken.on_any_ground)),
    ),
    "notes go before their batch": Mutant("I11", ((PlainBackend, "apply", broken_levels.notes_go_first),), told),
    "a note alone is believed": Mutant("I11", ((positions, "_joined", broken.lone_note_too),), told),
    "what came back goes on from the committed offset": Mutant(
        "I11", ((connecting, "began_empty", broken.always),), told
    ),
    "a session asks for nothing": Mutant("session", ((History, "ground", broken_levels.asks_for_nothing),), sessions),
    "a session forgets what it wrote": Mutant(
        "session", ((History, "wrote", broken_levels.remembers_no_write),), sessions
    ),
    "what has no version is as good as any": Mutant(
        "session", ((Mark, "requirement", property(broken_levels.any_absence)),), sessions
    ),
    "a session joins any flight": Mutant(
        "session", ((history, "session_ground", broken_levels.session_joins_any_flight),), sessions
    ),
    "what no server keeps counts as kept": Mutant(
        "session", ((History, "saw", broken_levels.what_was_not_kept_is_bound),), sessions
    ),
    "what was seen counts from its load's clock": Mutant(
        "session", ((History, "saw", broken_levels.counts_from_its_clock),), sessions
    ),
    "what was dropped is asked for nowhere": Mutant(
        "session", ((History, "meet", broken_levels.binds_for_ever),), dropped_marks
    ),
    "a server is known by what it tells alone": Mutant(
        "session", ((Trust, "start", property(broken_levels.start_as_it_tells)),), two_memcacheds
    ),
    "what was dropped leaves no time": Mutant(
        "session", ((History, "_put", broken_levels.drops_without_a_trace),), dropped_marks
    ),
    "the proof of another start is believed": Mutant(
        "failover", ((Standing, "look", broken_levels.believes_any_note),), strong_and_told
    ),
    "a load counts from its end": Mutant(
        "bounded", ((SimStore, "load", broken_levels.loaded_when_it_came_home),), sessions
    ),
    "the clock was read when its answer came": Mutant(
        "bounded", ((StoreClock, "latest_us", broken_levels.answered_at_once),), sessions
    ),
    "a bound is proven under any name": Mutant(
        "bounded", ((Grounds, "_bounded", broken_levels.bounded_by_any_name),), proven
    ),
    "a bounded read joins any flight": Mutant(
        "bounded", ((grounds, "bounded_ground", broken_levels.bounded_joins_any_flight),), proven
    ),
}


SEEDS_FOUND = {
    "a floor may fall": 841,
    "fill without the lease": 8,
    "put creates an item": 791,
    "put on an item without content": 6634,
    "put does not compare versions": 57,
    "fill without the floor": 94,
    "content below the floor is served": 20,
    "revoked content is served": 71,
    "nothing raises a floor": 2,
    "refused put leaves the floor": 113,
    "fill under a lease that another took over": 1533,
    "every lease has the same token": 1533,
    "revoke keeps the lease": 135,
    "absence stored although an upsert set the floor": 542,
    "the load begins before the lease": 45,
    "value and version from two statements": 637,
    "loads from a replica": 12,
    "a write is acknowledged before its cache step": 11,
    "a step without an answer counts as done": 670,
    "a commit of unknown outcome raises the floor": 3086,
    "a refused strong read just returns": 844,
    "a refused strong read without a version just returns": 39,
    "a strong read joins a flight": 433,
    "a strong read is shown what is stale": 216,
    "a refused read reads again": 1,
    "an event is done before the node has answered": 2654,
    "the committed offset is that of the furthest node": 5893,
    "no second look": 965,
    "a change is written through at the first look": 273,
    "changes of a key are not told apart": 67,
    "the position is where the others are": 0,
    "one note is believed alone": 0,
    "notes are not read back": 0,
    "bytes that cannot be read are absence": 64,
    "the lease of the layout is not looked at": 4,
    "a writer tells the current name only": 216,
    "strong reads of what moves go on": 216,
    "a change of the layout is current at once": 71,
    "who loses every race does nothing": 162,
    "what was found before an own write is joined": 74,
    "a server that came back is believed": 32,
    "notes go before their batch": 7259,
    "a note alone is believed": 99,
    "what came back goes on from the committed offset": 99,
    "a session asks for nothing": 106,
    "a session forgets what it wrote": 401,
    "what has no version is as good as any": 147,
    "what was dropped is asked for nowhere": 3055,
    "what was dropped leaves no time": 106,
    "the proof of another start is believed": 1214,
    "a load counts from its end": 409,
    "the clock was read when its answer came": 663,
    "a write goes out again over another connection": 2342,
    "a bound is proven under any name": 646,
    "a bounded read joins any flight": 22,
    "a session joins any flight": 401,
    "what no server keeps counts as kept": 4006,
    "what was seen counts from its load's clock": 438,
    "a server is known by what it tells alone": 631,
}
"""A seed that showed it once."""

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
            if outcome.promise == "crash":
                raise AssertionError(f"the mutant does not fit the code any more: {outcome.what}")
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
