"""A server takes a moment to notice that a connection is gone: what it counts is asked until it stays the same."""

import time
from collections.abc import Callable

WAIT_S = 10.0
_PAUSE_S = 0.02
_SAME = 5


def settled(count: Callable[[], int]) -> int:
    """What `count` says when it has said so five times in a row; `AssertionError` where it never does."""
    seen, until = [count()], time.monotonic() + WAIT_S
    while len(seen) < _SAME or len(set(seen)) > 1:
        assert time.monotonic() < until, f"it goes on changing: {seen}"
        time.sleep(_PAUSE_S)
        seen = [*seen[1 - _SAME :], count()]
    return seen[-1]
