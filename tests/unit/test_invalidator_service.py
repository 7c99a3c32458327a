"""The invalidator's loop and workers: what is told to whom, in the cases that matter (I9, I11)."""

from __future__ import annotations

import pytest

from cachelib.errors import ConfigError
from cachelib.layout import completed, decode_layout, encode_layout, with_new_epochs
from invalidator.positions import decode_note, found, note_names
from invalidator.rules import Rules
from tests.unit.invalidator_world import CUSTOMERS, EarlyOutbox, World, at, fresh


def position(world: World, node: str = "a") -> str:
    """How far the node's notes say that it is."""
    notes = (decode_note(raw) for raw in world.node(node).read_notes(note_names("lc", "invalidator", "log")))
    return max(note.upto for note in notes if note is not None)


def test_a_change_voids_the_cached_item() -> None:
    world = World()
    world.go()
    name = world.cache(version=0)
    world.store.change()
    world.go()
    assert not fresh(world.node(), name)


def test_own_event_is_a_no_op() -> None:
    world = World()
    world.go()
    change = world.store.change()
    name = world.cache(version=change.version or 0)
    world.go()
    assert fresh(world.node(), name)


def test_position_is_on_the_node_and_committed_after_that() -> None:
    world = World()
    world.store.change()
    world.go()
    assert position(world) == at(1)
    assert world.store.consumers == {"invalidator": at(1), "invalidator@a": at(1)}


def test_committed_offset_waits_for_the_slowest_node() -> None:
    world = World("a", "b")
    world.go()
    world.node("b").down = True
    world.store.change()
    world.go()
    assert position(world, "a") == at(1)
    assert world.store.consumers["invalidator"] == ""
    world.node("b").down = False
    world.go()
    assert world.store.consumers["invalidator"] == at(1)


def test_changes_of_one_key_become_one_operation() -> None:
    world = World()
    world.go()
    for _ in range(5):
        world.store.change()
    world.go()
    assert [len(batch) for batch in world.node().applied] == [1]
    assert world.metric("coalesced_keys_total") == 4


def test_batch_whose_answer_was_lost_is_applied_again() -> None:
    world = World()
    world.go()
    world.store.change()
    world.node().lose_notes()
    world.node().loses_answers = 1
    world.go()
    assert world.metric("retries_total", node="a") == 1
    assert position(world) == at(1)


# --- where a node goes on from ---------------------------------------------------------------------


def test_node_that_restarts_empty_goes_on_without_new_epochs() -> None:
    world = World()
    world.store.change()
    world.go()
    layout = world.store.layout
    world.node().restart()
    world.store.change()
    world.go()
    assert world.store.layout == layout
    assert position(world) == at(2)


def test_node_that_returns_with_old_data_is_replayed_from_its_own_position() -> None:
    world = World()
    world.go()
    name = world.cache(version=0)
    old = world.node().snapshot()
    world.store.change()
    world.go()
    world.node().restart_from(old)
    assert fresh(world.node(), name)
    world.go()
    assert not fresh(world.node(), name)


def test_rollback_that_nobody_noticed_is_found_by_notes_that_do_not_join() -> None:
    world = World(positions="5s")  # the instance is looked at every 5 s only
    world.go()
    name = world.cache(version=0)
    world.go(1, every_s=6)
    old = world.node().snapshot()
    world.store.change()
    world.go(1)
    world.node().restart_from(old)  # and the very next batch is applied as if nothing had happened
    world.store.change(key={"id": 8})
    world.go(1)
    assert fresh(world.node(), name)
    world.go(4, every_s=6)
    assert not fresh(world.node(), name)


def test_new_process_goes_on_from_the_nodes_own_position() -> None:
    world = World()
    world.store.change()
    world.go()
    world.start()
    world.go()
    assert world.metric("connects_total", node="a", start="its own position") == 1
    assert world.metric("changes_total", table="customers") == 0


def test_node_that_lost_its_notes_while_it_counted_goes_on_from_the_committed_offset() -> None:
    world = World()
    world.store.change()
    world.go()
    world.node().lose_notes()
    layout = world.store.layout
    world.start()
    world.go()
    assert world.metric("connects_total", node="a", start="the committed offset") == 1
    assert world.store.layout == layout


