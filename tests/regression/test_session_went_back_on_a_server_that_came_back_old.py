"""A session had seen a key under one start of a server, met the next start (which came back with older data) by
another key, and only then dropped the first key's mark: as the new start was met before the drop, nothing was asked
of it any more, and the older item was shown.

`test_never_shown_anything_older_whatever_is_dropped` should have caught it; its servers kept their files too seldom.
"""

from __future__ import annotations

from cachelib.history import KEYS_MAX, History, binding_of
from cachelib.item import serves
from cachelib.model import Item, value_of
from cachelib.port import Found

BEFORE = binding_of("start 1", 1, b"lc/e.t/order:1", b"order:1")
AFTER = binding_of("start 2", 1, b"lc/e.t/order:1", b"order:1")


def read(history: History, key: int, binding: int, version: int, now_us: int) -> None:
    met = history.meet(binding, 1)
    history.saw(key, history.ground(key, met)[1], Found("value", True, version, "hit", now_us), met, now_us)


def test_key_seen_before_the_restart_and_dropped_after_it_is_not_shown_older() -> None:
    history = History("00" * 8)
    read(history, 0, BEFORE, 7, 1_000)  # version 6 is in the server's file since 900
    for key in range(1, KEYS_MAX + 1):
        read(history, key, AFTER, 5, 2_000 + key)
    assert 0 not in history.parts().marks
    asks = history.ground(0, history.meet(AFTER, 1))[0].requirement
    assert not serves(Item(value_of(b"v"), version=6, as_of_us=900), asks)
    assert serves(Item(value_of(b"v"), version=7, as_of_us=1_001), asks)
