"""A change that the log showed early was told to a node (its first look), which leads to no new position, so the node's
notes stayed as they were. The server came back with a snapshot that had these same notes, and not what was told. Nobody
noticed until the change could be read: then the position went on behind it, over the new connection, and joined. The
change was never told again, and the item was stale for its life.

Seed 2922 of the simulation. It should have been found by thousands before, but the simulated daemon's threads asked
each other where they were to ask the simulation, and so their waits were none.
"""

from __future__ import annotations

from cachelib.testing.sim import Runner, plan_of, simulation
from invalidator.positions import Note, encode_note, found
from tests.sim.daemon import daemon_of


def note(since: str, upto: str, mark: str, follows: str) -> bytes:
    return encode_note(Note(since, upto, 1, "store", None, mark, follows))


def test_first_look_that_was_lost_unnoticed_is_told_again() -> None:
    with simulation("invalidator"):
        outcome = Runner(daemon_of).run(plan_of(2922), told=True)
    assert outcome.well, "\n".join([*outcome.story, outcome.what])


def test_notes_that_say_the_same_places_join_only_in_their_order() -> None:
    first, second = note("80", "90", "a", ""), note("90", "90", "b", "a")
    lost = note("90", "91", "d", "c")  # c, after b, went with the server
    assert found(["log"], [first, second]).positions == {"log": "90"}
    assert found(["log"], [lost, second]).positions == {"log": "90"}
    assert found(["log"], [note("90", "91", "c", "b"), second]).positions == {"log": "91"}


def test_next_note_takes_the_place_of_the_older_of_two_that_say_the_same() -> None:
    older, newer = note("90", "90", "b", "a"), note("90", "90", "c", "b")
    assert (found(["log"], [older, newer]).turns, found(["log"], [newer, older]).turns) == ({"log": 0}, {"log": 1})
    assert found(["log"], [newer, older]).marks == {"log": "c"}


def test_notes_of_earlier_versions_join_by_their_places() -> None:
    old = encode_note(Note("80", "90", 1, "store"))
    assert found(["log"], [old, note("90", "95", "a", "")]).positions == {"log": "95"}
