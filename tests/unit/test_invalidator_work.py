"""The window that nodes work through."""

from __future__ import annotations

from dataclasses import replace

from invalidator.work import Window, Work
from tests.unit.invalidator_world import CUSTOMERS, at


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


def test_node_does_not_join_at_a_last_look_for_it_tells_only_a_part() -> None:
    """The first look told all, the last one only what was hidden: whoever has not seen the first needs it."""
    made = Window(1000)
    first = [work(0).first_look(), work(1).first_look()]
    last = [replace(work(number), effects=(), partial=True) for number in range(2)]
    for one in (*first, *last):
        made.add(one)
    assert made.join("a", {"log": at(0)}) == 0
    assert made.join("a", {"log": at(1)}) == 1
    assert made.join("a", {"log": at(2)}) == 4


def test_node_that_overtook_joins_although_only_last_looks_are_left() -> None:
    """Regression: it read by itself past all that was told, and the first looks had been pushed out by their last.

    It could join nowhere, and as nobody went along nothing more was read: both waited for the other, for ever.
    """
    made = Window(4)
    for number in range(2):
        made.add(work(number).first_look())
    for number in range(2):
        made.add(replace(work(number), effects=(), partial=True))
    assert not made.wait_for_room(0)
    assert made.join("a", {"log": at(1)}) is None
    assert made.join("a", {"log": at(2)}) == 4
    assert made.wait_for_room(0)


def test_what_was_told_before_a_restart_says_nothing_about_what_is_told_after_it() -> None:
    made = window(3)
    made.restart()
    assert made.join("a", {"log": at(3)}) is None
