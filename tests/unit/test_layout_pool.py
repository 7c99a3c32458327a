"""The layout of a pool: what moves has two names, never two that are served; and its document."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cachelib.errors import ConfigError
from cachelib.layout import (
    LEASE_MS,
    Layout,
    Placing,
    completed,
    decode_layout,
    encode_layout,
    first_layout,
    with_mode,
    with_new_epochs,
    with_node_renewed,
    with_nodes,
)
from cachelib.policy import Mode
from cachelib.slots import SLOTS, slot_of

TEXT = b"customer:7"
POOL = first_layout(["a", "b", "c"])
NODES = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
CHANGES = st.one_of(
    st.tuples(st.just("nodes"), NODES),
    st.tuples(st.just("renew"), st.sampled_from("abcde")),
    st.tuples(st.just("epochs"), st.none()),
    st.tuples(st.just("wait"), st.integers(0, 2 * LEASE_MS)),
)


def told(layout: Layout, node: str, text: bytes = TEXT) -> list[bytes]:
    """The names of a key that a node is told of."""
    return layout.told(node, "shop", "customer", text)


def home(layout: Layout, text: bytes = TEXT) -> str:
    return layout.now.owner(slot_of(text)) or ""


# --- names -----------------------------------------------------------------------------------


def test_a_pool_names_a_key_by_the_tenure_of_its_slot() -> None:
    slots = POOL.now.slots
    assert slots is not None
    tenure = slots.tenures[slot_of(TEXT)]
    assert POOL.names("shop", "customer", TEXT) == (f"shop/{POOL.now.base}.{tenure}/".encode() + TEXT,)


def test_a_node_is_told_of_its_own_keys_only() -> None:
    for node in POOL.nodes:
        assert told(POOL, node) == (list(POOL.names("shop", "customer", TEXT)) if node == home(POOL) else [])


def test_while_a_slot_moves_each_of_its_nodes_is_told_of_its_name() -> None:
    moving = with_nodes(POOL, [node for node in POOL.nodes if node != home(POOL)])
    current, coming = moving.names("shop", "customer", TEXT)
    assert told(moving, home(POOL)) == [current]
    assert told(moving, home(completed(moving))) == [coming]


def test_every_node_is_told_of_a_key_of_a_layout_that_names_none() -> None:
    one = first_layout()
    assert told(one, "whatever") == list(one.names("shop", "customer", TEXT))


def test_a_cache_of_one_node_that_becomes_a_pool_moves_every_key() -> None:
    """The clients may have called the one node by different names."""
    one = first_layout()
    moving = with_nodes(one, ["a"])
    assert len(moving.names("shop", "customer", TEXT)) == 2
    assert told(moving, "a") == list(moving.names("shop", "customer", TEXT))


def test_the_same_nodes_again_change_nothing() -> None:
    assert with_nodes(POOL, ["c", "a", "b"]) is POOL


def test_a_node_that_is_not_in_the_pool_is_not_renewed() -> None:
    assert with_node_renewed(POOL, "z") is POOL
    one = first_layout()
    assert with_node_renewed(one, "a") is one


def test_a_renewed_node_moves_its_own_keys_only() -> None:
    other = next(node for node in POOL.nodes if node != home(POOL))
    assert len(with_node_renewed(POOL, home(POOL)).names("shop", "customer", TEXT)) == 2
    assert len(with_node_renewed(POOL, other).names("shop", "customer", TEXT)) == 1


# --- two steps -------------------------------------------------------------------------------


def documents(start: Layout, changes: list[tuple[str, object]]) -> list[tuple[int, Layout]]:
    """Every document with the time from which it is the store's; completed two lease times after a publication."""
    now_ms, layout, published_ms = 0, start, 0
    history = [(0, layout)]
    for what, given_ in changes:
        now_ms += int(given_) if what == "wait" else 1  # type: ignore[call-overload]
        if what == "wait":
            if layout.next is not None and now_ms - published_ms >= 2 * LEASE_MS:
                layout = completed(layout)
                history.append((now_ms, layout))
            continue
        before = layout
        if what == "nodes":
            layout = with_nodes(layout, given_)  # type: ignore[arg-type]
        elif what == "renew":
            layout = with_node_renewed(layout, str(given_))
        else:
            layout = with_new_epochs(layout, None)
        if layout is not before:
            published_ms = now_ms
            history.append((now_ms, layout))
    return history


