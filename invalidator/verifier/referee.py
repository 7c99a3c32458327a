"""Asks the store about what looks stale, never for more than its budget allows, and decides. Nothing is alarmed
by one reading that could have been overtaken: what is in doubt is looked at again."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cachelib.budget import Rate
from cachelib.compare import Known, Truth, certainly_stale, difference, identity
from cachelib.entity import Entity
from cachelib.errors import CacheError, StoreError
from cachelib.keys import Key
from cachelib.layout import Layout
from cachelib.model import Item, Kind, Name
from invalidator.verifier.checks import Check
from invalidator.verifier.findings import Finding, why
from invalidator.verifier.tallies import Outcome

HOT = "hot"
"""The age of keys that are compared in turn, whatever happened to them."""
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Suspect:
    """An item that may be stale, as it was read at `asked_s`."""

    check: Check
    node: str
    name: Name
    item: Item
    after: str
    asked_s: float
    told: bool


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of a suspect. `finding` where it is stale; `again`: where it has to be looked at once more."""

    suspect: Suspect
    outcome: Outcome
    finding: Finding | None = None
    again: Check | None = None


class Asked(Protocol):
    """`cachelib.truths.Truths`."""

    def knows(self, entity: Entity) -> bool:
        """Whether there is anything to ask."""

    def of(self, entity: Entity, keys: Sequence[Key]) -> list[Truth]:
        """What the store has. Raises `CacheError`."""


class Referee:
    """`loads_per_s`: keys that the store is asked for, at most. `most`: suspects that wait for it, at most."""

    def __init__(
        self,
        truths: Asked,
        namespace: str,
        *,
        loads_per_s: float,
        most: int,
        absent_after_s: float,
        store_us: Callable[[], int],
        clock_s: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._truths = truths
        self._namespace = namespace
        self._rate = Rate(loads_per_s, clock_s())
        self._most = most
        self._absent_after_s = absent_after_s
        self._store_us = store_us
        self._clock_s = clock_s
        self._now_us = now_us
        self._waiting: deque[Suspect] = deque()
        self.loads = self.failed_loads = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, suspect: Suspect) -> Ruling | None:
        """Have it wait for the store; or say at once that it stays open."""
        young = suspect.asked_s - suspect.check.since_s < self._absent_after_s
        absent = suspect.item.content.kind is Kind.ABSENCE
        # A row that is gone again leaves absence, too: most resolve by themselves before the store need be asked.
        if absent and not suspect.item.version and young and suspect.after != HOT:
            return Ruling(suspect, "unresolved")
        if len(self._waiting) >= self._most or not self._truths.knows(suspect.check.entity):
            return Ruling(suspect, "unresolved")
        self._waiting.append(suspect)
        return None

    def drop(self) -> list[Ruling]:
        """What waits stays open."""
        dropped = [Ruling(one, "unresolved") for one in self._waiting]
        self._waiting.clear()
        return dropped

    def rule(self, layout: Callable[[], Layout]) -> list[Ruling]:
        """Decide about as many as the budget allows now. `layout` reads it anew. Raises `StoreError`."""
        chosen: list[Suspect] = []
        loads: dict[Entity, dict[bytes, Key]] = defaultdict(dict)
        while self._waiting and len(chosen) < _BATCH:
            check = self._waiting[0].check
            if check.text not in loads[check.entity]:
                if self._rate.take(1, self._clock_s()):
                    break
                loads[check.entity][check.text] = check.key
            chosen.append(self._waiting.popleft())
        if not chosen:
            return []
        try:
            truths = self._load(loads)
            now = layout()  # read after the items: a name that is current still was so then, for none comes back
        except StoreError:
            self._waiting.extendleft(reversed(chosen))
            raise
        return [self._rule(one, truths.get((one.check.entity, one.check.text)), now) for one in chosen]

    def _load(self, loads: dict[Entity, dict[bytes, Key]]) -> dict[tuple[Entity, bytes], Truth]:
        truths: dict[tuple[Entity, bytes], Truth] = {}
        for entity, keys in loads.items():
            if not keys:
                continue
            self.loads += len(keys)
            try:
                found = self._truths.of(entity, list(keys.values()))
            except StoreError:
                raise
            except CacheError:  # this entity's loader: the others go on
                self.failed_loads += len(keys)
                continue
            truths.update({(entity, text): truth for text, truth in zip(keys, found, strict=True)})
        return truths

    def _rule(self, suspect: Suspect, truth: Truth | None, layout: Layout) -> Ruling:
        check, item, node = suspect.check, suspect.item, suspect.node
        if layout.names(self._namespace, check.entity.name, check.text) != (suspect.name,):
            return Ruling(suspect, "moved")
        if truth is None:
            return Ruling(suspect, "unresolved")
        found = difference(item, truth, check.entity.packer.unpack)
        if found is None:
            return Ruling(suspect, "fresh")
        doubted = check.doubted.get(node) == identity(item)
        # One version has one content, whenever either was read.
        mixed = found == "differs" and truth.version != 0
        if not (mixed or doubted or (suspect.after != HOT and certainly_stale(item, check.known, truth))):
            return Ruling(suspect, "unresolved", again=None if check.rechecks else self._doubt(suspect, truth))
        cause = why(check, node, item, found, told=suspect.told)
        age_s = 0.0 if suspect.after == HOT else suspect.asked_s - check.since_s
        made = Finding(
            node, suspect.name, check, item, truth, found, cause, suspect.after, age_s, suspect.told, self._now_us()
        )
        return Ruling(suspect, "stale", made)

    def _doubt(self, suspect: Suspect, truth: Truth) -> Check:
        """The store differs, but it may have changed since the item was read: is the same item still there later?"""
        check = suspect.check
        return Check(
            entity=check.entity,
            key=check.key,
            text=check.text,
            known=Known(truth.version, not truth.found, truth.as_of_us),
            since_s=self._clock_s(),
            shown_us=self._store_us(),
            doubted={suspect.node: identity(suspect.item)},
            rechecks=True,
        )
