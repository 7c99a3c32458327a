"""A session that went on in another cache loaded keys there, dropped a mark of the first cache a little later, and
then asked for a load of everything that began after the drop; so it loaded the same keys again. A load that began
after the session had left the first cache is newer than all that it was shown there.

The integration test of many keys over two caches should have caught it, and was weakened instead.
"""

from __future__ import annotations

from cachelib.history import KEYS_MAX, History, Mark
from cachelib.item import serves
from cachelib.model import Item, Requirement, value_of
from cachelib.port import Found
from cachelib.session import decode_token, encode_token

FIRST, OTHER = 1 << 24 | 5, 2 << 24 | 6
"""Bindings of two caches."""


def read(history: History, key: int, binding: int, place: int, now_us: int) -> Requirement:
    """Loads and keeps it; answers what was asked."""
    met = history.meet(binding, 1, place)
    ground, mark = history.ground(key, met)
    history.saw(key, mark, Found("value", True, 7, "filled", now_us), met, now_us)
    return ground.requirement


def test_what_was_loaded_since_the_session_left_the_other_cache_is_taken() -> None:
    history = History("00" * 8)
    for key in range(2 * KEYS_MAX):
        read(history, key, FIRST, 1, 1_000 + key)
    carried = decode_token(encode_token(history))
    for key in range(2 * KEYS_MAX):  # the marks of the first cache are dropped on the way
        read(carried, key, OTHER, 2, 2_000 + key)
    for key in range(2 * KEYS_MAX):
        asks = carried.ground(key, carried.meet(OTHER, 1, 2))[0].requirement
        assert serves(Item(value_of(b"v"), version=7, as_of_us=2_000 + key), asks), key


def test_what_was_loaded_before_the_session_left_the_other_cache_is_not() -> None:
    """The other way round: the reloads that remain are needed. Key 0 was shown in the first cache at 1_900; what the
    second cache loaded at 1_500 may be older than that."""
    history = History("00" * 8)
    read(history, 0, FIRST, 1, 1_900)
    for key in range(1, KEYS_MAX + 1):
        read(history, key, OTHER, 2, 2_000 + key)
    asks = history.ground(0, history.meet(OTHER, 1, 2))[0].requirement
    assert not serves(Item(value_of(b"v"), version=6, as_of_us=1_500), asks)
    assert serves(Item(value_of(b"v"), version=7, as_of_us=1_901), asks)


def test_what_was_told_of_the_cache_that_was_left_counts_as_seen_when_it_was_told() -> None:
    """A write is confirmed while another read of the session already goes to another cache."""
    history = History("00" * 8)
    met = history.meet(FIRST, 1, 1)
    marks = {0: Mark(7)}
    read(history, 1, OTHER, 2, 1_500)
    history.wrote(marks, 2_500)
    history.told(marks, {0: met})
    for key in range(2, KEYS_MAX + 2):
        read(history, key, OTHER, 2, 2_000 + key)
    asks = history.ground(0, history.meet(OTHER, 1, 2))[0].requirement
    assert not serves(Item(value_of(b"v"), version=6, as_of_us=1_600), asks)
