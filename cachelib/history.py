"""What a session has seen: for each key the version, or the time, below which it must not be shown anything any more.

Kept small, as it travels in headers: at most `KEYS_MAX` keys. Of a key that is dropped remains a time:

- Where a server keeps it, what that shows only moves forward (I1, I2), as long as the same start of the server answers
  under the same names in the same layout: a *binding*. Under a binding that the session had met before the key was
  dropped, nothing has to be asked; under one that it meets later, a load that began after the key was dropped (a
  server may have come back old, or a slot moved).
- Where the server that keeps it is no longer asked (the session has left its binding for another start of the server,
  another layout or another cache), a load that began after the session had left it.
- Where no server is known to keep it (an own load that was not stored, a write that was not confirmed), a load
  that began after it was dropped, everywhere (`past_us`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock

from cachelib.levels import Ground, session_ground
from cachelib.model import ANY, Requirement, Version
from cachelib.port import Found

KEYS_MAX = 64
BINDINGS_MAX = 12
UNBOUND = 0
START_BITS = 24
"""Of a binding: which start of a server. The bits above are its spot: which layout, and which part of the names."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Of one key: at least this version, or (version 0) loaded at this time of the store's clock or later.

    That time is when it was seen. Of the load behind it only a time before its snapshot is known, and of two loads the
    one whose clock was read first may have the later snapshot.
    """

    version: Version = 0
    as_of_us: int = 0
    binding: int = UNBOUND
    """Where it was seen or told: what is fresh there is not older (I1, I2), whenever it was loaded."""

    @property
    def requirement(self) -> Requirement:
        """What the key's item has to be."""
        return Requirement(min_version=self.version) if self.version else Requirement(min_as_of_us=self.as_of_us)


def key_mark(entity: str, text: bytes) -> int:
    """A key in 48 bits: two that meet cost a load."""
    return int.from_bytes(hashlib.blake2b(entity.encode() + b"\0" + text, digest_size=6).digest(), "big")


def binding_of(start: str, number: int, name: bytes, text: bytes) -> int:
    """The layout and the part of a name before the key (the spot), and the start of a server that keeps those names,
    in 48 bits; never `UNBOUND`. Two spots that meet cost loads."""
    return (_hash24(b"%d\0" % number + name[: len(name) - len(text)]) << START_BITS | _hash24(start.encode())) or 1


@dataclass(frozen=True, slots=True)
class Parts:
    """What a token carries of a history."""

    layout: int
    place: int
    since_us: int
    past_us: int
    seen_us: int
    left_us: int
    bindings: Mapping[int, int]
    marks: Mapping[int, Mark]


