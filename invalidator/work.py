"""What has to be applied: the effects of one poll, and the window of them that the nodes work through.

Each node goes through the window at its own pace. The window is bounded: a node that falls out of it
reads the log itself, from its own position, until it can join again. So a node that is paused
costs nobody else anything, and nothing queues up for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from threading import Condition, Lock

from cachelib.effects import Effect
from invalidator.sources.base import Positions, covers, merged


@dataclass(frozen=True, slots=True)
class Work:
    """The effects of the changes between two positions, one for each key.

    A first look has nothing in `after`: nothing is done yet. Up to where it tells everything is in `told`.
    """

    effects: tuple[Effect, ...]
    changes: int
    before: Positions
    after: Positions
    watermark_us: int | None = None
    highest: int = 0
    """The highest version among the changes; 0 for none."""
    oldest_us: int = 0
    """When the first of the changes was made; 0 where unknown."""
    told: Positions | None = None
    """Of a first look: up to where it tells."""
    partial: bool = False
    """A last look: what was told at once and is done with is not in it again."""

    @property
    def room(self) -> int:
        """How much of a bounded room it takes: changes, at least one, and a kilobyte of what they made for another."""
        held = sum(len(one.content.payload) for one in self.effects if one.content is not None)
        return self.changes + 1 + held // 1024

    def first_look(self) -> Work:
        """The same, of which nothing is done when it is applied: nor what is before it, which may wait as well."""
        return replace(self, after={}, watermark_us=None, told=self.after)

    def part(self) -> Work:
        """The same, of which a part is told again: the log is not done up to its end by that."""
        return replace(self, after={}, watermark_us=None)

    def early(self) -> Work:
        """A first look at what others may not be able to read yet: it may void, and not be written through."""
        effects = tuple(replace(one, content=None) if one.content is not None else one for one in self.effects)
        return replace(self.first_look(), effects=effects)


class Window:
    """The works that were read last, numbered from 0 on. Safe across threads."""

    def __init__(self, changes_max: int) -> None:
        self._changes_max = changes_max
        self._works: deque[Work] = deque()
        self._first = 0
        self._changes = self._added_changes = 0
        self._starts: deque[int] = deque()
        """How much had been added before each of the works."""
        self._told: Positions = {}
        """Up to where the works told everything since they begin, also those that are gone."""
        self._readers: dict[str, int] = {}
        self._lock = Lock()
        self._added = Condition(self._lock)
        self._moved = Condition(self._lock)

    def add(self, work: Work) -> None:
        """Put one at the end; the oldest go where there are too many."""
        with self._lock:
            self._works.append(work)
            self._told = merged(self._told, work.told or work.after)
            self._starts.append(self._added_changes)
            self._changes += work.room  # an empty one takes room, too
            self._added_changes += work.room
            while self._changes > self._changes_max and len(self._works) > 1:
                self._drop()
            self._added.notify_all()

    def _drop(self) -> None:
        self._changes -= self._works.popleft().room
        self._starts.popleft()
        self._first += 1

    def restart(self) -> None:
        """The source goes on elsewhere: whoever is in the window has to find its place again."""
        with self._lock:
            while self._works:
                self._drop()
            self._told = {}
            self._first += 1  # so that also a reader at the very end notices
            self._readers.clear()
            self._added.notify_all()
            self._moved.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Whether the source may read on: not where that would leave even the fastest node behind (I10)."""
        with self._lock:
            return self._moved.wait_for(self._has_room, timeout_s)

    def _has_room(self) -> bool:
        """Half is left free, so that what a poll adds does not push out what the fastest has still to take."""
        taken = max(0, max(self._readers.values(), default=0) - self._first)
        waiting = self._added_changes - self._starts[taken] if taken < len(self._starts) else 0
        return 2 * waiting <= self._changes_max

    # --- nodes -------------------------------------------------------------------------------

    def join(self, reader: str, positions: Positions) -> int | None:
        """The number of the last work before which somebody at these positions has missed nothing.

        None where there is none: what lies between is no longer here.
        """
        with self._lock:
            if self._told and covers(positions, self._told):
                return self._at(reader, self._end())
            for back, work in enumerate(reversed(self._works), 1):
                if not work.partial and covers(positions, work.before):
                    return self._at(reader, self._end() - back)
            return None

    def take(self, reader: str, number: int, changes_max: int, timeout_s: float) -> Sequence[Work] | None:
        """The works from this number on, up to so many changes; waits for the first. None: they are gone."""
        with self._lock:
            if number == self._end():
                self._added.wait(timeout_s)
            if not self._first <= number <= self._end():
                self._readers.pop(reader, None)
                return None
            self._at(reader, number)
            taken: list[Work] = []
            changes = 0
            for work in islice(self._works, number - self._first, None):
                changes += work.changes
                if taken and changes > changes_max:
                    break
                taken.append(work)
            return taken

    def leave(self, reader: str) -> None:
        """The reader does not go on for now, so nobody waits for it."""
        with self._lock:
            self._readers.pop(reader, None)
            self._moved.notify_all()

    def behind(self, number: int) -> int:
        """How many changes there are from this number on."""
        with self._lock:
            return sum(work.changes for work in islice(self._works, max(0, number - self._first), None))

    def _at(self, reader: str, number: int) -> int:
        if self._readers.get(reader) != number:
            self._readers[reader] = number
            self._moved.notify_all()
        return number

    def _end(self) -> int:
        return self._first + len(self._works)
