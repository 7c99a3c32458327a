"""What was written and what was read: the checks. Streaming: each is made the moment a read ends.

The store's order of commits is known, so a history is linearizable per key exactly if no
operation shows an earlier commit than one that had ended before it began (the version order); no
search is needed. What was read is named by its content; where several commits left the same content
(absence after two deletes) the earliest that would do is meant, which is never unjust.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, TypeAlias

Key: TypeAlias = str
State: TypeAlias = Any
"""What the store holds for a key; `None` for no row."""
Seen: TypeAlias = dict[Key, int]
"""What a session wrote and was shown: the latest place of each key."""


class Violation(Exception):
    """A promise was broken. The text begins with its name."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Truth:
    """Every state that each key ever had, in the order of the commits."""

    def __init__(self) -> None:
        self._states: dict[Key, list[tuple[int, State]]] = {}
        self._places: dict[tuple[Key, State], list[int]] = {}

    def commit(self, key: Key, state: State, at_us: int) -> int:
        """The key has a new state from now on. Returns its place in the order."""
        states = self._states.setdefault(key, [])
        states.append((at_us, state))
        self._places.setdefault((key, state), []).append(len(states) - 1)
        return len(states) - 1

    def last(self, key: Key) -> State:
        """What the store holds now."""
        return self._states[key][-1][1]

    def place(self, key: Key) -> int:
        """The place of the last commit."""
        return len(self._states[key]) - 1

    def places(self, key: Key, state: State) -> list[int]:
        """Where in the order the key had this state."""
        return self._places.get((key, state), [])

    def replaced_at_us(self, key: Key, place: int) -> int | None:
        """When the state at that place was followed by another; None while it is the last."""
        states = self._states[key]
        return states[place + 1][0] if place + 1 < len(states) else None

    def keys(self) -> list[Key]:
        """All keys that ever had a state."""
        return list(self._states)


@dataclass(frozen=True, slots=True)
class Begun:
    """A read that began: what it may not be older than."""

    key: Key
    least: int
    at_us: int


class History:
    """What operations that have ended are known to have seen.

    `reads_bind`: a read binds those that begin after it (linearizability). Without, only writes do: what
    `Strong(unavailable="store")` promises while a node cannot be reached.
    """

    def __init__(self, truth: Truth, *, reads_bind: bool = True) -> None:
        self.truth = truth
        self.checked = 0
        self._reads_bind = reads_bind
        self._known: dict[Key, int] = defaultdict(int)

    # --- strong ------------------------------------------------------------------------------

    def begin(self, key: Key, now_us: int) -> Begun:
        """A read begins."""
        return Begun(key, self._known[key], now_us)

    def strong(self, begun: Begun, state: State) -> None:
        """A strong read ended. Raises `Violation`."""
        place = self._at_least(begun.key, state, begun.least, "strong")
        if self._reads_bind:
            self._known[begun.key] = max(self._known[begun.key], place)

    def acknowledged(self, key: Key, place: int) -> None:
        """A write was acknowledged: no strong read that begins from now on is older."""
        self._known[key] = max(self._known[key], place)

    # --- session -----------------------------------------------------------------------------

    def begin_in(self, seen: Seen, key: Key, now_us: int) -> Begun:
        """A read of a session begins, which has seen this."""
        return Begun(key, seen.get(key, 0), now_us)

    def in_session(self, seen: Seen, begun: Begun, state: State) -> None:
        """It ended: not older than what this session wrote and read before it began. Raises `Violation`."""
        place = self._at_least(begun.key, state, begun.least, "session")
        self.saw(seen, begun.key, place)

    def saw(self, seen: Seen, key: Key, place: int) -> None:
        """The session wrote this, or was shown it."""
        seen[key] = max(seen.get(key, 0), place)

    # --- bounded and eventual ----------------------------------------------------------------

    def bounded(self, begun: Begun, state: State, staleness_us: int, promise: str = "bounded") -> None:
        """A read ended that may be so much behind the store as of its begin, or says that it is. Raises `Violation`."""
        place = max(self.truth.places(begun.key, state), default=-1)
        replaced_us = None if place < 0 else self.truth.replaced_at_us(begun.key, place)
        self.checked += 1
        if place < 0 or (replaced_us is not None and replaced_us < begun.at_us - staleness_us):
            raise Violation(promise, f"{begun.key} was {state!r}, replaced more than {staleness_us / 1e6:g} s before")

    def eventual(self, begun: Begun, state: State) -> None:
        """A read ended that promises only something that was once committed. Raises `Violation`."""
        self._at_least(begun.key, state, 0, "eventual")

    def joined(self, begun: Begun, state: State) -> None:
        """A read ended with what another call of its process found: begun after what that process wrote. Raises
        `Violation`."""
        self._at_least(begun.key, state, begun.least, "own writes")

    def settled(self, where: str, key: Key, state: State) -> None:
        """Everything is quiet. Raises `Violation` where this is not what the store holds."""
        self.checked += 1
        last = self.truth.last(key)
        if state != last:
            raise Violation("settle", f"{where} gives {state!r} for {key} for good, the store has {last!r}")

    def _at_least(self, key: Key, state: State, least: int, promise: str) -> int:
        self.checked += 1
        places = self.truth.places(key, state)
        for place in places:
            if place >= least:
                return place
        if not places:
            raise Violation(promise, f"{key} was {state!r}, which nobody ever committed")
        raise Violation(
            promise,
            f"{key} was {state!r} (its state {places[-1]}), and before this read began an operation had ended"
            f" that knew its state {least}",
        )
