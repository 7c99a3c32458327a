"""The daemon and a pool: each node is told what is its own, and what befalls one node costs the others nothing."""

from __future__ import annotations

import pytest

from cachelib.envelope import encode
from cachelib.layout import Layout, completed, encode_layout, first_layout, with_node_renewed, with_nodes
from cachelib.model import Item, value_of
from cachelib.slots import slot_of
from tests.unit.invalidator_world import FakeNode, World, at, fresh

IDS = range(40)
POOL = ("a", "b", "c")


def text(number: int) -> bytes:
    return f"customers:{number}".encode()


def home(world: World, number: int) -> str:
    owner = world.store.layout.now.owner(slot_of(text(number)))
    assert owner is not None
    return owner


def of(world: World, node: str) -> list[int]:
    """The ids whose keys a node has."""
    return [number for number in IDS if home(world, number) == node]


def node(world: World, name: str) -> FakeNode:
    return world.nodes.get(name) or world.reached[name]


def fill(world: World, number: int, version: int = 0) -> bytes:
    """A client has filled an item where it belongs; its name."""
    (name, *_) = world.store.layout.names("lc", "customers", text(number))
    item = Item(value_of(b"x"), version=version, known=True, floor=version, expires_ms=world.clock.ms() + 3_600_000)
    node(world, home(world, number)).plant(name, encode(item))
    return name


def change_all(world: World) -> None:
    for number in IDS:
        world.store.change(key={"id": number})


def told(world: World, name: str) -> set[bytes]:
    return {one for batch in node(world, name).applied for one, _ in batch}


def settle(world: World) -> None:
    """Until what was published is current, and nothing follows."""
    for _ in range(12):
        world.go(4)
    assert world.store.layout.next is None


# --- who is told what ------------------------------------------------------------------------


def test_each_node_of_a_pool_is_told_of_its_own_keys_only() -> None:
    world = World(*POOL, pool=True)
    settle(world)
    change_all(world)
    world.go()
    for name in POOL:
        own = {world.store.layout.names("lc", "customers", text(number))[0] for number in of(world, name)}
        assert own
        assert told(world, name) == own


def test_every_item_of_a_pool_is_voided_by_its_change() -> None:
    world = World(*POOL, pool=True)
    settle(world)
    names = {number: fill(world, number) for number in IDS}
    change_all(world)
    world.go()
    assert not [number for number, name in names.items() if fresh(node(world, home(world, number)), name)]


def test_while_a_slot_moves_both_of_its_nodes_are_told() -> None:
    world = World(*POOL, pool=True)
    settle(world)
    before = world.store.layout
    after = world.publish(lambda now: with_nodes(now, ["a", "b"]))
    world.go(1, 1.1)  # the daemon reads the layout once a second
    change_all(world)
    world.go(2)
    for layout in (before, completed(after)):
        for number in IDS:
            owner = layout.now.owner(slot_of(text(number))) or ""
            assert layout.names("lc", "customers", text(number))[0] in told(world, owner)


def test_a_layout_that_names_no_nodes_has_every_node_told_of_everything() -> None:
    world = World("a", "b")
    world.go()
    change_all(world)
    world.go()
    assert told(world, "a") == told(world, "b")
    assert len(told(world, "a")) == len(IDS)


# --- nodes that come and go ------------------------------------------------------------------


def test_a_node_that_joins_the_layout_is_told_without_a_restart() -> None:
    world = World("a", "b", pool=True)
    settle(world)
    world.publish(lambda now: with_nodes(now, ["a", "b", "d"]))
    settle(world)
    assert [worker.name for worker in world.service.fleet if worker.counts] == ["a", "b", "d"]
    names = {number: fill(world, number) for number in IDS}
    change_all(world)
    world.go()
    assert of(world, "d")
    assert not [number for number, name in names.items() if fresh(node(world, home(world, number)), name)]


def test_a_node_that_joins_costs_the_others_nothing() -> None:
    world = World("a", "b", pool=True)
    settle(world)
    before = world.store.layout
    world.publish(lambda now: with_nodes(now, ["a", "b", "d"]))
    settle(world)
    after = world.store.layout
    stayed = [number for number in IDS if home(world, number) != "d"]
    assert [after.names("lc", "customers", text(n)) for n in stayed] == [
        before.names("lc", "customers", text(n)) for n in stayed
    ]
    assert after.now.base == before.now.base


def test_a_node_that_left_the_layout_is_told_no_longer_and_holds_up_nobody() -> None:
    world = World(*POOL, pool=True)
    settle(world)
    world.node("c").down = True  # this is why it is taken out
    world.publish(lambda now: with_nodes(now, ["a", "b"]))
    settle(world)
    assert [worker.name for worker in world.service.fleet] == ["a", "b"]
    world.store.change()
    world.go(8)
    assert world.store.consumers["invalidator"] == at(1)
    assert "invalidator@c" not in world.store.consumers
    assert world.metric("node_counts", node="c") == 0


