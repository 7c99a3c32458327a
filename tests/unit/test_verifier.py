"""The verifier's loop over fakes: what is a finding, what is only a doubt, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cachelib.compare import Known, Truth
from cachelib.entity import Entity
from cachelib.envelope import encode
from cachelib.keys import Key
from cachelib.layout import with_new_epochs
from cachelib.model import ABSENCE, Content, Item, RowChange, value_of
from invalidator.metrics import Metrics
from invalidator.settings import VerifySettings
from invalidator.sources.base import Event
from invalidator.sources.outbox import Outbox
from invalidator.verifier.checks import Check, Ladder
from invalidator.verifier.nines import nines, upper_bound
from invalidator.verifier.probe import Probe
from invalidator.verifier.report import report, told
from invalidator.verifier.sampler import HotKeys, Sampler
from invalidator.verifier.service import Verifier
from invalidator.verifier.service import World as Looked
from tests.unit.invalidator_world import CUSTOMERS, NAMESPACE, ORDERS_OF, World

AGES = ("1s", "10s", "1m")


def packed(value: str) -> Content:
    return value_of(CUSTOMERS.packer.pack(value, 1000))


class FakeTruths:
    """What the store has, by key; and how often it was asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: dict[Key, int] = {}
        self.lists: dict[Key, str] = {}
        self.asked: list[Key] = []

    def knows(self, entity: Entity) -> bool:
        return True

    def of(self, entity: Entity, keys: Sequence[Key]) -> list[Truth]:
        self.asked += keys
        return [self._of(entity, key) for key in keys]

    def _of(self, entity: Entity, key: Key) -> Truth:
        now_us = self.world.clock.us()
        if entity is ORDERS_OF:
            return Truth(True, 0, packed(self.lists.get(key, "none")), now_us)
        version = self.rows.get(key)
        if version is None:
            return Truth(False, 0, ABSENCE, now_us)
        return Truth(True, version, packed("x"), now_us)


