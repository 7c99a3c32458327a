"""What a strong read on a cluster may stand on: a start and an arrival, known before and still the same after."""

from __future__ import annotations

import pytest

from cachelib.backends.redis.cluster_starts import ARRIVALS_KEPT, VALID_S, Start, Starts

A, B = "10.0.0.1:6379", "10.0.0.2:6379"


class Scene:
    """Two masters, at a time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.starts = Starts(lambda: self.now)
        self.look(A, "run-a-epoch1")
        self.look(B, "run-b-epoch2")

    def look(self, place: str, instance: str) -> None:
        self.starts.told(place, instance).looked_at = self.now

    def stands(self, slot: int, place: str, since_us: int) -> Start:
        """A read that came to an end, and asked the store's clock."""
        start = self.starts.of(slot, place)
        assert start is not None
        assert start.since_us is None
        start.since_us = since_us
        return start


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_slots_of_one_master_share_what_is_known_of_it(scene: Scene) -> None:
    scene.stands(1, A, 5)
    other = scene.starts.of(2, A)
    assert other is not None
    assert other.since_us == 5
    assert other.holds()


def test_another_start_of_the_master_voids_what_was_known(scene: Scene) -> None:
    start = scene.stands(1, A, 5)
    scene.look(A, "run-a2-epoch1")
    assert not start.holds()
    scene.stands(1, A, 9)


def test_a_slot_that_came_stands_on_its_own_arrival(scene: Scene) -> None:
    """Its items may come from a master that was promoted with less, however long this one is known."""
    there = scene.stands(7, A, 5)
    known = scene.stands(8, B, 6)
    scene.starts.moved([7])
    assert not there.holds()
    came = scene.stands(7, B, 20)
    assert came.holds()
    assert known.holds()
    assert known.since_us == 6


def test_slots_that_came_together_share_their_arrival(scene: Scene) -> None:
    scene.starts.moved([1, 2, 3])
    scene.stands(1, B, 20)
    assert scene.starts.of(3, B).since_us == 20  # type: ignore[union-attr]


def test_an_answer_of_another_place_counts_for_nothing(scene: Scene) -> None:
    """Decided for A; the slot moved; B answered. Also if it was read there before, or moves back at once."""
    scene.starts.moved([7])
    start = scene.stands(7, A, 5)
    scene.starts.moved([7])
    assert not start.holds()
    scene.starts.moved([7])
    scene.stands(7, A, 9)
    assert not start.holds()


def test_a_slot_that_left_and_came_back_unseen_shows_in_the_epoch(scene: Scene) -> None:
    start = scene.stands(7, A, 5)
    scene.now += 0.3
    scene.look(A, "run-a-epoch3")
    assert not start.holds()


def test_a_start_that_was_not_asked_for_lately_proves_nothing(scene: Scene) -> None:
    """A process that stood still between its question and its answer, for instance."""
    start = scene.stands(7, A, 5)
    scene.now += VALID_S + 0.01
    assert not start.holds()
    scene.look(A, "run-a-epoch1")
    assert start.holds()


def test_a_restart_of_the_master_voids_arrivals_too(scene: Scene) -> None:
    scene.starts.moved([7])
    start = scene.stands(7, B, 5)
    scene.look(B, "run-b2-epoch2")
    assert not start.holds()
    scene.stands(7, B, 9)


def test_a_master_that_does_not_tell_its_start_is_no_ground(scene: Scene) -> None:
    scene.look(A, "")
    assert scene.starts.of(1, A) is None
    assert scene.starts.of(1, "10.0.0.3:6379") is None


def test_what_is_kept_of_moves_is_bounded(scene: Scene) -> None:
    for slot in range(3 * ARRIVALS_KEPT):
        scene.starts.moved([slot])
        assert scene.starts.of(slot, B) is not None
    assert len(scene.starts._arrivals) <= ARRIVALS_KEPT
