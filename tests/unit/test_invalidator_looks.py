"""The second look: what is surely visible needs one, what is not waits in a bounded queue until it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from cachelib.effects import effects
from cachelib.errors import StoreError
from cachelib.model import RowChange
from cachelib.stores.base import Snapshot
from invalidator.looks import BySnapshot, Late, Looks, SettleDelay
from invalidator.sources.base import Event
from invalidator.work import Work
from tests.unit.invalidator_world import CUSTOMERS, Clock, EarlyOutbox, World, at, fresh

ALL = Snapshot(1_000_000, 1_000_000)


def change(number: int, tx: int | None = None) -> RowChange:
    return RowChange("customers", "update", {"id": number}, number + 1, tx=tx)


def event(number: int, tx: int | None = None) -> Event:
    return Event("log", at(number + 1), change(number, tx))


def work(number: int) -> Work:
    return Work(tuple(effects(CUSTOMERS, change(number))), 1, {"log": at(number)}, {"log": at(number + 1)})


def late(looks: Looks, number: int) -> Late:
    assert looks.visibility is not None
    return Late(1, looks.visibility.mark([event(number)]), work(number).effects)


def due(looks: Looks) -> list[Work]:
    found = []
    for held in looks.due():
        found += looks.take(held)
    return found + looks.done()


# --- snapshots -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshot", "tx", "shown"),
    [
        (Snapshot(10, 20, frozenset({15})), 9, True),
        (Snapshot(10, 20, frozenset({15})), 12, True),
        (Snapshot(10, 20, frozenset({15})), 15, False),
        (Snapshot(10, 20, frozenset({15})), 20, False),  # began after everything that has ended
        (Snapshot(2**32 + 10, 2**32 + 20), 5, True),  # low bits, of the same epoch
        (Snapshot(2**32 + 10, 2**32 + 20), 25, False),
        (Snapshot(2**32 + 10, 2**32 + 20), 2**32 - 5, True),  # of the epoch before
        (Snapshot(2**32 - 10, 2**32 - 5), 3, False),  # of the next one
        (Snapshot(3 * 2**32 + 10, 3 * 2**32 + 20, frozenset({3 * 2**32 + 15})), 15, False),
        (Snapshot(3 * 2**32 + 10, 3 * 2**32 + 20), 3 * 2**32 + 30, False),  # all 64 bits
        (Snapshot(3 * 2**32 + 10, 3 * 2**32 + 20), 2 * 2**32 + 30, True),
    ],
)
def test_snapshot_shows_what_had_committed(snapshot: Snapshot, tx: int, shown: bool) -> None:
    assert snapshot.shows(tx) is shown


# --- the queue -------------------------------------------------------------------------------


def test_without_doubt_about_visibility_one_look_is_enough() -> None:
    looks = Looks(None, 100)
    assert looks.rest(work(0), Late()) == [work(0)]
    assert due(looks) == []


def test_first_look_is_not_the_last() -> None:
    clock = Clock()
    looks = Looks(SettleDelay(5, clock), 100)
    assert looks.rest(work(0), late(looks, 0)) == []
    assert due(looks) == []
    clock.now_s += 5
    assert [(one.after, one.effects) for one in due(looks)] == [(work(0).after, work(0).effects)]


def test_second_looks_come_in_order() -> None:
    clock = Clock()
    looks = Looks(SettleDelay(5, clock), 100)
    for number in range(3):
        looks.rest(work(number), late(looks, number))
        clock.now_s += 2
    assert [one.after for one in due(looks)] == [{"log": at(1)}]
    clock.now_s += 9
    assert [one.after for one in due(looks)] == [{"log": at(2)}, {"log": at(3)}]


def test_look_that_is_due_waits_for_nobody_and_how_far_the_log_is_done_does() -> None:
    visibility = BySnapshot(lambda: shown[-1], SettleDelay(5, Clock()))
    shown = [Snapshot(10, 10)]
    visibility.look()
    looks = Looks(visibility, 100)
    for number, tx in enumerate([10, 11, 12]):
        hidden = [event(number, tx)]
        looks.rest(work(number), Late(1, visibility.mark(hidden), work(number).effects))
    shown.append(Snapshot(10, 20, frozenset({10, 12})))
    visibility.look()
    assert [(one.after, one.effects) for one in due(looks)] == [({}, work(1).effects)]
    assert due(looks) == []
    shown.append(Snapshot(30, 30))
    visibility.look()
    assert [(one.after, len(one.effects)) for one in due(looks)] == [
        ({"log": at(1)}, 1),
        ({"log": at(2)}, 0),
        ({"log": at(3)}, 1),
    ]
    assert (looks.pending, len(looks)) == (0, 0)


def test_what_was_told_behind_a_dead_letter_takes_one_place_together() -> None:
    clock, kept = Clock(), [0]
    looks = Looks(SettleDelay(5, clock), 100, lambda letter: letter <= kept[0])
    looks.rest(work(0), Late(letter=1))
    for number in range(1, 30):
        looks.rest(work(number), late(looks, number))
    clock.now_s += 5
    assert [(one.after, len(one.effects)) for one in due(looks)] == [({}, 1)] * 29
    assert (len(looks), looks.pending) == (1, 1)
    kept[0] = 1
    assert [(one.after, one.effects) for one in due(looks)] == [({"log": at(30)}, ())]


def test_what_waits_for_its_second_look_is_bounded() -> None:
    looks = Looks(SettleDelay(5, Clock()), 20)
    for number in range(10):
        looks.rest(work(number), late(looks, number))
    assert looks.full
    looks.clear()
    assert not looks.full


def test_visible_works_behind_a_hidden_one_take_one_place_together() -> None:
    clock = Clock()
    looks = Looks(SettleDelay(5, clock), 100)
    looks.rest(work(0), late(looks, 0))
    for number in range(1, 50):
        assert looks.rest(work(number), Late()) == []
    assert looks.pending == 3
    clock.now_s += 5
    assert [(one.after, len(one.effects)) for one in due(looks)] == [({"log": at(1)}, 1), ({"log": at(50)}, 0)]


def test_event_without_transaction_waits_by_time() -> None:
    clock = Clock()
    visibility = BySnapshot(lambda: ALL, SettleDelay(5, clock))
    visibility.look()
    events = [event(0, tx=7), event(1)]
    assert visibility.hidden(events) == events[1:]
    mark = visibility.mark(events[1:])
    assert not visibility.shows(mark)
    clock.now_s += 5
    assert visibility.shows(mark)


def test_store_without_snapshots_waits_by_time() -> None:
    clock = Clock()
    visibility = BySnapshot(lambda: None, SettleDelay(5, clock))
    visibility.look()
    events = [event(0, tx=7)]
    assert visibility.hidden(events) == events
    mark = visibility.mark(events)
    clock.now_s += 5
    assert visibility.shows(mark)


# --- in the daemon ---------------------------------------------------------------------------


def early(*names: str, **apply: Any) -> World:
    """A store that tells which transactions are visible; all are, until `hide`."""
    world = World(*names, source=EarlyOutbox, settle_delay="1h", **apply)
    world.store.asked = 0  # type: ignore[attr-defined]
    hide(world, ())
    world.start()
    world.go()
    return world


def hide(world: World, running: Iterable[int]) -> None:
    def snapshot() -> Snapshot:
        world.store.asked += 1  # type: ignore[attr-defined]
        found = frozenset(running)
        return Snapshot(min(found, default=1000), 1000, found)

    world.store.snapshot = snapshot  # type: ignore[attr-defined]
    if hasattr(world, "service"):
        for feed in (world.service._feed, *(worker._feed for worker in world.service.fleet)):
            feed._looks.visibility._ask = snapshot  # type: ignore[union-attr]


def applied(world: World) -> int:
    return sum(len(batch) for batch in world.node().applied)


def test_change_that_was_visible_before_it_is_told_is_applied_once_and_done() -> None:
    world = early()
    world.store.change(tx=4)
    world.go()
    looked_again = world.metric("second_looks_total")
    world.store.change(tx=5)
    world.go()
    assert applied(world) == 2
    assert world.store.consumers["invalidator"] == at(2)
    assert world.metric("second_looks_total") == looked_again


def test_of_many_changes_the_store_is_asked_before_they_are_told() -> None:
    world = early()
    for number in range(100):
        world.store.change(tx=5, key={"id": number})
    world.go()
    assert applied(world) == 100
    assert world.store.consumers["invalidator"] == at(100)
    assert world.metric("second_looks_total") == 0


def test_commit_that_stays_hidden_does_not_hold_up_the_last_looks_of_others_in_its_poll() -> None:
    world = early()
    hide(world, [500, 501, 502])
    world.store.change(tx=5)
    world.go(1)
    asked = world.store.asked  # type: ignore[attr-defined]
    for number, tx in enumerate([500, 501, 502]):
        world.store.change(tx=tx, key={"id": number})
    world.go(1, every_s=0.01)
    assert world.store.asked == asked, "a moment ago"  # type: ignore[attr-defined]
    filled = [world.cache(version=0, text=f"customers:{number}") for number in range(3)]
    hide(world, [501])
    world.go()
    assert [fresh(world.node(), name) for name in filled] == [False, True, False]
    hide(world, [])
    world.go()
    assert not fresh(world.node(), filled[1])
    assert world.store.consumers["invalidator"] == at(4)


def test_few_changes_a_poll_are_asked_about_together() -> None:
    world = early()
    before = world.store.asked  # type: ignore[attr-defined]
    for number in range(40):
        world.store.change(tx=1000 + number, key={"id": number})
        world.go(1, every_s=0.01)
    assert world.store.asked - before <= 9  # type: ignore[attr-defined]
    assert applied(world) == 40


def test_change_is_applied_before_the_store_is_asked_what_is_visible() -> None:
    world = early()
    name = world.cache(version=0)

    def no_answer() -> Snapshot:
        raise StoreError("gone")

    for feed in (world.service._feed, *(worker._feed for worker in world.service.fleet)):
        feed._looks.visibility._ask = no_answer  # type: ignore[union-attr]
    world.store.change(tx=5)
    world.go()
    assert not fresh(world.node(), name)
    assert world.store.consumers["invalidator"] < at(1)
    hide(world, [])
    world.go()
    assert world.store.consumers["invalidator"] == at(1)


def test_change_that_is_not_visible_is_applied_at_once_and_again_when_it_is() -> None:
    world = early()
    name = world.cache(version=0)
    hide(world, [5])
    world.store.change(tx=5)
    world.go()
    assert not fresh(world.node(), name)
    assert world.store.consumers["invalidator"] < at(1)

    world.cache(version=0)  # evicted, and filled by a load that saw the old row
    hide(world, [])
    world.go()
    assert not fresh(world.node(), name)
    assert applied(world) == 2
    assert world.store.consumers["invalidator"] == at(1)
    assert world.metric("second_looks_total") == 1


def test_only_what_is_hidden_is_looked_at_again_and_the_offset_waits_for_it() -> None:
    world = early()
    hide(world, [5])
    world.store.change(tx=5)
    for number in range(20):
        world.store.change(tx=6 + number, key={"id": 100 + number})
    world.go()
    for number in range(20):
        world.store.change(tx=40 + number, key={"id": 200 + number})
    world.go()
    assert applied(world) == 41
    assert world.store.consumers["invalidator"] < at(1)
    hide(world, [])
    world.go()
    assert applied(world) == 42
    assert world.store.consumers["invalidator"] == at(41)


def test_the_store_is_asked_once_a_batch_and_not_where_there_is_nothing() -> None:
    world = early()
    before = world.store.asked  # type: ignore[attr-defined]
    world.go(5)
    assert world.store.asked == before  # type: ignore[attr-defined]
    for number in range(50):
        world.store.change(tx=number + 1)
    world.go(1)
    assert world.store.asked == before + 1  # type: ignore[attr-defined]


def test_store_that_does_not_answer_loses_nothing() -> None:
    world = early()
    world.store.change(tx=5)
    world.store.broken = True
    world.go()
    world.store.broken = False
    world.go()
    assert applied(world) == 1
    assert world.store.consumers["invalidator"] == at(1)


def test_node_that_comes_back_meanwhile_gets_what_was_told_at_once() -> None:
    world = early("a", "b")
    hide(world, [5])
    name = world.cache(version=0, text="customers:8", node="b")
    world.store.change(tx=5)
    world.store.change(tx=6, key={"id": 8})
    world.node("b").down = True
    world.go(2)
    world.node("b").down = False
    world.go()
    assert not fresh(world.node("b"), name)
    hide(world, [])
    world.go()
    assert world.store.consumers["invalidator"] == at(2)


def test_reading_stops_while_too_much_waits() -> None:
    world = early(pending_max=1000)
    hide(world, [5])
    for number in range(3000):
        world.store.change(tx=5, key={"id": number})
    world.go(12)
    assert world.metric("second_looks_pending") < 2 * 1000 + 2
    assert applied(world) < 3000
    hide(world, [])
    world.go(12)
    assert world.store.consumers["invalidator"] == at(3000)


def test_truncate_that_is_seen_before_it_is_visible_gives_another_epoch_then() -> None:
    """Else what was loaded under the first new epoch before the truncate was visible would stay."""
    world = early()
    hide(world, [5])
    world.store.change("truncate", tx=5)
    world.go(30)  # the new epoch is current, and filled with what the truncate is about to delete
    assert world.store.layout.next is None
    name = world.cache(version=0)
    hide(world, [])
    world.go(30)
    assert world.name_of() != name
    assert world.metric("epochs_total", reason="second_look") == 1


def test_truncates_that_keep_coming_do_not_keep_the_epoch_from_becoming_current() -> None:
    world = World()
    world.go()
    name = world.cache(version=0)
    for _ in range(20):
        world.store.change("truncate")
        world.go(1, every_s=1.0)
    assert world.name_of() != name