class Watched:
    """A verifier beside the world's daemon; `turn` lets time pass for it only."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.world = World(*names)
        self.world.store.version = 10
        self.world.go()
        self.truths = FakeTruths(self.world)
        clock = self.world.clock
        log = self.world.service.log
        probes = [Probe(name, node, NAMESPACE, "invalidator", log, clock) for name, node in self.world.nodes.items()]
        source = Outbox(self.world.store, "invalidator", self.world.store.log_end())  # type: ignore[arg-type]
        self.verifier = Verifier(
            Looked(self.world.store, source, probes, self.world.rules, self.truths),  # type: ignore[arg-type]
            replace(VerifySettings(after=AGES, hot=0, poll_s=0.0), **settings),
            NAMESPACE,
            metrics=Metrics(),
            log=log,
            chance=random.Random(1),
            clock_s=clock,
            now_ms=clock.ms,
        )

    def change(self, op: str = "update", **fields: Any) -> RowChange:
        """A commit that the verifier reads at once; the daemon does not yet."""
        change = self.world.store.change(op, **fields)
        if op != "delete" and change.table == "customers":
            self.truths.rows[change.key["id"]] = change.version or 0
        self.verifier.turn()
        return change

    def turn(self, seconds: float) -> None:
        self.world.clock.now_s += seconds
        self.verifier.turn()

    def plant(self, item: Item, text: str = "customers:7", node: str = "a") -> None:
        lives = item.but(expires_ms=self.world.clock.ms() + 3_600_000)
        self.world.node(node).plant(self.world.name_of(text), encode(lives))

    def row(self, age: str) -> dict[str, Any]:
        return next(one for one in self.verifier.tallies.rows() if one["after"] == age)

    @property
    def found(self) -> list[tuple[str, str, str]]:
        return [(one.after, one.difference, one.why) for one in self.verifier.findings.recent]


def old(version: int = 0, **fields: Any) -> Item:
    return Item(packed("x"), version=version, known=version > 0, floor=version, **fields)


def test_what_is_as_new_as_the_change_costs_no_load() -> None:
    watched = Watched("a", "b")
    version = watched.change().version or 0
    for node in ("a", "b"):
        watched.plant(old(version), node=node)
    for seconds in (1, 9, 50):
        watched.turn(seconds)
    assert [watched.row(age)["served"] for age in AGES] == [2, 2, 2]
    assert watched.truths.asked == []
    assert watched.found == []


def test_a_node_that_was_not_told_lags() -> None:
    watched = Watched()
    watched.plant(old(1))
    watched.change()
    watched.turn(1)
    assert watched.found == [("1s", "older", "lag")]
    assert watched.verifier.findings.alarms == 0
    watched.turn(9)
    assert watched.verifier.findings.alarms == 1  # tolerated no longer


def test_a_node_that_was_told_and_holds_what_was_before_dropped_it() -> None:
    watched = Watched()
    watched.change()
    watched.world.go()
    watched.plant(old(1))
    watched.turn(0)
    assert watched.found == [("1s", "older", "drop")]
    assert watched.verifier.findings.alarms == 1


def test_what_came_in_after_the_change_was_a_race() -> None:
    watched = Watched()
    change = watched.change()
    watched.world.go()
    watched.plant(old(1, as_of_us=change.at_us + 1))
    watched.turn(0)
    assert watched.found == [("1s", "older", "race")]


def test_what_was_gone_and_is_back_was_a_race() -> None:
    watched = Watched()
    watched.change()
    watched.world.go()
    watched.turn(0)
    assert watched.row("1s")["empty"] == 1
    watched.plant(old(1))
    watched.turn(9)
    assert watched.found == [("10s", "older", "race")]


def test_a_key_that_took_another_name_in_between_is_no_finding() -> None:
    watched = Watched()
    watched.plant(old(1))
    watched.change()
    world = watched.world
    world.service._epochs.renew(["customers"], "test")
    assert world.store.layout.next is not None
    watched.turn(1)
    assert watched.found == []
    assert watched.row("1s")["moved"] == 1
    assert with_new_epochs(world.store.layout, ["customers"]).next is not None


def test_a_change_that_cannot_be_read_yet_is_no_finding() -> None:
    watched = Watched()
    watched.plant(old(1))
    watched.change()
    watched.truths.rows[7] = 1
    watched.turn(1)
    assert watched.found == []


def test_absence_is_held_against_the_store_late() -> None:
    watched = Watched()
    watched.plant(Item(ABSENCE))
    watched.change("create")
    watched.turn(1)
    assert watched.truths.asked == []
    assert watched.row("1s")["unresolved"] == 1
    watched.turn(9)
    assert watched.found == [("10s", "absent", "lag")]


def test_absence_that_is_right_by_then_is_no_finding() -> None:
    watched = Watched()
    watched.change("create")
    watched.change("delete")
    del watched.truths.rows[7]
    watched.plant(Item(ABSENCE))
    for seconds in (1, 9, 50):
        watched.turn(seconds)
    assert watched.found == []


def test_a_list_that_differs_once_is_only_a_doubt() -> None:
    watched = Watched()
    watched.plant(old(as_of_us=1), "orders-of:3")
    watched.change(table="orders", after={"customer_id": 3})
    watched.turn(1)
    assert watched.found == []
    watched.plant(old(as_of_us=watched.world.clock.us() + 1), "orders-of:3")  # loaded anew
    watched.truths.lists[3] = "x"
    watched.turn(1)
    assert watched.found == []


def test_a_list_that_stays_although_it_differs_is_stale() -> None:
    watched = Watched()
    watched.plant(old(as_of_us=1), "orders-of:3")
    watched.change(table="orders", after={"customer_id": 3})
    watched.turn(1)
    watched.turn(1)
    assert watched.found == [("1s", "differs", "lag")]


def test_a_list_that_stays_although_the_node_proves_to_be_past_it_was_dropped() -> None:
    watched = Watched()
    watched.plant(old(as_of_us=1), "orders-of:3")
    watched.change(table="orders", after={"customer_id": 3})
    watched.turn(1)
    watched.world.go(8)
    watched.plant(old(as_of_us=1), "orders-of:3")
    watched.turn(0)
    assert ("1s", "differs", "drop") in watched.found


def test_a_doubt_that_nobody_could_look_into_again_does_not_stay() -> None:
    watched = Watched()
    watched.plant(old(as_of_us=1), "orders-of:3")
    watched.change(table="orders", after={"customer_id": 3})
    watched.turn(1)
    outlook = watched.verifier._outlook
    layout, look = outlook.layout, outlook.look
    outlook.layout, outlook.look = None, lambda: None  # type: ignore[method-assign]
    for _ in AGES:
        watched.turn(100)
    outlook.layout, outlook.look = layout, look  # type: ignore[method-assign]
    watched.change(table="orders", after={"customer_id": 3})
    watched.turn(1)
    watched.turn(1)
    assert watched.found == [("1s", "differs", "lag")]


def test_a_hot_key_with_another_content_of_its_version_is_found_without_any_age() -> None:
    watched = Watched(hot=10)
    version = watched.change().version or 0
    watched.plant(Item(packed("y"), version=version, floor=version, known=True))
    watched.turn(0.5)
    assert watched.found == [("hot", "differs", "race")]


def test_a_hot_key_that_has_just_changed_is_only_looked_at_again() -> None:
    watched = Watched(hot=10)
    version = watched.change().version or 0
    watched.plant(old(version - 1))
    watched.turn(0.5)
    assert watched.found == []
    assert watched.row("hot")["unresolved"] == 1


def test_the_store_is_never_asked_for_more_than_its_budget() -> None:
    watched = Watched(loads=2, sample=1000)
    for number in range(50):
        watched.plant(old(1), f"customers:{number}")
        watched.change(key={"id": number})
    for _ in range(10):
        watched.turn(1)
    # What a second left over, and two a second for so many.
    assert 20 <= len(watched.truths.asked) <= 2 * 11 + 2
    assert len(watched.verifier.referee) > 0


def test_two_nodes_in_doubt_about_one_key_cost_one_load() -> None:
    watched = Watched("a", "b")
    for node in ("a", "b"):
        watched.plant(old(1), node=node)
    watched.change()
    watched.turn(1)
    assert watched.truths.asked == [7]
    assert len(watched.found) == 2


def test_a_node_that_does_not_answer_holds_up_no_other() -> None:
    watched = Watched("a", "b")
    watched.plant(old(9), node="b")
    watched.change()
    watched.world.node("a").down = True
    watched.world.node("a").get_many = watched.world.node("a").read_notes  # type: ignore[method-assign]
    watched.turn(1)
    assert watched.row("1s")["unanswered"] == 1
    assert watched.row("1s")["served"] == 1


def test_a_gap_in_the_log_goes_unchecked_and_is_counted() -> None:
    watched = Watched()
    watched.world.store.change()
    watched.world.store.purged = len(watched.world.store.log)
    watched.turn(0)
    assert watched.verifier.gaps == 1
    watched.change()
    assert watched.verifier.chosen == 1


def test_a_store_that_is_down_ends_nothing() -> None:
    watched = Watched()
    watched.verifier._stop.set()  # no pause
    watched.world.store.broken = True
    watched.turn(1)
    assert "down" in watched.verifier.store_error
    watched.world.store.broken = False
    watched.turn(1)
    assert watched.verifier.store_error == ""


def test_it_commits_nothing() -> None:
    watched = Watched()
    before = dict(watched.world.store.consumers)
    watched.change()
    watched.turn(1)
    assert watched.world.store.consumers == before


def test_the_report_tells_the_first_and_the_last_with_the_whole_item() -> None:
    watched = Watched()
    watched.plant(old(1, as_of_us=1_000_000))
    watched.change()
    watched.turn(1)
    watched.turn(9)
    found = report(watched.verifier, watched.world.clock())
    assert found["verdict"] == "stale"
    assert found["first"]["after"] == "1s"
    assert found["last"]["after"] == "10s"
    assert found["first"]["item"]["as_of"] == "1970-01-01T00:00:01.000+00:00"
    assert found["ages"][0]["nines"] == 0
    *_, verdict = told(watched.verifier, watched.world.clock())
    assert verdict == "verdict: stale, 2 stale answers of 1 keys, 1 of them alarms"


# --- parts -----------------------------------------------------------------------------------


def check(number: int = 7, since_s: float = 0.0) -> Check:
    return Check(CUSTOMERS, number, CUSTOMERS.text(number), Known(1, False, 0), since_s)


def test_a_ladder_gives_what_is_due_and_refuses_what_is_too_much() -> None:
    ladder = Ladder([1.0, 10.0], 2)
    first, second = check(1), check(2, since_s=0.5)
    assert [ladder.add(one) for one in (second, first, check(3))] == [True, True, False]
    assert ladder.due(0.9, 9) == []
    assert ladder.due(2.0, 9) == [first, second]
    assert ladder.again(first)
    assert ladder.next_s() == 10.0
    assert ladder.due(10.0, 9) == [first]
    assert not ladder.again(first)


def test_a_sampler_takes_no_more_than_its_share() -> None:
    sampler = Sampler(World().rules, 10, random.Random(3), 0.0)
    events = [Event("log", str(n), RowChange("customers", "update", {"id": n}, n + 1)) for n in range(100)]
    strange = Event("log", "x", RowChange("strangers", "update", {"id": 1}, 1))
    assert len(sampler.choose([*events, strange], 0.0)) == 10
    assert sampler.choose(events, 0.0) == []
    assert len(sampler.choose(events, 0.5)) == 5
    chosen = sampler.choose(events, 100.0)
    assert len(chosen) == 10
    assert chosen == sorted(chosen, key=lambda one: events.index(one))


def test_a_key_that_changes_often_is_not_pushed_out_by_many_that_change_once() -> None:
    hot = HotKeys(10)
    for number in range(1000):
        hot.saw(check(number + 10))
        if number % 5 == 0:
            hot.saw(check(1))
    assert len(hot) == 10
    assert 1 in {one.key for one in hot.turn(10)}
    assert len({one.key for one in [*hot.turn(5), *hot.turn(5)]}) == 10


@pytest.mark.parametrize(("bad", "asked", "low", "high"), [(0, 0, 1, 1), (0, 300, 0.01, 0.01), (5, 1000, 0.008, 0.012)])
def test_the_bound_on_a_share_that_was_counted(bad: int, asked: int, low: float, high: float) -> None:
    assert low <= upper_bound(bad, asked) <= high


def test_nines() -> None:
    assert nines(1e-6) == 6.0
    assert nines(1.0) == 0.0
