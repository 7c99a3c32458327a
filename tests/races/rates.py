"""How often a naive cache loses each race: its events in random order, as they would come without a test's hand.

    python -m tests.races.rates [--runs 1000]     # the table of tests/README.md

A scenario is recorded as what each of its actors does: readers, writers (a commit, then the cache step), the log,
the servers. Then the actors are interleaved at random, each in its own order, commits in the store's (which the
scenario says); the naive cache has lost where a read at the end does not show the row.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.races import test_cache_races, test_failover_races
from tests.races.naive import Naive

RUNS = 1000


@dataclass(frozen=True)
class Event:
    """Something that an actor does to a world. `after`: a commit's number, which has to be there before."""

    actor: str
    do: Callable[[Naive, dict[Any, Any]], object]
    after: int = -1


@dataclass(frozen=True)
class Slot:
    """What an event puts aside for a later one."""

    number: int


class Recorded:
    """Has the surface of a world, and writes down who does what. As the naive one where a scenario asks."""

    naive = True

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.commits = self.slots = self.readers = 0
        self.store = self

    def _add(self, actor: str, do: Callable[[Naive, dict[Any, Any]], object], after: int = -1) -> None:
        self.events.append(Event(actor, do, after))

    def commit(self, value: Any, version: Any = None, visible: bool = True) -> Slot:
        made = Slot(self.commits)
        self.commits += 1

        def do(world: Naive, kept: dict[Any, Any]) -> None:
            kept[made] = world.store.commit(value, version, visible)

        self._add(f"writer {made.number}", do, made.number - 1)
        return made

    def tell(self, commit: Slot) -> None:
        self._add(f"writer {commit.number}", lambda world, kept: world.tell(kept[commit]))

    def write(self, value: Any, version: Any = None) -> Slot:
        made = self.commit(value, version)
        self.tell(made)
        return made

    def apply_log(self, commit: Slot) -> None:
        self._add("log", lambda world, kept: world.apply_log(kept[commit]), commit.number)

    def unknown_commit(self) -> None:
        self._add(f"writer {self.commits - 1}", lambda world, _: world.unknown_commit())

    def read(self) -> None:
        self.reader().fill()

    def reader(self, **named: Any) -> RecordedReader:
        self.readers += 1
        return RecordedReader(self, Slot(-self.readers), named)

    @property
    def item(self) -> Slot:
        self.slots += 1
        made = Slot(1000 + self.slots)
        self._add("server", lambda world, kept: kept.update({made: world.item}))
        return made

    def come_back_with(self, old: Slot) -> None:
        self._add("server", lambda world, kept: world.come_back_with(kept[old]))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "full":
            self._add("server", lambda world, _: setattr(world, "full", value))
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """What a server does: `evict`, `restart`, `show`, `let_the_lease_end`."""
        if name == "show":
            return lambda: self._add("server", lambda world, _: world.store.show())
        return lambda: self._add("server", lambda world, _: getattr(world, name)())


class RecordedReader:
    """One read; each of its steps is an event."""

    def __init__(self, recorded: Recorded, slot: Slot, named: dict[str, Any]) -> None:
        self._recorded, self._slot, self._named = recorded, slot, named

    def __getattr__(self, name: str) -> Any:
        slot, named = self._slot, self._named

        def step(*args: Any, **options: Any) -> RecordedReader:
            def do(world: Naive, kept: dict[Any, Any]) -> None:
                if slot not in kept:
                    kept[slot] = world.reader(**named)
                getattr(kept[slot], name)(*args, **options)

            self._recorded._add(f"reader {slot.number}", do)
            return self

        return step


def recorded(scenario: Callable[[Any], None]) -> list[Event]:
    """What the scenario's actors do."""
    world = Recorded()
    scenario(world)
    return world.events


def interleaved(events: list[Event], chance: random.Random) -> Iterator[Event]:
    """In random order, each actor's own order kept."""
    queues: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        queues[event.actor].append(event)
    committed = -1
    while queues:
        ready = [actor for actor, queue in queues.items() if queue[0].after <= committed]
        actor = chance.choice(ready)
        event = queues[actor].pop(0)
        if not queues[actor]:
            del queues[actor]
        if actor.startswith("writer") and event.after == committed and int(actor.split()[1]) == committed + 1:
            committed += 1
        yield event


def lost(scenario: Callable[[Any], None], options: dict[str, Any], runs: int, seed: int = 1) -> int:
    """In so many runs the naive cache ends stale."""
    events, chance, stale = recorded(scenario), random.Random(seed), 0
    for _ in range(runs):
        world = Naive(**options)
        kept: dict[Any, Any] = {}
        for event in interleaved(events, chance):
            event.do(world, kept)
        world.store.show()
        stale += world.read() != world.store.truth
    return stale


def races() -> dict[str, tuple[Callable[[Any], None], dict[str, Any]]]:
    """Every scenario that runs on both, by its test's name."""
    modules = (test_cache_races, test_failover_races)
    return {name: test.race for module in modules for name, test in vars(module).items() if hasattr(test, "race")}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    for name, (scenario, options) in races().items():
        print(f"| `{name}` | {lost(scenario, options, runs) / runs:.1%} |")


if __name__ == "__main__":
    main()
