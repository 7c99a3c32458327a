"""The window that nodes work through, and the second look."""

from __future__ import annotations

from invalidator.looks import Looks, SettleDelay
from invalidator.work import Window, Work
from tests.unit.invalidator_world import CUSTOMERS, Clock, at


def work(number: int, changes: int = 1) -> Work:
    """The change from one position to the next."""
    from cachelib.effects import effects
    from cachelib.model import RowChange

    found = effects(CUSTOMERS, RowChange("customers", "update", {"id": number}, number + 1))
    return Work(tuple(found), changes, {"log": at(number)}, {"log": at(number + 1)})


def window(works: int, changes_max: int = 1000) -> Window:
    made = Window(changes_max)
    for number in range(works):
        made.add(work(number))
    return made


def test_node_joins_where_it_has_missed_nothing() -> None:
    made = window(5)
    assert made.join("a", {"log": at(0)}) == 0
    assert made.join("a", {"log": at(3)}) == 3
    assert made.join("a", {"log": at(5)}) == 5
    assert made.join("a", {"log": at(9)}) == 5


def test_node_that_is_too_far_back_cannot_join() -> None:
    made = window(5, changes_max=4)  # an empty place beside each: two works fit
    assert made.join("a", {"log": at(2)}) is None
    assert made.join("a", {"log": at(3)}) == 3


def test_nobody_joins_an_empty_window() -> None:
    assert window(0).join("a", {"log": at(0)}) is None


def test_take_gives_so_many_changes_but_at_least_one_work() -> None:
    made = Window(1000)
    for number in range(3):
        made.add(work(number, changes=10))
    assert len(made.take("a", 0, 25, 0) or ()) == 2
    assert len(made.take("a", 0, 5, 0) or ()) == 1
    assert made.take("a", 3, 5, 0) == []


def test_take_of_what_is_gone_gives_none() -> None:
    made = window(5, changes_max=4)
    assert made.take("a", 0, 5, 0) is None


def test_restart_sends_everybody_to_find_their_place() -> None:
    made = window(3)
    number = made.join("a", {"log": at(3)})
    assert number is not None
    made.restart()
    assert made.take("a", number, 5, 0) is None


def test_full_window_has_no_room_until_the_fastest_has_moved() -> None:
    made = window(2, changes_max=4)
    made.join("a", {"log": at(0)})
    made.join("b", {"log": at(0)})
    assert not made.wait_for_room(0)
    made.take("a", 1, 5, 0)
    assert made.wait_for_room(0)


def test_full_window_has_no_room_while_nobody_goes_along() -> None:
    made = window(2, changes_max=4)
    made.join("a", {"log": at(2)})
    made.leave("a")
    assert not made.wait_for_room(0)


def test_behind_counts_changes() -> None:
    made = window(5)
    assert made.behind(2) == 3


# --- second look ---------------------------------------------------------------------------------------


def test_without_doubt_about_visibility_one_look_is_enough() -> None:
    looks = Looks(None, 100)
    one = work(0)
    assert looks.first(one) == [one]
    assert looks.due() == []


def test_first_look_is_not_the_last() -> None:
    clock = Clock()
    looks = Looks(SettleDelay(5, clock), 100)
    one = work(0)
    assert [first.after for first in looks.first(one)] == [one.before]
    assert looks.due() == []
    clock.now_s += 5
    assert looks.due() == [one]


def test_second_looks_come_in_order() -> None:
    clock = Clock()
    looks = Looks(SettleDelay(5, clock), 100)
    works = [work(number) for number in range(3)]
    for one in works:
        looks.first(one)
        clock.now_s += 2
    assert looks.due() == works[:1]
    clock.now_s += 9
    assert looks.due() == works[1:]


def test_what_waits_for_its_second_look_is_bounded() -> None:
    looks = Looks(SettleDelay(5, Clock()), 10)
    looks.first(work(0, changes=10))
    assert looks.full
    looks.clear()
    assert not looks.full
