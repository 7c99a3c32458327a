"""`explain` says what the next read would do, and the next read does it."""

from __future__ import annotations

from typing import Any

import pytest

from cachelib.entity import Entity
from cachelib.envelope import encode
from cachelib.explain import explain
from cachelib.item import apply
from cachelib.model import ABSENCE, Get, Held, Hit, Item, Leased, value_of
from cachelib.plans import plan_of
from cachelib.policy import Eventual, Level, Mode, Strong
from cachelib.readplan import ReadPlan

NOW = 1_000_000
ORDERS = Entity("order:{id}", table="orders", stale_ttl="30s")
FRESH = Item(value_of(ORDERS.packer.pack("v", 99)), known=True, version=5, floor=5, as_of_us=7, expires_ms=NOW + 9)
HELD: dict[str, Any] = {"lease": 9, "lease_until_ms": NOW + 400}


def plan(level: Level | None = None, mode: Mode = Mode.ON, names: tuple[bytes, ...] = (b"n/e.t/order:7",)) -> ReadPlan:
    return plan_of(ORDERS, 7, names, mode, level or Eventual())


MOVING = plan(Strong(), names=(b"a", b"b"))

VERDICTS: list[tuple[str, ReadPlan, Item | None, str, str]] = [
    ("no item", plan(), None, "miss", "no item"),
    ("value", plan(), FRESH, "hit", "a value of version 5"),
    ("absence", plan(), FRESH.but(content=ABSENCE), "hit", "absence of version 5"),
    ("near its end", plan(), FRESH.but(soft_expire_ms=NOW), "refresh", "near its end"),
    ("refreshed by another", plan(), FRESH.but(soft_expire_ms=NOW, **HELD), "hit", "a value"),
    ("floor", plan(), FRESH.but(floor=6), "miss", "version 5 and the floor is 6"),
    ("void", plan(), FRESH.but(void=True), "miss", "revoked"),
    ("lease only", plan(), Item(**HELD, expires_ms=NOW + 9), "wait", "400 ms more"),
    ("dead lease", plan(), Item(lease=9, lease_until_ms=NOW - 1), "miss", "nobody holds the lease"),
    ("stale", plan(), FRESH.but(void=True, stale_until_ms=NOW + 1, **HELD), "stale", "the stale content is shown"),
    ("too stale", plan(), FRESH.but(void=True, stale_until_ms=NOW, **HELD), "wait", "revoked"),
    ("strong never stale", plan(Strong()), FRESH.but(void=True, stale_until_ms=NOW + 1, **HELD), "wait", "revoked"),
    ("bypass", plan(mode=Mode.BYPASS), FRESH, "bypass", "mode is bypass"),
    ("no_fill hit", plan(mode=Mode.NO_FILL), FRESH, "hit", "a value"),
    ("no_fill due", plan(mode=Mode.NO_FILL), FRESH.but(soft_expire_ms=NOW), "hit", "a value"),
    ("no_fill miss", plan(mode=Mode.NO_FILL), FRESH.but(void=True), "miss", "no_fill"),
    ("moving", MOVING, FRESH, "bypass", "layout is changing"),
]


@pytest.mark.parametrize(
    ("reader", "item", "verdict", "says"), [pytest.param(*case[1:], id=case[0]) for case in VERDICTS]
)
def test_each_verdict_and_its_reason(reader: ReadPlan, item: Item | None, verdict: str, says: str) -> None:
    explanation = explain(reader, None if item is None else encode(item), NOW)
    assert explanation.verdict == verdict
    assert says in explanation.why
    assert explanation.item == item


@pytest.mark.parametrize(
    ("reader", "item", "verdict"),
    [
        pytest.param(case[1], case[2], case[3], id=case[0])
        for case in VERDICTS
        if case[1].mode is Mode.ON and case[1] is not MOVING
    ],
)
def test_the_verdict_is_what_the_machine_does(reader: ReadPlan, item: Item | None, verdict: str) -> None:
    _, answer = apply(item, Get(1, 100, reader.requirement), NOW)
    kinds = {"hit": Hit, "refresh": Leased, "miss": Leased, "wait": Held, "stale": Held}
    assert isinstance(answer, kinds[verdict])


OTHERS = {schema: Entity("order:{id}", table="orders", schema=schema).packer for schema in (0, 1, 2)}
MIDDLE = Entity("order:{id}", table="orders", schema=1)


@pytest.mark.parametrize(
    ("schema", "verdict", "says"),
    [(0, "unreadable", "the next read voids it"), (1, "hit", "a value"), (2, "bypass", "left to the program")],
)
def test_a_value_of_another_codec_is_not_said_to_be_a_hit(schema: int, verdict: str, says: str) -> None:
    """A fresh item whose value this program does not read: it is voided, or the store is asked, and never shown."""
    item = FRESH.but(content=value_of(OTHERS[schema].pack("v", 99)))
    reader = plan_of(MIDDLE, 7, (b"n/e.t/order:7",), Mode.ON, Eventual())
    explanation = explain(reader, encode(item), NOW)
    assert explanation.verdict == verdict
    assert says in explanation.why


def test_bytes_that_are_no_item_are_unreadable() -> None:
    explanation = explain(plan(), b"garbage", NOW)
    assert (explanation.verdict, explanation.item) == ("unreadable", None)
    assert "the next read voids it" in explanation.why


def test_an_explanation_is_readable_text() -> None:
    item = FRESH.but(floor_gone=True, floor=6, **HELD)
    text = str(explain(plan(), encode(item), NOW))
    assert text.startswith("n/e.t/order:7: wait")
    for part in ("value, 7 bytes", "floor 6 (a delete set it)", "lease        0x9", "store's clock", "stale until –"):
        assert part in text


def test_an_explanation_of_nothing_is_one_line() -> None:
    assert str(explain(plan(), None, NOW)).count("\n") == 0