def test_unknown_node_makes_everything_void() -> None:
    world = World("a")
    world.store.change()
    world.go()
    world.nodes["b"] = type(world.node())(world.clock)
    name = world.cache(version=1, node="b")
    world.start()
    world.go(30)
    assert world.metric("epochs_total", reason="unknown_node") == 1
    assert world.name_of() != name
    assert world.worker("b").counts


def test_first_consumer_reads_a_whole_log_from_its_start() -> None:
    world = World()
    world.store.change()
    world.go(0)
    world.service.turn()
    name = world.cache(version=0) if world.store.document else None
    world.go()
    assert position(world) == at(1)
    assert name is None or not fresh(world.node(), name)


def test_first_consumer_of_a_purged_log_makes_everything_void() -> None:
    world = World()
    world.go()
    again = World()
    for _ in range(3):
        again.store.change()
    again.store.purged = 2
    again.start()
    again.go()
    assert again.metric("gaps_total") == 1
    assert again.metric("epochs_total", reason="log_gap") == 1
    assert position(again) == at(3)


def test_notes_of_another_store_prove_nothing() -> None:
    world = World()
    world.store.change()
    world.go()
    world.store.who = "store-2"
    world.start()
    world.go()
    assert world.metric("epochs_total", reason="store_changed") == 1


def test_notes_of_two_batches_in_a_row_join() -> None:
    world = World(positions="5s")
    world.go(1)
    for _ in range(2):
        world.store.change()
        world.go(1)
    assert found(["log"], world.node().read_notes(note_names("lc", "invalidator", "log"))).positions == {"log": at(2)}


def test_after_starting_over_both_notes_are_of_the_new_store() -> None:
    world = World(positions="5s")
    world.store.change()
    world.go(2, every_s=6)
    world.store.who = "store-2"
    world.start()
    world.go(1)
    world.start()
    world.go(1)
    assert world.metric("connects_total", node="a", start="its own position") == 1


# --- lost changes, and a store that goes back --------------------------------------------------------


def test_log_gap_makes_everything_void_and_goes_on_at_the_end() -> None:
    world = World("a", "b")
    world.go()
    name = world.cache(version=0)
    for _ in range(5):
        world.store.change()
    world.store.purged = 4
    world.go(30)
    assert world.metric("gaps_total") == 1
    assert world.metric("epochs_total", reason="log_gap") == 1
    assert world.name_of() != name
    world.store.change()
    world.go()
    assert position(world, "a") == position(world, "b") == at(6)


def test_log_end_is_taken_before_the_new_epochs() -> None:
    world = World()
    world.go()
    for _ in range(3):
        world.store.change()
    world.store.purged = 3
    written, write = [], world.store.write_layout

    def change_meanwhile(document: bytes, expected: bytes | None) -> None:
        write(document, expected)
        if not written:
            written.append(world.store.change())

    world.store.write_layout = change_meanwhile  # type: ignore[method-assign]
    world.go(30)
    assert [len(batch) for batch in world.node().applied] == [2]  # on the name of now, and the coming one


def test_store_that_went_back_makes_everything_void() -> None:
    world = World()
    for _ in range(5):
        world.store.change()
    world.go()
    del world.store.log[2:]
    world.store.version = 2
    world.go(30)
    reasons = ("log_gap", "store_went_back", "log_purged", "unknown_node")
    assert sum(world.metric("epochs_total", reason=why) for why in reasons) == 1
    assert position(world) <= at(2)
    world.store.change()
    world.go()
    assert position(world) == at(3)


def test_store_that_went_back_while_nobody_looked_makes_everything_void() -> None:
    world = World()
    for _ in range(5):
        world.store.change()
    world.go()
    del world.store.log[2:]
    world.store.version = 2
    world.start()
    world.go(30)
    assert world.metric("epochs_total", reason="store_went_back") == 1
    assert world.worker().confirmed == {"log": at(2)}


def test_store_of_another_identity_makes_everything_void() -> None:
    world = World()
    world.store.change()
    world.go()
    world.store.who = "store-2"
    world.go()
    assert world.metric("epochs_total", reason="store_changed") == 1


# --- changes that name no key ------------------------------------------------------------------------


def test_truncate_gives_the_tables_entities_new_epochs_before_it_counts_as_done() -> None:
    world = World()
    world.go()
    before, other = world.cache(version=0), world.name_of("orders-of:7")
    world.store.change("truncate")
    world.service.turn()
    assert world.store.layout.next is not None
    assert position(world) == ""
    world.go(30)
    assert world.name_of() != before
    assert world.name_of("orders-of:7") == other
    assert position(world) == at(1)