def test_a_node_that_left_and_comes_back_is_not_asked_for_what_it_has() -> None:
    world = World(*POOL, pool=True)
    settle(world)
    old = {number: fill(world, number) for number in IDS}
    world.publish(lambda now: with_nodes(now, ["a", "b"]))
    settle(world)
    change_all(world)
    world.go()
    world.publish(lambda now: with_nodes(now, POOL))
    settle(world)
    back = of(world, "c")
    assert back
    for number in back:
        (name,) = world.store.layout.names("lc", "customers", text(number))
        assert name != old[number]
        assert world.node("c").get(name) is None
    name = fill(world, back[0])
    world.store.change(key={"id": back[0]})
    world.go()
    assert not fresh(world.node("c"), name)


def test_nodes_of_the_settings_that_the_layout_does_not_name_are_left_alone() -> None:
    world = World("a", "b", "stranger", pool=False)
    world.store.document = encode_layout(first_layout(["a", "b"]))
    world.start()
    settle(world)
    assert [worker.name for worker in world.service.fleet] == ["a", "b"]


def test_a_daemon_that_starts_anew_knows_the_nodes_that_joined() -> None:
    world = World("a", "b", pool=True)
    settle(world)
    world.publish(lambda now: with_nodes(now, ["a", "b", "d"]))
    settle(world)
    world.start()
    layout = world.store.layout
    settle(world)
    assert world.store.layout == layout  # nobody had to begin anew
    assert [worker.counts for worker in world.service.fleet] == [True] * 3


# --- what befalls one node -------------------------------------------------------------------


def renewed(before: Layout, after: Layout) -> set[str]:
    """The nodes whose keys have other names now."""
    return {
        before.now.owner(slot_of(text(n))) or ""
        for n in IDS
        if before.names("lc", "customers", text(n)) != after.names("lc", "customers", text(n))
    }


def test_a_dead_node_gets_a_new_tenure_and_the_others_keep_what_they_have() -> None:
    world = World(*POOL, pool=True, node_dead_after="10s")
    settle(world)
    before = world.store.layout
    world.node("b").down = True
    world.store.change()
    for _ in range(15):
        world.go(4)
    settle(world)
    assert renewed(before, world.store.layout) == {"b"}
    assert world.metric("epochs_total", reason="node_dead") == 1
    assert not world.worker("b").counts
    assert world.store.consumers["invalidator"] == at(1)


def test_a_node_whose_position_is_not_known_gets_a_new_tenure_alone() -> None:
    world = World(*POOL, pool=True)
    settle(world)
    change_all(world)
    world.go()
    before = world.store.layout
    del world.store.consumers["invalidator@c"]  # nobody knows any more whether it counted
    world.node("c").lose_notes()
    world.start()
    settle(world)
    assert renewed(before, world.store.layout) == {"c"}


def test_a_dead_node_that_comes_back_with_old_data_shows_none_of_it() -> None:
    world = World(*POOL, pool=True, node_dead_after="10s")
    settle(world)
    own = of(world, "b")
    names = {number: fill(world, number) for number in own}
    world.node("b").down = True
    change_all(world)
    for _ in range(15):
        world.go(4)
    settle(world)
    world.node("b").down = False
    settle(world)
    now = {number: world.store.layout.names("lc", "customers", text(number))[0] for number in own}
    assert not set(now.values()) & set(names.values())
    assert world.worker("b").counts
    for number in own:
        fill(world, number)
    change_all(world)
    world.go()
    assert not [number for number, name in now.items() if fresh(world.node("b"), name)]


def test_a_node_whose_part_of_the_log_was_purged_begins_anew_alone() -> None:
    world = World(*POOL, pool=True, window="1000")
    settle(world)
    before = world.store.layout
    world.node("a").down = True
    world.go(2)
    for number in range(2000):
        world.store.change(key={"id": number})
        if number % 200 == 0:
            world.go(1)
    world.store.purged = 1500
    world.node("a").down = False
    settle(world)
    assert renewed(before, world.store.layout) == {"a"}
    assert world.metric("epochs_total", reason="log_purged") == 1


def test_a_store_that_went_back_renews_every_node() -> None:
    world = World(*POOL, pool=True)
    change_all(world)
    settle(world)
    before = world.store.layout
    world.store.log, world.store.version = world.store.log[:5], 5
    settle(world)
    assert renewed(before, world.store.layout) == set(POOL)


def test_a_node_that_has_left_needs_no_new_tenure() -> None:
    world = World(*POOL, pool=True, node_dead_after="1s")
    settle(world)
    world.node("c").down = True
    world.publish(lambda now: with_nodes(now, ["a", "b"]))
    settle(world)
    assert world.metric("epochs_total", reason="node_dead") == 0


@pytest.mark.parametrize("published", [True, False])
def test_a_renewal_of_one_node_is_completed_by_the_daemon(published: bool) -> None:
    world = World(*POOL, pool=True)
    settle(world)
    number = world.store.layout.number
    if published:
        world.publish(lambda now: with_node_renewed(now, "a"))
    settle(world)
    assert world.store.layout.number == number + 2 * published
