"""A server that comes back with old data, as an order of events: strong reads are fresh, a naive cache is stale."""

from __future__ import annotations

from typing import Any

from tests.races.test_cache_races import race
from tests.races.world import Ours

World = Any


@race()
def test_failover_that_loses_acknowledged_writes(world: World) -> None:
    world.read()
    replica = world.item
    world.write("second")  # acknowledged by the primary only
    world.come_back_with(replica)


@race(writer="invalidate")
def test_node_returns_with_old_data(world: World) -> None:
    world.read()
    old = world.item
    world.write("second")
    world.read()
    world.come_back_with(old)


@race(writer="invalidate", many_rows=True)
def test_node_returns_with_old_data_of_many_rows(world: World) -> None:
    world.read()
    old = world.item
    world.write("second")
    world.come_back_with(old)


@race()
def test_node_returns_with_the_lease_of_a_reader_that_is_still_loading(world: World) -> None:
    slow = world.reader().load()
    old = world.item  # with the lease
    world.write("second")
    world.come_back_with(old)
    slow.fill()  # the lease is known to the server that came back


@race()
def test_server_replaced_while_a_read_is_under_way(world: World) -> None:
    world.read()
    old = world.item
    world.write("second")
    reader = world.reader()  # decided on what it stands before the server was replaced
    world.come_back_with(old)
    if world.naive:
        reader.fill()
        return
    assert reader.fill() == "second"
    assert "server_changed" in world.notes


def test_server_that_was_told_everything_again_is_hit_at_once() -> None:
    world = Ours()
    world.read()
    old, commit = world.item, world.write("second")
    world.come_back_with(old)
    world.apply_log(commit)
    world.read()
    loads, world.caught_up = world.store.loads, True
    assert world.read() == "second"
    assert world.store.loads == loads


def test_what_was_loaded_since_the_server_was_met_hits_before_anybody_has_caught_up() -> None:
    world = Ours()
    world.read()
    world.come_back_with(world.item)
    world.read()
    loads = world.store.loads
    assert world.read() == "first"
    assert world.store.loads == loads
