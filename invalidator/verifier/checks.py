"""What is still to be asked, and when: every change that was chosen climbs a ladder of ages. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from cachelib.compare import Known
from cachelib.entity import Entity
from cachelib.keys import Key


@dataclass(slots=True)
class Check:
    """One key that should be as new as `known` everywhere.

    `place`: partition and position of the change in the log, where it was one; `at_us`: when it was made by the
    store's clock, 0 unknown. `since_s`: the monotonic time from which its age counts. `shown_us`: where it was no
    change but a reading of the store, the store's clock after that; 0 otherwise.
    """

    entity: Entity
    key: Key
    text: bytes
    known: Known
    since_s: float
    place: tuple[str, str] | None = None
    at_us: int = 0
    shown_us: int = 0
    step: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    """By node, the newest version that it was seen to serve."""
    cleared: set[str] = field(default_factory=set)
    """Nodes that had been told of the change and served nothing."""
    doubted: dict[str, int] = field(default_factory=dict)
    """By node, the identity of an item that differed from what the store had at `since_s`."""
    rechecks: bool = False
    """It looks again at what a reading of the store left in doubt, rather than at a change."""

    def doubts(self) -> set[tuple[str, str, bytes]]:
        """Node, entity and key of each item that is looked at again."""
        return {(node, self.entity.name, self.text) for node in self.doubted}


class Ladder:
    """Checks by the time that they are due. At most `most` of them: beyond, new ones are refused."""

    def __init__(self, after_s: Sequence[float], most: int) -> None:
        self.after_s = tuple(after_s)
        self._most = most
        self._heap: list[tuple[float, int, Check]] = []
        self._number = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def full(self) -> bool:
        """Nothing more is taken for now."""
        return len(self._heap) >= self._most

    def add(self, check: Check) -> bool:
        """Ask for the first time; False where too many wait."""
        if self.full:
            return False
        self._push(check)
        return True

    def again(self, check: Check) -> bool:
        """It was asked: once more at the next age; False where there is none."""
        check.step += 1
        if check.step >= len(self.after_s):
            return False
        self._push(check)
        return True

    def due(self, now_s: float, most: int) -> list[Check]:
        """Those whose time has come, the most overdue first."""
        found: list[Check] = []
        while self._heap and self._heap[0][0] <= now_s and len(found) < most:
            found.append(heapq.heappop(self._heap)[2])
        return found

    def next_s(self) -> float | None:
        """When the next is due."""
        return self._heap[0][0] if self._heap else None

    def late_s(self, check: Check, now_s: float) -> float:
        """How long after its time it is asked."""
        return now_s - (check.since_s + self.after_s[check.step])

    def _push(self, check: Check) -> None:
        heapq.heappush(self._heap, (check.since_s + self.after_s[check.step], next(self._number), check))
