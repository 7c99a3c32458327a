"""Deeds as a story thinks of them: who reads, writes, dies, and about when."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from cachelib.testing.sim.profile import Deed, Profile

Deeds: TypeAlias = tuple[Deed, ...]
MS = 1_000


class Script:
    """Deeds, as they are thought of."""

    def __init__(self, random: Random, profile: Profile) -> None:
        self.random = random
        self.clients = len(profile.skews_us)
        self.groups = profile.groups
        self.deeds: list[Deed] = []
        self._tag = 100

    def at(self, us: float, kind: str, who: int, *what: Any) -> None:
        """Something happens."""
        self.deeds.append(Deed(int(us), kind, who, what, self.random.getrandbits(30)))

    def some(self, count: int, first_us: float, last_us: float, doing: Callable[[float], None]) -> None:
        """Several times, between these."""
        for _ in range(count):
            doing(self.random.uniform(first_us, last_us))

    def anybody(self) -> int:
        """A client."""
        return self.random.randrange(self.clients)

    def read(self, us: float, kind: str = "row", number: int = 0, who: int | None = None) -> None:
        """A client reads."""
        self.at(us, "read", self.anybody() if who is None else who, kind, number)

    def write(self, us: float, number: int = 0, who: int | None = None, fate: str = "well") -> None:
        """A client writes, now and then deletes, through the library."""
        self._tag += 1
        who, grp = self.anybody() if who is None else who, self.random.randrange(self.groups)
        if self.random.random() < 0.1:
            self.at(us, "delete", who, number, fate)
        else:
            self.at(us, "write", who, number, grp, self._tag, fate)

    def user_write(self, us: float, number: int = 0, who: int | None = None) -> None:
        """A user writes through a client."""
        self._tag += 1
        who, grp = self.anybody() if who is None else who, self.random.randrange(self.groups)
        self.at(us, "user_write", who, 0, number, grp, self._tag, "well")

    def write_past(self, us: float, number: int = 0, who: int | None = None, *, gone: bool = False) -> None:
        """Somebody writes who knows no cache."""
        self._tag += 1
        grp = self.random.randrange(self.groups)
        self.at(us, "write_past", self.anybody() if who is None else who, number, grp, None if gone else self._tag)

    def write_past_any(self, us: float) -> None:
        """The same, some row."""
        self.write_past(us, self.random.randrange(3))

    def warm(self, us: float = 0) -> None:
        """Every client reads every key: all is cached, by everybody's names."""
        for who in range(self.clients):
            for kind, number in (*(("row", at) for at in range(3)), *(("list", at) for at in range(self.groups))):
                self.read(us + 2 * MS * self.random.random(), kind, number, who)

    def done(self) -> Deeds:
        """In their order."""
        return tuple(sorted(self.deeds, key=lambda deed: deed.at_us))
