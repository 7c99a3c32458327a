"""The daemon's part in the layout: published once, completed in time, read under a lease."""

from __future__ import annotations

from typing import Any

import pytest

from cachelib.errors import LayoutConflict, StoreError
from cachelib.layout import decode_layout, encode_layout, first_layout, with_new_epochs
from invalidator.epochs import Epochs
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.settings import LogSettings
from tests.unit.invalidator_world import Clock, FakeStore


class Place:
    """A store and the daemon's view of its layout."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock)
        log = open_log(LogSettings(level="error"))
        self.epochs = Epochs(self.store, Metrics(), log, self.clock)  # type: ignore[arg-type]

    def passes(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.epochs.keep()


@pytest.fixture
def place() -> Place:
    return Place()


def test_first_layout_is_made_where_there_is_none(place: Place) -> None:
    assert place.epochs.layout() == place.store.layout


def test_layout_of_another_who_was_first_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = encode_layout(first_layout())

    def too_late(document: bytes, expected: bytes | None) -> None:
        place.store.document = theirs
        raise LayoutConflict("somebody was first")

    monkeypatch.setattr(place.store, "write_layout", too_late)
    assert place.epochs.layout() == decode_layout(theirs)


def test_layout_is_read_once_a_second(place: Place) -> None:
    layout = place.epochs.layout()
    place.store.document = encode_layout(with_new_epochs(layout, None))
    place.clock.now_s += 0.9
    assert place.epochs.layout() == layout
    place.clock.now_s += 0.2
    assert place.epochs.layout() != layout


def test_lease_runs_on_while_the_store_does_not_answer_and_no_longer(place: Place) -> None:
    layout = place.epochs.layout()
    place.store.broken = True
    place.clock.now_s += 1.5
    assert place.epochs.layout() == layout
    place.clock.now_s += 0.6
    with pytest.raises(StoreError):
        place.epochs.layout()


def test_own_change_is_current_two_lease_times_after_it_was_published(place: Place) -> None:
    place.epochs.renew(["customers"], "truncate")
    place.passes(3.9)
    assert place.epochs.layout().next is not None
    place.passes(0.2)
    assert place.epochs.layout().next is None
    assert place.epochs.layout().now.epochs


def test_change_on_top_of_another_waits_for_both(place: Place) -> None:
    place.epochs.renew(["customers"], "truncate")
    place.passes(3)
    place.epochs.renew(["orders"], "truncate")
    place.passes(2)
    assert place.epochs.layout().next is not None
    place.passes(2.1)
    assert set(place.epochs.layout().now.epochs) == {"customers", "orders"}


def test_publishing_goes_on_top_of_what_others_publish_meanwhile(place: Place, monkeypatch: Any) -> None:
    place.epochs.layout()
    write, conflicts = place.store.write_layout, [1]

    def contested(document: bytes, expected: bytes | None) -> None:
        if conflicts:
            conflicts.pop()
            place.store.document = encode_layout(with_new_epochs(place.store.layout, ["orders"]))
        write(document, expected)

    monkeypatch.setattr(place.store, "write_layout", contested)
    place.epochs.renew(["customers"], "truncate")
    coming = place.store.layout.next
    assert coming is not None
    assert set(coming.epochs) == {"customers", "orders"}


def test_change_that_its_publisher_completes_is_left_to_it(place: Place) -> None:
    layout = with_new_epochs(place.epochs.layout(), None)
    place.store.document = encode_layout(layout)
    place.passes(1.1)
    place.passes(4)
    assert place.store.layout == layout


def test_current_means_that_the_change_has_taken_effect(place: Place) -> None:
    amnesty = place.epochs.renew_all({"log": "5"}, "log_gap", 1)
    assert not place.epochs.current(amnesty.number)
    place.passes(5)
    assert place.epochs.current(amnesty.number)
