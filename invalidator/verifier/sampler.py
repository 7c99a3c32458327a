"""Which changes are looked at, and which keys change most. Neither reads nor asks anything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cachelib.compare import Known
from cachelib.effects import Effect, effects
from cachelib.errors import BadKey
from invalidator.rules import Rules
from invalidator.sources.base import Event
from invalidator.verifier.checks import Check


class Sampler:
    """So many changes a second, chosen by chance among those of each poll; a burst may use what a second left over."""

    def __init__(self, rules: Rules, per_s: float, chance: random.Random, now_s: float) -> None:
        self._rules = rules
        self._per_s = per_s
        self._chance = chance
        self._saved = float(per_s)
        self._at_s = now_s

    def choose(self, events: Sequence[Event], now_s: float) -> list[Event]:
        """Some of these changes, in their order. Of a table that nobody caches there is nothing to ask."""
        self._saved = min(self._per_s, self._saved + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        concerning = [one for one in events if one.change.table in self._rules.tables and one.change.op != "truncate"]
        most = min(len(concerning), int(self._saved))
        self._saved -= most
        if most == len(concerning):
            return concerning
        return [concerning[at] for at in sorted(self._chance.sample(range(len(concerning)), most))]

    def checks(self, event: Event, readable_us: int, now_s: float) -> list[Check]:
        """What a change, readable since `readable_us` of the store's clock, says of each of its keys."""
        found: list[Effect] = []
        for entity in self._rules.tables.get(event.change.table, ()):
            try:
                found += effects(entity, event.change)
            except BadKey:
                continue  # the daemon gives the whole entity a new epoch
        return [
            Check(
                entity=one.entity,
                key=one.key,
                text=one.text,
                known=Known(one.version, one.entity.table is not None and event.change.op == "delete", readable_us),
                since_s=now_s,
                place=(event.partition, event.position),
                at_us=event.change.at_us,
            )
            for one in found
        ]


@dataclass(slots=True)
class _Hot:
    times: int
    check: Check


class HotKeys:
    """The keys that change most: "space saving" (Metwally and others, 2005), which never misses a frequent one.

    Each is kept with what is known of it last.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: dict[tuple[str, bytes], _Hot] = {}
        self._turn: list[tuple[str, bytes]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def saw(self, check: Check) -> None:
        """The key has changed once more."""
        if not self._most:
            return
        at = check.entity.name, check.text
        hot = self._keys.get(at)
        if hot is None:
            times = 0
            if len(self._keys) >= self._most:
                least = min(self._keys, key=lambda one: self._keys[one].times)
                times = self._keys.pop(least).times  # it may have been as frequent as the one that goes
            hot = self._keys[at] = _Hot(times, check)
        hot.times += 1
        hot.check = check

    def turn(self, number: int) -> list[Check]:
        """The next so many, in turn."""
        found: list[Check] = []
        while self._keys and len(found) < min(number, len(self._keys)):
            if not self._turn:
                self._turn = list(self._keys)
            hot = self._keys.get(self._turn.pop())
            if hot is not None:
                found.append(hot.check)
        return found