def test_bad_key_gives_the_entity_a_new_epoch() -> None:
    world = World()
    world.go()
    world.store.change(key={"id": 1.5})
    world.go()
    assert world.metric("bad_keys_total", entity="customers") == 1
    assert world.metric("epochs_total", reason="bad_key") == 1


def test_unwatched_column_gives_the_entity_a_new_epoch() -> None:
    world = World()
    world.go()
    world.store.change(table="orders", key={"id": 1}, after={"id": 1}, before={"id": 1})
    world.go()
    assert world.metric("bad_keys_total", entity="orders-of") == 1


def test_unknown_table_is_counted() -> None:
    world = World()
    world.go()
    world.store.change(table="boats")
    world.go()
    assert world.metric("unknown_table_changes_total", table="boats") == 1
    assert position(world) == at(1)


# --- layouts -------------------------------------------------------------------------------------------


def test_while_a_layout_is_coming_both_names_are_told() -> None:
    world = World()
    world.go()
    document = world.store.document
    world.store.document = encode_layout(with_new_epochs(world.store.layout, None))
    assert document is not None
    world.clock.now_s += 2
    world.store.change()
    world.go(3)
    told = {name for batch in world.node().applied for name, _ in batch}
    assert told == {world.name_of(), world.name_of(coming=True)}


def test_layout_that_its_publisher_left_is_completed() -> None:
    world = World()
    world.go()
    world.store.document = encode_layout(with_new_epochs(world.store.layout, None))
    published = world.store.layout
    world.go(16)  # 4.8 s: less than two lease times and the margin since it was seen
    assert world.store.layout == published
    world.go(4)
    assert world.store.layout == completed(published)
    assert world.metric("layouts_completed_total", whose="left") == 1


def test_nothing_is_proven_while_a_layout_is_coming() -> None:
    world = World()
    world.go()
    assert b'"watermark_us": 1' in (world.node().read_notes([b"lc/proof"])[0] or b"")
    world.store.document = encode_layout(with_new_epochs(world.store.layout, None))
    world.go(6)
    assert b'"watermark_us": null' in (world.node().read_notes([b"lc/proof"])[0] or b"")


def test_caught_up_names_the_start_of_the_server_that_was_told() -> None:
    world = World()
    world.go()
    first = world.node().instance()
    assert first.encode() in (world.node().read_notes([b"lc/proof"])[0] or b"")
    old = world.node().snapshot()
    world.node().restart_from(old)
    assert world.node().instance().encode() not in (world.node().read_notes([b"lc/proof"])[0] or b"")
    world.go()
    assert world.node().instance().encode() in (world.node().read_notes([b"lc/proof"])[0] or b"")


# --- nodes that fail --------------------------------------------------------------------------------------


def test_failing_node_does_not_hold_up_the_others() -> None:
    world = World("a", "b")
    world.go()
    world.node("b").down = True
    name = world.cache(version=0)
    world.store.change()
    world.go()
    assert not fresh(world.node("a"), name)


def test_dead_node_counts_no_longer_once_new_epochs_are_current() -> None:
    world = World("a", "b", node_dead_after="10s")
    world.go()
    world.node("b").down = True
    world.store.change()
    world.go(40)
    assert world.metric("epochs_total", reason="node_dead") == 1
    assert world.store.layout.next is not None
    assert world.store.consumers["invalidator"] == ""
    world.go(20)
    assert world.store.layout.next is None
    assert world.store.consumers == {"invalidator": at(1), "invalidator@a": at(1)}


def test_dead_node_that_returns_is_told_what_it_missed_since() -> None:
    world = World("a", "b", node_dead_after="10s")
    world.go()
    world.node("b").down = True
    world.go(60)
    name = world.cache(version=0, node="b")  # a client can still reach it
    world.store.change()
    world.go(3)
    world.node("b").down = False
    world.go()
    assert not fresh(world.node("b"), name)
    assert world.worker("b").counts


def test_node_that_fell_out_of_the_window_reads_the_log_itself() -> None:
    world = World("a", "b", window="1000")
    world.go()
    world.node("b").down = True
    world.go(2)
    for number in range(3000):
        world.store.change(key={"id": number})
        if number % 100 == 0:
            world.go(1)
    world.node("b").down = False
    world.go(30)
    assert world.worker("b").in_window
    assert {name for batch in world.node("b").applied for name, _ in batch} == {
        world.name_of(f"customers:{number}") for number in range(3000)
    }


