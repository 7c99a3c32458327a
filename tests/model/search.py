"""Every interleaving of the code's own machines on small bounds: `python -m tests.model.search [--big]`.

Breadth first, so that a story told about a violation is among the shortest. Checks:

strong: a read that begins after another operation completed never returns an older version.
settle: once nothing is in flight and the log is fully applied, nothing fresh differs from the store.
heals: and then one more read leaves something to hit, so no key is lost to the cache for good.

The last line is the verdict; the exit code is 0 where every rule held and every mutant was caught.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.model.configs import CONFIGS, Config
from tests.model.mutants import MUTANTS
from tests.model.world import State, World

LIMIT = 12_000_000
"""A search that has seen so many states gives up, and says so: that is a failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found."""

    states: int
    seconds: float
    violation: str = ""
    story: tuple[str, ...] = ()

    @property
    def per_second(self) -> int:
        return int(self.states / max(self.seconds, 1e-9))


def search(config: Config, tell: Callable[[int, float], None] = lambda states, seconds: None) -> Outcome:
    """Visit every state that can be reached; stop at the first that breaks a rule."""
    world, began = World(config), time.monotonic()
    first = world.tidy(world.start())
    came_from: dict[State, State | None] = {first: None}
    waiting = deque([first])

    def outcome(violation: str = "", path: tuple[State, ...] = (), last: str = "") -> Outcome:
        told = _story(world, path) + ((last,) if last else ())
        return Outcome(len(came_from), time.monotonic() - began, violation, told)

    while waiting:
        state = waiting.popleft()
        if world.quiet(state):
            wrong = world.settled(state) or (world.heals(state) if config.heals else None)
            if wrong:
                return outcome(wrong, _path(came_from, state))
        for _label, raw, wrong in world.moves(state):
            if wrong:
                path = _path(came_from, state)
                return outcome(wrong, path, _last(world, path, wrong))
            after = world.tidy(raw)
            if after not in came_from:
                came_from[after] = state
                waiting.append(after)
                if len(came_from) % 100_000 == 0:
                    tell(len(came_from), time.monotonic() - began)
        if len(came_from) > LIMIT:
            return outcome(f"gave up after {LIMIT} states")
    return outcome()


def _path(came_from: dict[State, State | None], state: State) -> tuple[State, ...]:
    path = [state]
    while (before := came_from[path[-1]]) is not None:
        path.append(before)
    return tuple(reversed(path))


def _walk(world: World, path: tuple[State, ...]) -> tuple[list[str], State]:
    """The moves along a path of tidied states, without tidying: here everybody keeps his number."""
    state, labels = world.start(), []
    for goal in path[1:]:
        label, state = next((label, raw) for label, raw, _ in world.moves(state) if world.tidy(raw) == goal)
        labels.append(label)
    return labels, state


def _story(world: World, path: tuple[State, ...]) -> tuple[str, ...]:
    return tuple(_walk(world, path)[0])


def _last(world: World, path: tuple[State, ...], wrong: str) -> str:
    return next(label for label, _, bad in world.moves(_walk(world, path)[1]) if bad == wrong)


# --- the command line ------------------------------------------------------------------------


def _progress(name: str) -> Callable[[int, float], None]:
    def tell(states: int, seconds: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{name}: {states} states, {states / seconds:.0f}/s ", end="", file=sys.stderr, flush=True)

    return tell


def _line(name: str, outcome: Outcome, verdict: str) -> None:
    numbers = f"{outcome.states:9d} states {outcome.seconds:7.1f} s {outcome.per_second:7d}/s"
    print(f"{name:64s} {numbers}  {verdict}", flush=True)


def _tell_story(outcome: Outcome) -> None:
    for number, event in enumerate(outcome.story, 1):
        print(f"    {number:2d} {event}")
    if outcome.violation:
        print(f"       {outcome.violation}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--big", action="store_true", help="somebody may die, and the log may be rewound")
    parser.add_argument("--only", default="", help="configurations and mutants whose name contains this")
    parser.add_argument("--stories", action="store_true", help="tell how each mutant fails")
    chosen = parser.parse_args(arguments)
    states, failures = 0, 0
    for name, config in CONFIGS.items():
        if chosen.only in name:
            outcome = search(config.bigger() if chosen.big else config, _progress(name))
            _line(name, outcome, "holds" if not outcome.violation else "VIOLATION")
            _tell_story(outcome)
            states, failures = states + outcome.states, failures + bool(outcome.violation)
    for name, mutant in MUTANTS.items():
        if chosen.only in name:
            with mutant.applied():
                outcome = search(mutant.config, _progress(name))
            _line(f"mutant: {name}", outcome, "caught" if outcome.violation else "NOT CAUGHT")
            if chosen.stories:
                _tell_story(outcome)
            states, failures = states + outcome.states, failures + (not outcome.violation)
    print(f"{'every rule held, every mutant was caught' if not failures else f'{failures} FAILED'}: {states} states")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
