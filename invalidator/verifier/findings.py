"""What was found to be stale: the whole item, and why. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from cachelib.compare import Difference, Truth
from cachelib.model import Item
from invalidator.verifier.checks import Check

Why: TypeAlias = Literal["lag", "drop", "race", "went_back", "broken"]
"""`lag`: the node has not been told of the change yet. `drop`: it was told, and holds what was loaded before.
`race`: it was told, and what it holds came in afterwards. `went_back`: it is ahead of the store. `broken`: its own
floor forbids what a client would serve."""

EXPLAINED: dict[str, str] = {
    "lag": "the invalidator has not told this node of the change yet",
    "drop": "the node was told of the change, and yet its item was loaded before: the invalidation was lost, or what"
    " was loaded then came in late, before the first look",
    "race": "the item came in after the node was told of the change, and is from before: a rule is broken",
    "went_back": "the item is ahead of the store: the store went back, or something was cached that never committed",
    "broken": "the item's own floor or void mark forbids it, and a client would serve it all the same",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One key of one node that served what the store no longer had.

    `age_s`: for at least so long. `after`: at which age of the change it was asked. `told`: the node's position
    includes the change.
    """

    node: str
    name: bytes
    check: Check
    item: Item
    truth: Truth
    difference: Difference
    why: Why
    after: str
    age_s: float
    told: bool
    at_us: int

    def plain(self) -> dict[str, Any]:
        """As JSON has it: all but the value itself, which nobody wants in a log."""
        item, truth, known = self.item, self.truth, self.check.known
        return {
            "node": self.node,
            "key": self.check.text.decode(),
            "name": self.name.decode(),
            "entity": self.check.entity.name,
            "found": _time(self.at_us // 1000),
            "after": self.after,
            "stale_for_s": round(self.age_s, 3),
            "difference": self.difference,
            "why": self.why,
            "because": EXPLAINED[self.why],
            "change": {
                "version": known.version,
                "gone": known.gone,
                "made": _time(self.check.at_us // 1000),
                "place": ":".join(self.check.place) if self.check.place else None,
                "told": self.told,
            },
            "item": _plain_item(item),
            "store": {"found": truth.found, "version": truth.version, "as_of": _time(truth.as_of_us // 1000)},
        }


def why(check: Check, node: str, item: Item, difference: Difference, *, told: bool) -> Why:
    """The cause, from the item's fields and from what the node was told before the item was read."""
    if item.void or item.version < item.floor:
        return "broken"
    if difference == "newer":
        return "went_back"
    version = check.known.version
    if difference == "differs" and version and item.version >= version:
        return "race"  # the right version with another row's or another moment's content
    if node in check.cleared or (version and check.newest.get(node, 0) >= version):
        return "race"  # it was gone, or newer, at an earlier age
    if not told:
        return "lag"
    return "race" if check.at_us and item.as_of_us >= check.at_us else "drop"


class Findings:
    """The first, the last, and a few before it."""

    def __init__(self, kept: int = 20, keys_max: int = 100_000) -> None:
        self.number = 0
        self.alarms = 0
        self.first: Finding | None = None
        self.recent: deque[Finding] = deque(maxlen=kept)
        self._keys: set[tuple[str, bytes]] = set()
        self._keys_max = keys_max

    def add(self, finding: Finding, *, alarm: bool) -> None:
        """One more. `alarm`: no invalidator that is merely late explains it."""
        self.number += 1
        self.alarms += alarm
        self.first = self.first or finding
        self.recent.append(finding)
        if len(self._keys) < self._keys_max:
            self._keys.add((finding.node, finding.name))

    @property
    def keys(self) -> int:
        """How many keys it was, each counted once for each node; so many at least."""
        return len(self._keys)

    @property
    def last(self) -> Finding | None:
        """The latest."""
        return self.recent[-1] if self.recent else None


def _plain_item(item: Item) -> dict[str, Any]:
    return {
        "content": item.content.kind.name.lower(),
        "bytes": len(item.content.payload),
        "void": item.void,
        "known": item.known,
        "version": item.version,
        "floor": item.floor,
        "floor_gone": item.floor_gone,
        "lease": f"{item.lease:#x}" if item.lease else None,
        "lease_until": _time(item.lease_until_ms),
        "refresh_from": _time(item.soft_expire_ms),
        "as_of": _time(item.as_of_us // 1000),
        "stale_until": _time(item.stale_until_ms),
        "ends": _time(item.expires_ms),
    }


def _time(ms: int) -> str | None:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else None
