"""How soon a thread that waits for the interpreter gets it from one that does not wait for anything.

A change is handed from thread to thread: the client's, the one that polls, the loop, the node's. Whoever has handed it
on still has things to do, for some tenths of a millisecond: ask for more, count. Only after Python's 5 ms would it be
asked to give way, so each change waits for all of that. Giving way sooner costs a tenth of the throughput, by switches
that help nobody while many changes come at once; so then it is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

_QUICK_S = 0.0001
_MANY = 100
"""Changes of one poll."""


class Pace:
    """For the process that is the daemon's alone. `switch`: see `sys.setswitchinterval`."""

    def __init__(self, switch: Callable[[float], None] = sys.setswitchinterval) -> None:
        self._switch = switch
        self._usual_s = sys.getswitchinterval()
        self._quick = False

    def saw(self, changes: int) -> None:
        """One poll gave so many."""
        self._be(changes < _MANY)

    def rest(self) -> None:
        """As it was before."""
        self._be(False)

    def _be(self, quick: bool) -> None:
        if quick is not self._quick:
            self._quick = quick
            self._switch(_QUICK_S if quick else self._usual_s)
