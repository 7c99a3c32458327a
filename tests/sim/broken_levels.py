"""As `broken.py`, for what a session or a bound asks of a read."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from cachelib import grounds, history, proof, standing
from cachelib.grounds import Grounds
from cachelib.history import History, Mark
from cachelib.levels import FREE, Ground
from cachelib.model import Requirement
from cachelib.standing import Standing, Trust
from cachelib.storeclock import StoreClock
from cachelib.stores.base import Loaded
from cachelib.testing.sim.node import PlainBackend
from cachelib.testing.sim.store import SimStore

real_session_ground, real_saw, real_meet, real_put = history.session_ground, History.saw, History.meet, History._put
real_bounded, real_bounded_ground, real_load = Grounds._bounded, grounds.bounded_ground, SimStore.load
real_apply = PlainBackend.apply


def asks_for_nothing(self: Any, key: int, binding: int) -> tuple[Ground, Mark | None]:
    return FREE, None


def remembers_no_write(self: Any, marks: Any, now_us: int) -> None:
    pass


def any_absence(self: Any) -> Requirement:
    """What has no version is as good as what was seen."""
    return Requirement(min_version=self.version) if self.version else Requirement(min_as_of_us=1)


def session_joins_any_flight(asks: Any, least_us: int) -> Ground:
    return replace(real_session_ground(asks, least_us), joins_from_us=0)


def what_was_not_kept_is_bound(self: Any, key: int, before: Any, found: Any, binding: int, now_us: int) -> None:
    real_saw(self, key, before, replace(found, kept=True), binding, now_us)


def counts_from_its_clock(self: Any, key: int, before: Any, found: Any, binding: int, now_us: int) -> None:
    """What has no version was seen when its load began, whenever its snapshot was taken."""
    real_saw(self, key, before, found, binding, now_us)
    mark = self.marks.get(key)
    if mark is not None and mark.binding and not mark.version:
        self.marks[key] = replace(mark, as_of_us=found.as_of_us)


def binds_for_ever(self: Any, binding: int, number: int, place: int = 0) -> int:
    """Whatever server and layout it was: what was dropped there is asked for nowhere."""
    return real_meet(self, 1, 1, 1)


def drops_without_a_trace(self: Any, key: int, mark: Mark, now_us: int) -> None:
    times = self.since_us, self.past_us
    real_put(self, key, mark, now_us)
    self.since_us, self.past_us = times


def start_as_it_tells(self: Trust) -> str:
    """Whatever address it has."""
    return self.instance


async def believes_any_note(self: Standing, trust: Any, namespace: str) -> None:
    """Whichever start of the server it was written for."""
    if time.monotonic() - trust.looked_at >= standing.LOOK_S:
        trust.looked_at = time.monotonic()
        (raw,) = await self._backend.read_notes([proof.proof_name(namespace)])
        note = proof.decode_proof(raw)
        if note is not None:
            trust.note, trust.caught_up = note, trust.caught_up | note.entities


async def loaded_when_it_came_home(self: SimStore, *given: Any, **named: Any) -> Loaded:
    loaded = await real_load(self, *given, **named)
    return replace(loaded, as_of_us=self.loop.now_us)


def answered_at_once(self: StoreClock) -> int:
    """The store's clock was read when its answer came."""
    return self.earliest_us()


async def bounded_by_any_name(self: Grounds, entity: Any, level: Any, where: Any) -> Ground:
    return await real_bounded(self, entity, level, replace(where, leased=True, names=where.names[:1]))


def bounded_joins_any_flight(*given: Any) -> Ground:
    return replace(real_bounded_ground(*given), joins_from_us=0)


async def notes_go_first(self: PlainBackend, batch: Any, notes: Any, now_ms: int) -> Any:
    await real_apply(self, (), notes, now_ms)
    return await real_apply(self, batch, {}, now_ms)
