"""What an item is, and why the next read would hit, miss or wait: for a person on call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cachelib.envelope import decode
from cachelib.errors import DecodeError, LaterCodec
from cachelib.item import leased, may_serve_stale, refresh_due, serves
from cachelib.model import Item, Kind
from cachelib.policy import Mode
from cachelib.readplan import ReadPlan


@dataclass(frozen=True, slots=True)
class Explanation:
    """`verdict`: hit, refresh, miss, wait, stale, bypass or unreadable. `why`: one sentence.

    `item`: what the node keeps; None if it keeps nothing, or nothing readable.
    """

    name: bytes
    verdict: str
    why: str
    item: Item | None

    def __str__(self) -> str:
        lines = [f"{self.name.decode()}: {self.verdict} — {self.why}"]
        return "\n".join(lines + ([] if self.item is None else _fields(self.item)))


def explain(plan: ReadPlan, raw: bytes | None, now_ms: int) -> Explanation:
    """Say what a read by this plan would do."""
    item = None
    if raw is not None:
        try:
            item = decode(raw)
        except DecodeError as error:
            return Explanation(plan.name, "unreadable", f"{error}; the next read voids it and loads", None)
    verdict, why = _verdict(plan, item, now_ms)
    return Explanation(plan.name, verdict, why, item)


def _verdict(plan: ReadPlan, item: Item | None, now_ms: int) -> tuple[str, str]:
    if plan.mode is Mode.BYPASS:
        return "bypass", "the entity's mode is bypass: reads ask the store"
    if plan.strong and len(plan.names) > 1:
        return "bypass", "the layout is changing: strong reads of this key ask the store until it has settled"
    if item is None:
        return "miss", "there is no item: the next read takes the lease and loads"
    if serves(item, plan.requirement):
        return _serving(plan, item, now_ms)
    why = _not_fresh(item)
    if plan.mode is Mode.NO_FILL:
        return "miss", f"{why}; the entity's mode is no_fill: reads ask the store and fill nothing"
    if not leased(item, now_ms):
        return "miss", f"{why}; nobody holds the lease: the next read takes it and loads"
    if plan.stale and may_serve_stale(item, now_ms):
        return "stale", f"{why}; somebody loads it, and meanwhile the stale content is shown"
    left_ms = item.lease_until_ms - now_ms
    return "wait", f"{why}; somebody holds the lease for up to {left_ms} ms more: the next read waits"


def _serving(plan: ReadPlan, item: Item, now_ms: int) -> tuple[str, str]:
    if item.content.kind is Kind.VALUE:
        try:
            plan.decode(item.content.payload)
        except LaterCodec as error:
            return "bypass", f"{error}: the item is left to the program that wrote it, and reads ask the store"
        except DecodeError as error:
            return "unreadable", f"{error}; the next read voids it and loads"
    if refresh_due(item, now_ms) and plan.mode is Mode.ON:
        return "refresh", "the item serves and is near its end: the next read refreshes it early"
    what = "absence" if item.content.kind is Kind.ABSENCE else "a value"
    return "hit", f"{what} of version {item.version} is fresh"


def _not_fresh(item: Item) -> str:
    if item.content.kind is Kind.NONE:
        return "the item holds no content"
    if item.void:
        return "the content was revoked"
    if item.version < item.floor:
        return f"the content has version {item.version} and the floor is {item.floor}"
    return "the content is fresh, but older than was asked"


def _fields(item: Item) -> list[str]:
    kind = item.content.kind.name.lower()
    return [
        f"  content      {kind}, {len(item.content.payload)} bytes, void={item.void}, known={item.known}",
        f"  version      {item.version}   floor {item.floor}{' (a delete set it)' if item.floor_gone else ''}",
        f"  lease        {item.lease:#x} until {_time(item.lease_until_ms)}",
        f"  as of        {_time(item.as_of_us // 1000)} (store's clock)",
        f"  refresh from {_time(item.soft_expire_ms)}   stale until {_time(item.stale_until_ms)}"
        f"   ends {_time(item.expires_ms)}",
    ]


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else "–"
