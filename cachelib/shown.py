"""What a read shows of what it found: of an item, fresh or stale, of what another call landed with, of its own load.

The rules of `steps.py` that need no question: it asks, and this judges the answers for the read's plan.
"""

from __future__ import annotations

from cachelib.errors import CacheError, DecodeError
from cachelib.item import may_serve_stale, serves
from cachelib.model import ANY, NOTHING, Item, Kind
from cachelib.port import Found, Landing, Loaded, Port, Source
from cachelib.readplan import ReadPlan


def taken(plan: ReadPlan, landing: Landing) -> Found | None:
    """What a read that joined a flight takes of how that ended; None: nothing. Raises what it ended with."""
    if isinstance(landing, CacheError):
        raise landing
    if landing is None or landing.content is None:
        return None
    stale = landing.source == "stale"
    if not (plan.shows_stale if stale else _new_enough(plan, landing)):
        return None
    # Written out, and in one go: fifty threads do it at once, each with what another left in the processor's caches.
    return Found(
        plan.decode(landing.content.payload) if landing.found else None,
        landing.found,
        landing.version,
        "stale" if stale else "joined",
        landing.as_of_us,
        landing.content,
        landing.source in ("filled", "hit"),
    )


def _new_enough(plan: ReadPlan, landing: Found) -> bool:
    """Not from before what this read has to see."""
    if plan.requirement is ANY and plan.also is ANY:
        return landing.as_of_us >= plan.joins_from_us
    item = Item(landing.content or NOTHING, version=landing.version, as_of_us=landing.as_of_us)
    return item.as_of_us >= plan.joins_from_us and serves(item, plan.requirement) and serves(item, plan.also)


def shown_meanwhile(port: Port, plan: ReadPlan, item: Item) -> Found | None:
    """What readers are shown while this one loads."""
    if not _serves(plan, item):
        return shown_stale(port, plan, item)
    try:
        return shown_item(plan, item, "hit")
    except DecodeError:
        return None


def _serves(plan: ReadPlan, item: Item) -> bool:
    return plan.holds() and serves(item, plan.requirement) and serves(item, plan.also)


def shown_stale(port: Port, plan: ReadPlan, item: Item) -> Found | None:
    """The item's content as stale, where the read may be shown that, and it is not too old."""
    if not plan.shows_stale or not may_serve_stale(item, port.now_ms()):
        return None
    try:
        return shown_item(plan, item, "stale")
    except DecodeError:
        return None


def shown_item(plan: ReadPlan, item: Item, source: Source) -> Found:
    """The item's content. Raises `DecodeError`."""
    content = item.content
    if content.kind is Kind.ABSENCE:
        return Found(None, False, item.version, source, item.as_of_us, content)
    return Found(plan.decode(content.payload), True, item.version, source, item.as_of_us, content)


def shown_loaded(loaded: Loaded, source: Source) -> Found:
    """What this read has loaded."""
    return Found(loaded.value, loaded.found, loaded.version, source, loaded.as_of_us, loaded.content)
