"""Run a seed, and shorten the story of one that fails."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cachelib import history
from cachelib.testing.sim.client import SimCache
from cachelib.testing.sim.profile import Plan, Profile
from cachelib.testing.sim.stage import set_up
from cachelib.testing.sim.store import Weather
from cachelib.testing.sim.world import CacheOf, Companion, World


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `promise`: which was broken, "" for none. `story`: only where it was asked for."""

    promise: str
    what: str
    reads: int
    writes: int
    errors: int
    events: int
    checked: int
    end_us: int
    story: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Nothing was wrong."""
        return not self.promise


CompanionOf = Callable[[Plan], Companion | None]


def nobody(_: Plan) -> Companion | None:
    """For runs without an invalidator."""
    return None


@dataclass(frozen=True, slots=True)
class Runner:
    """How plans are run: with which invalidator, and with whose cache."""

    companion_of: CompanionOf = nobody
    cache_of: CacheOf = SimCache

    def run(self, plan: Plan, *, told: bool = False) -> Outcome:
        """Run it once. The same plan ends the same way, always."""
        world = World(plan, told=told, cache_of=self.cache_of)
        promise = what = ""
        try:
            world.run(self.companion_of(plan))
        except Exception as error:  # noqa: BLE001 - a crash of the code under test is a finding like any other
            promise, what = "crash", f"{type(error).__name__}: {error}"
        if world.violation is not None:
            promise, what = world.violation.promise, str(world.violation)
        loop, checked = world.loop, world.history.checked
        story = tuple(loop.story or ())
        return Outcome(promise, what, world.reads, world.writes, world.errors, loop.events, checked, loop.now_us, story)

    def shrunk(self, plan: Plan, tries: int = 400) -> Plan:
        """The same violation with less: deeds are left out, then the weather is made better, while it still fails."""
        promise = self.run(plan).promise
        left = [tries]

        def fails(candidate: Plan) -> bool:
            left[0] -= 1
            return left[0] >= 0 and self.run(candidate).promise == promise

        shorter = True
        while shorter and left[0] > 0:
            plan, before = _fewer(plan, fails), plan
            plan = _milder(plan, fails)
            shorter = plan != before
        return plan


def _fewer(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    size = max(1, len(plan.deeds) // 2)
    while size:
        at = 0
        while at < len(plan.deeds):
            candidate = plan.but(plan.deeds[:at] + plan.deeds[at + size :])
            if fails(candidate):
                plan = candidate
            else:
                at += size
        size //= 2
    return plan


def _milder(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    for better in _BETTER:
        candidate = replace(plan, profile=better(plan.profile))
        if candidate != plan and fails(candidate):
            plan = candidate
    return plan


_BETTER: tuple[Callable[[Profile], Profile], ...] = (
    lambda profile: replace(profile, lost=0.0),
    lambda profile: replace(profile, late=0.0),
    lambda profile: replace(profile, slow=0.0),
    lambda profile: replace(profile, weather=Weather(versions=profile.weather.versions)),
    lambda profile: replace(profile, weather=replace(profile.weather, slow=0.0)),
    lambda profile: replace(profile, skews_us=tuple(0 for _ in profile.skews_us)),
    lambda profile: replace(profile, early=0.0, ttl="1h"),
    lambda profile: replace(profile, cas=False),
    lambda profile: replace(profile, write="invalidate"),
)


@contextmanager
def simulation(*packages: str) -> Iterator[None]:
    """Where seeds are run: the code of these packages gets its time and chance from the simulation.

    Nothing is collected by itself meanwhile, and a `gc.collect()` between two runs looks at nothing from before.
    """
    was, marks = gc.isenabled(), history.KEYS_MAX
    gc.disable()
    gc.freeze()
    try:
        with set_up(("cachelib", *packages)):
            yield
    finally:
        history.KEYS_MAX = marks
        gc.collect()
        gc.unfreeze()
        if was:
            gc.enable()
