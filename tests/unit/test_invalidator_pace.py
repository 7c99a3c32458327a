"""Threads give way sooner while few changes come, and as usual while many do."""

from __future__ import annotations

import sys

from invalidator.pace import Pace
from tests.unit.invalidator_world import EarlyOutbox, World

USUAL_S = sys.getswitchinterval()


def test_threads_give_way_sooner_only_while_few_changes_come() -> None:
    set_to: list[float] = []
    pace = Pace(set_to.append)
    for changes in (0, 1, 2, 2000, 1500, 3, 0):
        pace.saw(changes)
    quick, usual, again = set_to
    assert usual == USUAL_S
    assert quick == again < usual
    pace.rest()
    assert set_to[-1] == USUAL_S


def test_loop_tells_how_many_changes_each_poll_gave_and_not_what_is_told_again() -> None:
    told: list[int] = []
    world = World(source=EarlyOutbox, settle_delay="1s", pace=told.append)
    world.go()
    told.clear()
    for number in range(300):
        world.store.change(key={"id": number})
    world.go()
    assert [number for number in told if number] == [300]


def test_nothing_is_changed_in_a_process_that_is_somebody_elses() -> None:
    world = World()
    world.store.change()
    world.go()
    assert sys.getswitchinterval() == USUAL_S
