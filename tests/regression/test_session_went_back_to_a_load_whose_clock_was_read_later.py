"""Two caches loaded the same list. The first read the store's clock, stood still for a moment, and then took its
snapshot: it had a write that the second, whose clock was read in between, had not. A session was shown the first, kept
that clock, and took the second's list for newer.

Seed 438 of the simulation, which should have caught it, but drew no such pause between a load's clock and its snapshot.
"""

from __future__ import annotations

from cachelib.history import History, binding_of
from cachelib.item import serves
from cachelib.model import ANY, Item, value_of
from cachelib.port import Found

ONE = binding_of("start of one cache", 1, b"lc/e.t/list:1", b"list:1")
OTHER = binding_of("start of another", 1, b"lc/e.t/list:1", b"list:1")
CLOCK_US, SNAPSHOT_US, SEEN_US = 1_000, 3_000, 4_000
BETWEEN = Item(value_of(b"without the write"), as_of_us=2_000)
LATER = Item(value_of(b"with it"), as_of_us=SEEN_US)


def seen_in_one() -> History:
    history = History("00" * 8)
    met = history.meet(ONE, 1)
    history.saw(0, history.ground(0, met)[1], Found("with it", True, 0, "hit", CLOCK_US), met, SEEN_US)
    return history


def test_list_loaded_between_the_clock_and_the_snapshot_of_what_was_seen_is_not_shown() -> None:
    history = seen_in_one()
    asks = history.ground(0, history.meet(OTHER, 1, place=2))[0].requirement
    assert CLOCK_US < BETWEEN.as_of_us < SNAPSHOT_US
    assert not serves(BETWEEN, asks)
    assert serves(LATER, asks)


def test_what_was_seen_is_shown_again_by_the_cache_that_showed_it() -> None:
    history = seen_in_one()
    ground = history.ground(0, history.meet(ONE, 1))[0]
    assert ground.requirement == ANY
    assert not ground.stale  # what is void there may be older
    assert ground.joins_from_us == SEEN_US