def held_together(history: list[tuple[int, Layout]]) -> list[tuple[Layout, Layout]]:
    """Pairs of documents that two clients may work by at one moment: an older one for a lease after its end."""
    pairs = []
    for at, (_, older) in enumerate(history):
        ended_ms = history[at + 1][0] if at + 1 < len(history) else float("inf")
        pairs += [(older, newer) for began_ms, newer in history[at:] if began_ms <= ended_ms + LEASE_MS]
    return pairs


@examples(max_examples=60)
@given(st.booleans(), st.lists(CHANGES, max_size=12), st.integers(0, SLOTS - 1))
def test_no_two_clients_serve_a_key_under_two_names(pool: bool, changes: list[tuple[str, object]], slot: int) -> None:
    """I13: whoever serves a strong read does so where every writer of the same moment tells of its write."""
    for one, other in held_together(documents(POOL if pool else first_layout(), changes)):
        for reader, writer in ((one, other), (other, one)):
            served = reader.prefixes("n", "order", slot)
            if len(served) == 1:  # else strong reads ask the store
                assert served[0] in writer.prefixes("n", "order", slot)


@examples(max_examples=60)
@given(st.lists(CHANGES, max_size=12), st.integers(0, SLOTS - 1))
def test_every_name_of_a_key_is_told_to_the_node_that_has_it(changes: list[tuple[str, object]], slot: int) -> None:
    text = next(text for text in (b"k%d" % n for n in range(100_000)) if slot_of(text) == slot)
    for _, layout in documents(POOL, changes):
        names = {name for node in layout.nodes for name in told(layout, node, text)}
        assert names == set(layout.names("shop", "customer", text))


@examples(max_examples=60)
@given(st.lists(CHANGES, max_size=12), st.integers(0, SLOTS - 1))
def test_a_name_never_comes_back(changes: list[tuple[str, object]], slot: int) -> None:
    current = [layout.prefixes("n", "order", slot)[0] for _, layout in documents(POOL, changes)]
    runs = [name for at, name in enumerate(current) if at == 0 or current[at - 1] != name]
    assert len(runs) == len(set(runs))


# --- the document ----------------------------------------------------------------------------


def test_a_document_of_one_node_is_written_as_before_there_were_pools() -> None:
    """A program from before reads it, so pools come after the deploy and need no deploy of their own."""
    plain = json.loads(encode_layout(with_new_epochs(first_layout(), ["order"])))
    assert plain["format"] == 1
    assert "pool" not in plain["now"]
    assert "pool" not in plain["next"]


def test_a_document_from_before_there_were_pools_is_read() -> None:
    document = b'{"format": 1, "number": 3, "now": {"base": "e", "tenure": "t", "epochs": {}, "modes": {}}}'
    assert decode_layout(document) == Layout(3, Placing("e", "t"))


@examples(max_examples=30)
@given(st.booleans(), st.lists(CHANGES, max_size=6))
def test_a_layout_is_read_as_it_was_written(pool: bool, changes: list[tuple[str, object]]) -> None:
    for _, layout in documents(POOL if pool else first_layout(), changes):
        kept = with_mode(layout, "order", Mode.NO_FILL)
        assert decode_layout(encode_layout(kept)) == kept


def test_the_document_of_a_pool_stays_small() -> None:
    moving = with_nodes(first_layout([f"redis://cache-{n}:6379" for n in range(12)]), ["redis://cache-0:6379"])
    assert len(encode_layout(moving)) < 16 * 1024


def test_a_pool_that_cannot_be_read_is_refused() -> None:
    plain = json.loads(encode_layout(POOL))
    plain["now"]["pool"]["slots"] = plain["now"]["pool"]["slots"][1:]
    with pytest.raises(ConfigError, match="layout document"):
        decode_layout(json.dumps(plain).encode())
