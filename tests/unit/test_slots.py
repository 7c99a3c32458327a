"""Slots: every client finds the same owner, a change moves as little as it can, and no tenure comes back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cachelib.errors import ConfigError
from cachelib.slots import (
    NODES_MAX,
    SLOTS,
    Slots,
    first_slots,
    plain_of,
    ranked,
    slot_of,
    slots_from,
    with_new_tenure,
    with_nodes,
)

NODES = st.lists(st.sampled_from([f"redis://host-{n}:6379" for n in range(9)]), min_size=1, max_size=6, unique=True)


def moved(before: Slots, after: Slots) -> list[int]:
    return [slot for slot in range(SLOTS) if before.owners[slot] != after.owners[slot]]


# --- slots -----------------------------------------------------------------------------------


def test_a_key_has_the_same_slot_in_every_process() -> None:
    assert [slot_of(text) for text in (b"customer:7", b"customer:8", b"")] == [478, 79, 0]


def test_the_owner_of_a_slot_is_the_same_in_every_process() -> None:
    """A part of the protocol: a program with another hash would read and write elsewhere."""
    owners = first_slots(["redis://a:1", "redis://b:1", "redis://c:1"]).owners
    assert "".join(owner[8] for owner in owners[:24]) == "bbbababccbbababaacbcaaaa"


@given(NODES)
def test_the_order_in_which_nodes_are_given_does_not_matter(nodes: list[str]) -> None:
    assert first_slots(nodes).owners == first_slots(nodes[::-1]).owners


def test_each_node_of_a_pool_gets_its_share() -> None:
    for number in (2, 3, 5, 8):
        shares = Counter(first_slots([f"memcached://10.0.0.{n}:11211" for n in range(number)]).owners)
        assert len(shares) == number
        assert max(shares.values()) <= 1.35 * SLOTS / number


def test_the_next_in_rank_owns_the_slot_when_the_owner_is_gone() -> None:
    nodes = [f"n{n}" for n in range(4)]
    for slot in range(0, SLOTS, 97):
        first, second, *_ = ranked(nodes, slot)
        assert first_slots([node for node in nodes if node != first]).owners[slot] == second


# --- changes ---------------------------------------------------------------------------------


@examples(max_examples=40)
@given(NODES, NODES)
def test_only_slots_of_nodes_that_come_or_go_move(before: list[str], after: list[str]) -> None:
    old = first_slots(before)
    new = with_nodes(old, after)
    came, went = set(after) - set(before), set(before) - set(after)
    for slot in moved(old, new):
        assert new.owners[slot] in came or old.owners[slot] in went


@examples(max_examples=40)
@given(NODES, NODES)
def test_a_slot_gets_a_new_tenure_exactly_when_it_moves(before: list[str], after: list[str]) -> None:
    old = first_slots(before)
    new = with_nodes(old, after)
    changed = [slot for slot in range(SLOTS) if old.tenures[slot] != new.tenures[slot]]
    assert changed == moved(old, new)
    assert not {new.tenures[slot] for slot in changed} & set(old.tenures)


def test_a_node_that_joins_three_takes_about_a_quarter() -> None:
    old = first_slots(["a", "b", "c"])
    new = with_nodes(old, ["a", "b", "c", "d"])
    assert 0.2 < len(moved(old, new)) / SLOTS < 0.3


def test_a_node_that_left_and_came_back_has_new_tenures() -> None:
    whole = first_slots(["a", "b"])
    back = with_nodes(with_nodes(whole, ["a"]), ["a", "b"])
    assert back.owners == whole.owners
    assert not {back.tenures[slot] for slot in back.of("b")} & set(whole.tenures)


@examples(max_examples=30)
@given(st.lists(NODES, min_size=2, max_size=6))
def test_a_tenure_is_of_one_node_whatever_changes(changes: list[list[str]]) -> None:
    seen: dict[str, str] = {}
    slots = first_slots(changes[0])
    for nodes in changes[1:]:
        for tenure, node in slots.homes.items():
            assert seen.setdefault(tenure, node) == node
        slots = with_new_tenure(with_nodes(slots, nodes), nodes[0])


def test_a_renewed_node_has_one_new_tenure_and_the_others_keep_theirs() -> None:
    old = first_slots(["a", "b", "c"])
    new = with_new_tenure(old, "b")
    assert new.owners == old.owners
    assert [slot for slot in range(SLOTS) if new.tenures[slot] != old.tenures[slot]] == old.of("b")
    assert len({new.tenures[slot] for slot in old.of("b")}) == 1


@pytest.mark.parametrize("nodes", [[], ["a", "a"], [str(n) for n in range(NODES_MAX + 1)]])
def test_a_pool_without_nodes_or_with_one_twice_is_refused(nodes: list[str]) -> None:
    with pytest.raises(ConfigError, match="a pool"):
        first_slots(nodes)


# --- the document ----------------------------------------------------------------------------


@examples(max_examples=20)
@given(st.lists(NODES, min_size=1, max_size=5))
def test_what_is_written_is_read_again(changes: list[list[str]]) -> None:
    slots = first_slots(changes[0])
    for nodes in changes[1:]:
        slots = with_nodes(slots, nodes)
    assert slots_from(plain_of(slots)) == slots


@pytest.mark.parametrize(
    "damage",
    [
        {"nodes": []},
        {"nodes": ["a", "a"]},
        {"nodes": ["a"]},
        {"slots": [0] * (SLOTS - 1)},
        {"slots": [7] * SLOTS},
        {"slots": [-1] * SLOTS},
        {"slots": [True] * SLOTS},
        {"tenures": [[0, "t"], [1, "t"]]},
        {"tenures": [[0, ""], [1, "u"]]},
    ],
)
def test_slots_that_do_not_add_up_are_refused(damage: dict[str, object]) -> None:
    plain = plain_of(first_slots(["a", "b"]))
    with pytest.raises((ValueError, IndexError)):
        slots_from({**plain, **damage})
