"""The layout: names, the two steps of a change, and a document that is ours or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.errors import ConfigError
from cachelib.layout import (
    LEASE_MS,
    REFRESH_MS,
    Layout,
    Placing,
    completed,
    decode_layout,
    encode_layout,
    first_layout,
    fresh_name,
    with_mode,
    with_new_epochs,
)
from cachelib.policy import Mode

START = Layout(1, Placing("e0", "t0"))
NAMES = st.text("abcdefgh-:", min_size=1, max_size=10)
PLACINGS = st.builds(
    Placing,
    NAMES,
    NAMES,
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.dictionaries(NAMES | st.just("*"), st.sampled_from(Mode), max_size=3),
)
LAYOUTS = st.builds(Layout, st.integers(1, 2**40), PLACINGS, st.none() | PLACINGS)


def test_a_client_reads_the_layout_twice_in_a_lease() -> None:
    assert LEASE_MS >= 2 * REFRESH_MS


# --- names -----------------------------------------------------------------------------------


def test_a_prefix_is_namespace_epoch_and_tenure() -> None:
    assert START.prefixes("shop", "order") == (b"shop/e0.t0/",)


def test_an_entity_with_an_epoch_of_its_own_has_its_own_prefix() -> None:
    layout = Layout(1, Placing("e0", "t0", {"order": "e7"}))
    assert layout.prefixes("shop", "order") == (b"shop/e7.t0/",)
    assert layout.prefixes("shop", "customer") == (b"shop/e0.t0/",)


def test_names_are_never_drawn_twice() -> None:
    assert len({fresh_name() for _ in range(1000)}) == 1000


# --- a change in two steps -------------------------------------------------------------------


def test_a_new_epoch_is_published_behind_the_current_one() -> None:
    layout = with_new_epochs(START, ["order"])
    current, coming = layout.prefixes("n", "order")
    assert current == START.prefixes("n", "order")[0]
    assert coming != current
    assert layout.number == 2


def test_only_the_entities_named_get_a_new_epoch() -> None:
    layout = with_new_epochs(START, ["order"])
    assert layout.prefixes("n", "customer") == START.prefixes("n", "customer")


def test_a_new_epoch_for_all_replaces_those_that_entities_had() -> None:
    before = completed(with_new_epochs(START, ["order"]))
    after = completed(with_new_epochs(before, None))
    for entity in ("order", "customer"):
        assert after.prefixes("n", entity) != before.prefixes("n", entity)
    assert after.prefixes("n", "order") == after.prefixes("n", "customer")


def test_what_is_published_becomes_current_when_it_is_completed() -> None:
    layout = with_new_epochs(START, ["order"])
    assert completed(layout).prefixes("n", "order") == layout.prefixes("n", "order")[1:]
    assert completed(layout).number == 3


def test_completing_nothing_changes_nothing() -> None:
    assert completed(START) is START


def test_a_second_change_is_published_on_top_of_the_first() -> None:
    first = with_new_epochs(START, ["order"])
    both = with_new_epochs(first, ["customer"])
    assert both.prefixes("n", "order") == first.prefixes("n", "order")
    assert len(both.prefixes("n", "customer")) == 2
    assert both.number == 3


@given(LAYOUTS, st.none() | st.lists(NAMES, max_size=3))
def test_a_change_never_gives_an_old_name_again(layout: Layout, entities: list[str] | None) -> None:
    changed = completed(with_new_epochs(layout, entities))
    for entity in entities if entities is not None else ["any"]:
        assert not set(changed.prefixes("n", entity)) & set(layout.prefixes("n", entity))


@given(LAYOUTS)
def test_every_step_counts_up(layout: Layout) -> None:
    steps = [with_new_epochs(layout, None), with_mode(layout, "order", Mode.BYPASS)]
    assert [step.number for step in steps] == [layout.number + 1] * 2
    assert completed(steps[0]).number == layout.number + 2


# --- modes -----------------------------------------------------------------------------------


def test_a_mode_is_that_of_the_entity_then_of_all() -> None:
    layout = with_mode(with_mode(START, "*", Mode.NO_FILL), "order", Mode.BYPASS)
    assert (layout.mode("order"), layout.mode("customer")) == (Mode.BYPASS, Mode.NO_FILL)


def test_one_entity_stays_on_while_all_others_are_off() -> None:
    layout = with_mode(with_mode(START, "*", Mode.BYPASS), "order", Mode.ON)
    assert (layout.mode("order"), layout.mode("customer")) == (Mode.ON, Mode.BYPASS)


def test_a_mode_is_taken_back() -> None:
    layout = with_mode(with_mode(START, "*", Mode.BYPASS), "*", Mode.ON)
    assert layout.mode("order") is Mode.ON
    assert layout.now == START.now


def test_a_mode_changes_no_name_and_holds_now_and_later() -> None:
    moving = with_new_epochs(START, ["order"])
    layout = with_mode(moving, "order", Mode.NO_FILL)
    assert layout.prefixes("n", "order") == moving.prefixes("n", "order")
    assert layout.mode("order") is completed(layout).mode("order") is Mode.NO_FILL


# --- the document ----------------------------------------------------------------------------


@given(LAYOUTS)
def test_a_document_says_what_was_written(layout: Layout) -> None:
    assert decode_layout(encode_layout(layout)) == layout


def test_the_same_layout_has_the_same_document() -> None:
    one = Placing("e", "t", {"a": "1", "b": "2"})
    other = Placing("e", "t", {"b": "2", "a": "1"})
    assert encode_layout(Layout(1, one)) == encode_layout(Layout(1, other))


DOCUMENT = json.loads(encode_layout(with_new_epochs(START, ["order"])))


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\xff",
        json.dumps({**DOCUMENT, "format": 3}).encode(),
        json.dumps({name: part for name, part in DOCUMENT.items() if name != "now"}).encode(),
        json.dumps({**DOCUMENT, "now": {}}).encode(),
        json.dumps({**DOCUMENT, "now": []}).encode(),
        json.dumps({**DOCUMENT, "next": {"base": "x"}}).encode(),
        json.dumps({**DOCUMENT, "number": "x"}).encode(),
        json.dumps({**DOCUMENT, "now": {**DOCUMENT["now"], "modes": {"order": "off"}}}).encode(),
        json.dumps({**DOCUMENT, "now": {**DOCUMENT["now"], "epochs": 7}}).encode(),
        json.dumps({**DOCUMENT, "now": {**DOCUMENT["now"], "epochs": [1]}}).encode(),
    ],
)
def test_a_damaged_or_later_document_is_refused(damaged: bytes) -> None:
    with pytest.raises(ConfigError, match="layout document"):
        decode_layout(damaged)


@given(st.binary(max_size=30))
def test_garbage_is_no_layout(garbage: bytes) -> None:
    with pytest.raises(ConfigError, match="layout document"):
        decode_layout(garbage)


def test_a_first_layout_is_one_of_its_own() -> None:
    assert first_layout().now != first_layout().now
    assert first_layout().number == 1
