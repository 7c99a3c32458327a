"""From a level of consistency, and what is proven of a node, to what a read may take from the cache. Pure.

Together with `item.serves` and `steps.py` this is all there is to a level: the rule stands here, once, and the
steps keep it. PROTOCOL.md, "Levels", has the promises and the reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cachelib.model import ANY, Requirement


def always() -> bool:
    """Of a read to which it does not matter which start of a server answers."""
    return True


@dataclass(frozen=True, slots=True)
class Ground:
    """What a read stands on. It was found before the read looks, and `holds` is asked after."""

    requirement: Requirement = ANY
    """What an item has to be to serve."""
    holds: Callable[[], bool] = always
    """The start of the server that this is about still is the one that answers."""
    also: Requirement = ANY
    """What an item has to be besides; where one that serves is not, the store is asked."""
    stale: bool = True
    """Content that is no longer fresh may be shown, if nothing else forbids it."""
    joins_from_us: int = 0
    """Loads of other calls may be joined that began then or later."""
    record: Callable[[Any], Any] | None = None
    """Told what was found, when the read has ended; it answers that, with what is known besides."""
    proven: bool = True
    """False: nothing can be known of the node, so what it has may not be served."""


FREE = Ground()
"""A read that takes whatever is fresh."""
NO_GROUND = Ground(proven=False)


def strong_ground(caught_up: bool, since_us: int | None, holds: Callable[[], bool]) -> Ground:
    """The failover rule: what a strong read may take from a server that this process has just met.

    A server may have come back with old data, and nobody repeats to it what its writers were told. So

    - either the invalidator has told it everything again: then whatever is fresh serves;
    - or what serves was loaded (or written) after this process had met this start of the server, at `since_us`
      of the store's clock: it is not from before, and every write since was told to this start;
    - or neither is known: then the store is asked.
    """
    if caught_up:
        return Ground(holds=holds)
    if since_us is None:
        return NO_GROUND
    return Ground(Requirement(min_as_of_us=since_us), holds)


def strong_in_session(ground: Ground, least_us: int) -> Ground:
    """A strong read shows every confirmed write anyhow; `least_us` stands for this session's that were not."""
    if not least_us:
        return ground
    least_us = max(least_us, ground.requirement.min_as_of_us or 0)
    return replace(ground, requirement=Requirement(min_as_of_us=least_us))


def session_ground(asks: Requirement, least_us: int) -> Ground:
    """What a session may be shown: what it asks for, and (where it has seen anything) nothing that is not fresh.

    `least_us`: a load of another call that this read joins must have begun then or later, whatever the item has to
    be: it may have begun before this session saw what the item holds.
    """
    return Ground(asks, stale=asks == ANY and not least_us, joins_from_us=least_us)


def bounded_ground(now_us: int, max_age_us: int, watermark_us: int | None, holds: Callable[[], bool]) -> Ground:
    """What may be shown that is no older than `max_age_us`, at `now_us` of the store's clock (not earlier than it is).

    Either everything that was committed until then has been applied on the node (`watermark_us`, of the start of the
    server that `holds` is about): then whatever is fresh. Or the item was loaded since: then it does not matter where
    it has been meanwhile. A load of another call that is joined must have begun since in any case: no watermark
    speaks of what is not stored yet.
    """
    least_us = now_us - max_age_us
    if watermark_us is not None and watermark_us >= least_us:
        return Ground(holds=holds, stale=False, joins_from_us=least_us)
    return Ground(Requirement(min_as_of_us=least_us), stale=False, joins_from_us=least_us)


def both(level: Ground, session: Ground) -> Ground:
    """What a level asks, and a session."""
    one, other = level.requirement, session.requirement
    times = [asks.min_as_of_us for asks in (one, other) if asks.min_as_of_us is not None]
    if one == ANY or other == ANY:
        asks, also = (other if one == ANY else one), ANY
    elif len(times) == 2:
        asks, also = Requirement(min_as_of_us=max(times)), ANY
    else:
        asks, also = one, other
    return replace(
        session,
        requirement=asks,
        also=also,
        holds=lambda: level.holds() and session.holds(),
        stale=level.stale and session.stale,
        joins_from_us=max(level.joins_from_us, session.joins_from_us),
    )
