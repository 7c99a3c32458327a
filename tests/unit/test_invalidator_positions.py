"""What a node's notes prove, and where to go on with it (I11)."""

from __future__ import annotations

from typing import Any

import pytest

from invalidator.positions import Begin, Found, Note, StartOver, begin, decode_note, encode_note, found
from invalidator.sources.base import Committed, covers, least, merged
from invalidator.watermark import Proof

STORE = "store-1"


def note(since: str, upto: str, highest: int = 1) -> bytes:
    return encode_note(Note(since, upto, highest, STORE))


def at(*notes: bytes | None) -> Found:
    return found(["log"], list(notes))


def test_note_reads_as_it_was_written() -> None:
    written = Note("10", "20", 7, STORE)
    assert decode_note(encode_note(written)) == written


@pytest.mark.parametrize("raw", [None, b"", b"\xff", b"[]", b'{"format": 2}', b'{"format": 1}', b"7"])
def test_what_is_no_note_proves_nothing(raw: bytes | None) -> None:
    assert decode_note(raw) is None


@pytest.mark.parametrize(
    ("first", "second", "position", "turn"),
    [
        (note("10", "20"), note("20", "30"), "30", 0),
        (note("30", "40"), note("20", "30"), "40", 1),
        (note("20", "30"), note("10", "25"), "30", 1),
        (note("10", "20"), note("25", "30"), "20", 1),
    ],
)
def test_two_notes_prove_the_later_only_where_they_join(
    first: bytes | None, second: bytes | None, position: str, turn: int
) -> None:
    notes = at(first, second)
    assert notes.positions == {"log": position}
    assert notes.turns == {"log": turn}


@pytest.mark.parametrize("raw", [(note("10", "20"), None), (None, note("10", "20"))])
def test_a_note_alone_may_stand_on_what_is_older_than_the_first(raw: tuple[bytes | None, bytes | None]) -> None:
    assert at(*raw).positions == {}


def test_watermark_is_that_of_the_note_up_to_which_nothing_is_missing() -> None:
    old, new = (encode_note(Note("10", "20", 1, STORE, 100)), encode_note(Note("25", "30", 2, STORE, 200)))
    assert at(old, new).watermarks_us == {"log": 100}
    assert at(old, encode_note(Note("20", "30", 2, STORE, 200))).watermarks_us == {"log": 200}
    assert at(note("10", "20"), None).watermarks_us == {}


def test_each_partition_has_notes_of_its_own() -> None:
    notes = found(["0", "1"], [note("1", "2", 5), note("1", "2", 5), None, None])
    assert notes.positions == {"0": "2"}
    assert notes.highest == 5
    assert notes.stores == {STORE}


KNOWN = at(note("10", "20", 7), note("0", "10", 7))
COMMITTED = Committed({"log": "15"}, frozenset({"a"}))


def decided(notes: Found = KNOWN, **but: Any) -> Begin | StartOver:
    facts: dict[str, Any] = {
        "partitions": ["log"],
        "committed": COMMITTED,
        "store": STORE,
        "highest": 9,
        "empty": False,
        "unbroken": True,
        "end": {"log": "50"},
        "horizon": {"log": "45"},
    }
    return begin("a", notes, **(facts | but))


NONE = at(None, None)


def test_node_goes_on_from_its_own_position() -> None:
    assert decided() == Begin({"log": "20"}, "its own position")


def test_node_that_counted_goes_on_from_the_committed_offset() -> None:
    assert decided(NONE) == Begin({"log": "15"}, "the committed offset")


def test_node_that_did_not_count_cannot_be_trusted() -> None:
    assert decided(NONE, committed=Committed({"log": "15"}, frozenset())) == StartOver("unknown_node")


def test_node_that_counted_may_have_come_back_from_before_its_first_note() -> None:
    assert decided(NONE, unbroken=False) == StartOver("unknown_node")
    assert decided(NONE, unbroken=False, empty=True) == Begin({"log": "15"}, "the committed offset")


def test_empty_node_that_did_not_count_goes_on_from_the_committed_offset() -> None:
    committed = Committed({"log": "15"}, frozenset())
    assert decided(NONE, committed=committed, empty=True) == Begin({"log": "15"}, "the committed offset")


def test_empty_node_of_a_new_consumer_goes_on_from_before_what_the_store_may_not_show_yet() -> None:
    assert decided(NONE, committed=None, empty=True) == Begin({"log": "45"}, "the log's end: it is empty")


def test_first_consumer_reads_from_the_start() -> None:
    assert decided(NONE, committed=None) == Begin({"log": ""}, "the log's start")


def test_notes_of_another_store_prove_nothing() -> None:
    assert decided(store="store-2") == StartOver("store_changed")


def test_version_that_the_store_has_not_given_out_shows_that_it_went_back() -> None:
    assert decided(highest=6) == StartOver("store_went_back")


def test_position_ahead_of_the_log_shows_that_it_went_back() -> None:
    assert decided(end={"log": "19"}) == StartOver("store_went_back")


def test_store_that_does_not_tell_versions_is_not_asked() -> None:
    assert decided(highest=None) == Begin({"log": "20"}, "its own position")


def test_new_partition_goes_on_from_the_committed_offset() -> None:
    facts = {"partitions": ["log", "new"], "committed": Committed({"log": "15", "new": "3"}, frozenset({"a"}))}
    assert decided(**facts) == Begin({"log": "20", "new": "3"}, "the committed offset")


# --- positions and proof -----------------------------------------------------------------------------


def test_positions_of_partitions() -> None:
    assert merged({"a": "1", "b": "5"}, {"a": "3"}) == {"a": "3", "b": "5"}
    assert least([{"a": "1", "b": "5"}, {"a": "3"}]) == {"a": "1", "b": ""}
    assert covers({"a": "3", "b": "5"}, {"a": "3"})
    assert not covers({"a": "3"}, {"a": "3", "b": "1"})


def test_caught_up_once_the_watermark_has_passed_the_connecting() -> None:
    proof = Proof(target_us=100, target={"log": "5"})
    proof.learn({"log": "9"}, 99, settled=True)
    assert not proof.caught_up
    proof.learn({"log": "9"}, 100, settled=True)
    assert proof.caught_up
    assert proof.claim_us(settled=True) == 100


def test_not_caught_up_while_a_layout_is_coming() -> None:
    proof = Proof(target_us=100, target={})
    proof.learn({}, 200, settled=False)
    assert not proof.caught_up


def test_nothing_is_claimed_while_a_layout_is_coming() -> None:
    proof = Proof(target_us=100, target={})
    proof.learn({}, 200, settled=True)
    assert proof.claim_us(settled=False) is None
    assert proof.caught_up


def test_watermark_never_falls() -> None:
    proof = Proof(target_us=100, target={})
    proof.learn({}, 200, settled=True)
    proof.learn({}, 150, settled=True)
    assert proof.claim_us(settled=True) == 200


def test_source_without_a_watermark_is_caught_up_by_position() -> None:
    proof = Proof(target_us=100, target={"log": "5"})
    proof.learn({"log": "4"}, None, settled=True)
    assert not proof.caught_up
    proof.learn({"log": "5"}, None, settled=True)
    assert proof.caught_up
    assert proof.claim_us(settled=True) is None
