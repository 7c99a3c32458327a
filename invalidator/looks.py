"""The second look: when is a change that was applied surely visible to every load?

PROTOCOL.md, "Applying the log". The order of events that one look would miss:

    the log shows a commit that others cannot read yet
    it is applied; the cache then evicts what that left
    a reader misses, loads the old row, and fills it in
    the commit becomes visible, and nothing tells the cache again

So what such a source shows is applied at once, and once more when it is surely visible. Only
then is it done (I9).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from invalidator.work import Work


class Visibility(Protocol):
    """Knows when a change can be read by everybody."""

    def mark(self, work: Work) -> Any:
        """Taken when the work was polled."""

    def visible(self, mark: Any) -> bool:
        """Whether all of the work so marked is visible now."""


class SettleDelay:
    """Visible after a fixed time: an assumption, to be set above what the store's commits and replicas need."""

    def __init__(self, delay_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._delay_s = delay_s
        self._clock_s = clock_s

    def mark(self, work: Work) -> float:
        """See `Visibility.mark`."""
        return self._clock_s()

    def visible(self, mark: float) -> bool:
        """See `Visibility.visible`."""
        return self._clock_s() - mark >= self._delay_s


class Looks:
    """Holds each work back until its second look is due. With no `visibility`, one look is enough."""

    def __init__(self, visibility: Visibility | None, changes_max: int) -> None:
        self._visibility = visibility
        self._changes_max = changes_max
        self._waiting: deque[tuple[Work, Any]] = deque()
        self.pending = 0

    @property
    def full(self) -> bool:
        """No more may be read for now (I10)."""
        return self.pending >= self._changes_max

    def first(self, work: Work) -> list[Work]:
        """What of a work that was just polled is to be applied at once."""
        if self._visibility is None or not (work.effects or self._waiting):
            return [work]
        self._waiting.append((work, self._visibility.mark(work)))
        self.pending += work.changes
        return [work.first_look()] if work.effects else []

    def due(self) -> list[Work]:
        """The works whose second look is due, in their order: one that is not holds up those behind it."""
        found: list[Work] = []
        while self._waiting and self._visibility and self._visibility.visible(self._waiting[0][1]):
            work, _ = self._waiting.popleft()
            self.pending -= work.changes
            found.append(work)
        return found

    def clear(self) -> None:
        """The source goes on elsewhere."""
        self._waiting.clear()
        self.pending = 0