class History:
    """See the module. Safe across threads."""

    def __init__(self, store: str) -> None:
        self.store = store
        """Whose versions and times these are."""
        self.layout = 0
        """The number of the latest layout met."""
        self.place = 0
        """The cache that was met last."""
        self.marks: OrderedDict[int, Mark] = OrderedDict()
        self.since_us = self.past_us = 0
        """When a key was dropped last, and when one that no server is known to keep."""
        self.seen_us = self.left_us = 0
        """When anything was seen or written last, and when that was as a binding was left last: what is marked with a
        binding that was left was seen by then."""
        self.bindings: dict[int, int] = {}
        """The bindings met, each with what was `since_us` then; of each spot the start that was met last."""
        self._lock = Lock()

    def of_store(self, store: str) -> None:
        """The store is another one by now, or has another past: what was seen of the old one says nothing."""
        with self._lock:
            if store != self.store:
                self.store = store
                self._forget()

    def meet(self, binding: int, number: int, place: int = 0) -> int:
        """A read under this binding and layout begins; the binding that counts. An older layout binds nobody: a
        process that lags behind may see a server that another one no longer asks. `place`: of which cache it is; what
        was dropped in one cache may be older in another, though the session has met that before."""
        with self._lock:
            if number > self.layout or (number == self.layout and place != self.place):
                self.layout, self.place = number, place
                self._leave(self.bindings)
            if number < self.layout or binding == UNBOUND:
                return UNBOUND
            if binding not in self.bindings:
                # A server came back, maybe old: what its earlier start kept and is dropped only later, it may not keep.
                spot = binding >> START_BITS
                self._leave([other for other in self.bindings if other >> START_BITS == spot])
                if len(self.bindings) >= BINDINGS_MAX:
                    self._leave(self.bindings)
                self.bindings[binding] = self.since_us
            return binding

    def ground(self, key: int, binding: int) -> tuple[Ground, Mark | None]:
        """What a read of the key stands on under a binding that was met, and the mark to give back to `saw`."""
        with self._lock:
            latest_us = max(self.past_us, self.since_us)
            mark = self.marks.get(key)
            if mark is not None:
                at_home = not mark.version and mark.binding == binding != UNBOUND
                asks = ANY if at_home else mark.requirement
                return session_ground(asks, max(latest_us, mark.as_of_us)), mark
            least_us = max(self.past_us, self.bindings.get(binding, self.since_us))
            return session_ground(Requirement(min_as_of_us=least_us) if least_us else ANY, latest_us), None

    def saw(self, key: int, before: Mark | None, found: Found, binding: int, now_us: int) -> None:
        """A read has ended. `now_us`: the store's clock is not later."""
        kept = found.source in ("hit", "filled") or found.kept
        with self._lock:
            at = binding if kept and binding in self.bindings else UNBOUND  # else it was left meanwhile
            mark = Mark(found.version, 0, at) if found.version else Mark(0, now_us, at)
            other = self.marks.get(key)
            if other is not None and other is not before:  # another call of this session went by meanwhile
                mark = _both(other, mark, now_us)
            elif other is not None and other.version > mark.version > 0:
                mark = other  # the store does not know what was seen; whoever asks finds out why
            self._put(key, mark, now_us)

    def wrote(self, marks: Mapping[int, Mark], now_us: int) -> None:
        """Own writes are committed; where the cache has not answered (yet), their marks are unbound."""
        with self._lock:
            for key, mark in marks.items():
                other = self.marks.get(key)
                newer = other is not None and 0 < mark.version < other.version
                self._put(key, other if newer and other is not None else mark, now_us)

    def told(self, marks: Mapping[int, Mark], bindings: Mapping[int, int]) -> None:
        """The cache has confirmed these writes."""
        with self._lock:
            for key, mark in marks.items():
                if self.marks.get(key) is mark and bindings.get(key, UNBOUND) in self.bindings:
                    self.marks[key] = Mark(mark.version, mark.as_of_us, bindings[key])

    def wrote_all(self, now_us: int) -> None:
        """More was written than can be named, or nobody knows what."""
        with self._lock:
            self._forget()
            self.past_us = now_us

    def strong_least_us(self, key: int) -> int:
        """For an entity that is read as strong: only what was not confirmed has to be asked for."""
        with self._lock:
            mark = self.marks.get(key)
            return self.past_us if mark is None else mark.as_of_us

    def parts(self) -> Parts:
        """A copy of it all."""
        with self._lock:
            times = self.since_us, self.past_us, self.seen_us, self.left_us
            return Parts(self.layout, self.place, *times, dict(self.bindings), dict(self.marks))

    def restore(self, parts: Parts) -> None:
        """What `parts` gave."""
        with self._lock:
            self.layout, self.place = parts.layout, parts.place
            self.since_us, self.past_us = parts.since_us, parts.past_us
            self.seen_us, self.left_us = parts.seen_us, parts.left_us
            self.bindings, self.marks = dict(parts.bindings), OrderedDict(parts.marks)

    # --- how ---------------------------------------------------------------------------------

    def _leave(self, bindings: Iterable[int]) -> None:
        for binding in list(bindings):
            del self.bindings[binding]
            self.left_us = self.seen_us

    def _put(self, key: int, mark: Mark, now_us: int) -> None:
        self.seen_us = max(self.seen_us, now_us)
        self.marks[key] = mark
        self.marks.move_to_end(key)
        if len(self.marks) <= KEYS_MAX:
            return
        for _ in range(KEYS_MAX // 2):
            _, dropped = self.marks.popitem(last=False)
            self.since_us = now_us
            if dropped.binding == UNBOUND:
                self.past_us = now_us
            elif dropped.binding not in self.bindings:
                self._drop_left(dropped.binding >> START_BITS)

    def _drop_left(self, spot: int) -> None:
        """What was seen under a binding that was left: a load is newer that began after it was left."""
        heir = next((binding for binding in self.bindings if binding >> START_BITS == spot), UNBOUND)
        if heir == UNBOUND:
            self.past_us = max(self.past_us, self.left_us)
        else:  # only there the key is asked for; elsewhere the drop itself counts
            self.bindings[heir] = max(self.bindings[heir], self.left_us)

    def _forget(self) -> None:
        self.marks.clear()
        self.bindings.clear()
        self.since_us = self.past_us = self.seen_us = self.left_us = 0


def _hash24(plain: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(plain, digest_size=3).digest(), "big")


def _both(one: Mark, other: Mark, now_us: int) -> Mark:
    """At least as new as both."""
    if one.version and other.version:
        return max(one, other, key=lambda mark: mark.version)
    if not one.version and not other.version and one.binding == other.binding != UNBOUND:
        return max(one, other, key=lambda mark: mark.as_of_us)
    return Mark(0, now_us)