def test_source_is_not_read_on_while_every_node_is_down() -> None:
    world = World("a", window="1000")
    world.go()
    world.node("a").down = True
    for number in range(5000):
        world.store.change(key={"id": number})
    world.go(5)
    assert int(world.service.positions["log"]) <= 2000
    world.node("a").down = False
    world.go(30)
    assert position(world) == at(5000)


def test_full_node_is_told_all_the_same_and_its_position_stays_behind() -> None:
    world = World()
    world.store.change()
    world.go()
    world.node().full = True
    for number in range(3):
        world.store.change(key={"id": number})
        world.go(2)
    assert len(world.node().applied) == 4
    assert world.store.consumers["invalidator"] == position(world) == at(1)
    world.node().full = False
    world.go()
    assert world.store.consumers["invalidator"] == position(world) == at(4)


def test_what_a_full_node_was_told_is_not_proven_by_the_next_note() -> None:
    world = World()
    world.store.change()
    world.go()
    old = world.node().snapshot()
    world.node().full = True
    world.store.change()
    world.go(2)
    world.node().full = False
    world.node().restart_from(old)
    name = world.cache(version=0)
    world.store.change(key={"id": 8})
    world.go(10)
    assert not fresh(world.node(), name)


# --- second look ---------------------------------------------------------------------------------------------


def test_early_source_is_applied_at_once_and_done_after_its_second_look() -> None:
    world = World(source=EarlyOutbox, settle_delay="5s")
    world.go()
    world.go(20)
    world.store.change()
    world.go(3)
    assert len(world.node().applied) == 1
    assert position(world) == ""
    world.go(20)
    assert len(world.node().applied) == 2
    assert position(world) == at(1)


def test_item_filled_between_the_looks_is_voided_by_the_second() -> None:
    world = World(source=EarlyOutbox, settle_delay="5s")
    world.go(20)
    world.store.change()
    world.go(3)
    name = world.cache(version=0)  # what the first look left was evicted, and the old row filled in
    world.go(20)
    assert not fresh(world.node(), name)


def test_restart_between_the_looks_looks_again() -> None:
    world = World(source=EarlyOutbox, settle_delay="5s")
    world.go(30)
    world.store.change()
    world.go(3)
    world.start()
    name = world.cache(version=0)
    world.go(30)
    assert not fresh(world.node(), name)
    assert position(world) == at(1)


# --- the store fails; rules change ------------------------------------------------------------------------------


def test_store_that_fails_for_a_while_costs_nothing_but_time() -> None:
    world = World()
    world.go()
    world.store.change()
    world.store.broken = True
    world.go()
    assert world.service.trouble.error
    assert world.worker().failing_since_s is None
    world.store.broken = False
    world.go()
    assert position(world) == at(1)
    assert not world.service.trouble.error


def test_broken_new_rules_are_refused_and_the_old_stay() -> None:
    world = World()
    world.new_rules = ConfigError("broken")
    world.service.ask_to_reload()
    world.go()
    assert world.service.rules is world.rules
    assert world.metric("reloads_total", outcome="refused") == 1


def test_entity_that_rules_did_not_have_gets_a_new_epoch() -> None:
    world = World()
    world.rules = Rules([CUSTOMERS])
    world.start()
    world.go()
    world.new_rules = World().rules
    world.service.ask_to_reload()
    world.go(2)
    coming = decode_layout(world.store.document or b"").next
    assert coming is not None
    assert set(coming.epochs) == {"orders-of"}


def test_ready_once_every_node_goes_along() -> None:
    world = World("a", "b")
    world.node("b").down = True
    assert not world.service.ready()
    world.go()
    assert not world.service.ready()
    world.node("b").down = False
    world.go()
    assert world.service.ready()


def test_loop_that_does_not_turn_is_not_healthy() -> None:
    world = World()
    assert world.service.healthy()
    world.clock.now_s += 31
    assert not world.service.healthy()


def test_unexpected_fault_of_a_worker_ends_the_daemon() -> None:
    world = World()
    world.worker().crashed = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError, match="fault of ours"):
        world.service.fleet.raise_if_crashed()
