"""From changes to keys, and several changes of one key to one operation that is at least as safe."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cachelib.effects import Effect, coalesce, concerns, effects
from cachelib.entity import Entity
from cachelib.errors import BadKey
from cachelib.item import apply, may_serve_stale, serves
from cachelib.model import ANY, Content, Fill, Item, Kind, RaiseFloor, Revoke, RowChange, Stored, value_of

ORDERS = Entity("order:{id:int}", table="orders", stale_ttl="30s")
OLD = Entity("old:{id:int}", table="orders", version=None)
OF = Entity("orders-of:{customer_id:int}", depends_on={"orders": "customer_id", "customers": "id"})
STOCK = Entity("stock:{shop}:{item}", table="stock", key=("shop", "item"))


def change(op: str = "update", version: int | None = 5, table: str = "orders", **columns: object) -> RowChange:
    return RowChange(table, op, columns or {"id": 7}, version)  # type: ignore[arg-type]


# --- which keys ------------------------------------------------------------------------------


def test_a_row_changes_its_own_key() -> None:
    (effect,) = effects(ORDERS, change())
    assert (effect.key, effect.text, effect.version) == (7, b"order:7", 5)


def test_columns_stand_in_the_order_of_the_template() -> None:
    (effect,) = effects(STOCK, change(table="stock", item=1, shop="a"))
    assert effect.text == b"stock:a:1"


def test_another_table_changes_nothing() -> None:
    assert effects(ORDERS, change(table="customers")) == []


def test_a_truncate_names_no_key() -> None:
    assert effects(ORDERS, RowChange("orders", "truncate")) == []


def test_a_moved_row_changes_the_lists_it_left_and_entered() -> None:
    moved = RowChange("orders", "update", {"id": 7}, 5, before={"customer_id": 1}, after={"customer_id": 2})
    assert [effect.text for effect in effects(OF, moved)] == [b"orders-of:1", b"orders-of:2"]


def test_a_row_that_stays_in_its_list_changes_it_once() -> None:
    stays = RowChange("orders", "update", {"id": 7}, 5, before={"customer_id": 1}, after={"customer_id": 1})
    assert [effect.text for effect in effects(OF, stays)] == [b"orders-of:1"]


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        (None, {"customer_id": 1}, [b"orders-of:1"]),
        ({"customer_id": 1}, None, [b"orders-of:1"]),
        ({"customer_id": None}, {"customer_id": 2}, [b"orders-of:2"]),
        ({"customer_id": None}, {"customer_id": None}, []),
        ({}, {}, []),
    ],
)
def test_a_list_is_named_by_the_images_that_have_its_column(
    before: dict[str, object] | None, after: dict[str, object] | None, texts: list[bytes]
) -> None:
    one = RowChange("orders", "update", {"id": 7}, 5, before=before, after=after)
    assert [effect.text for effect in effects(OF, one)] == texts


def test_without_images_the_key_names_the_list() -> None:
    assert [effect.text for effect in effects(OF, change(table="customers", id=3))] == [b"orders-of:3"]


def test_a_column_that_fits_no_key_is_told() -> None:
    with pytest.raises(BadKey):
        effects(ORDERS, change(id="x"))


def test_entities_are_concerned_by_their_tables() -> None:
    assert concerns(ORDERS, ["orders"])
    assert concerns(OF, ["x", "customers"])
    assert not concerns(ORDERS, ["customers"])
    assert not concerns(Entity("report:{day}"), ["orders"])


# --- which operation -------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "kind"), [("create", "create"), ("update", "update"), ("delete", "delete")])
def test_a_versioned_change_raises_the_floor(op: str, kind: str) -> None:
    (effect,) = effects(ORDERS, change(op))
    assert effect.op() == RaiseFloor(5, kind, 30_000)  # type: ignore[arg-type]


@pytest.mark.parametrize(("op", "create"), [("create", True), ("update", False), ("delete", False)])
def test_a_change_without_a_version_revokes(op: str, create: bool) -> None:
    for entity, version in ((ORDERS, None), (OLD, 5)):
        (effect,) = effects(entity, change(op, version))
        assert effect.op() == Revoke(entity.lives.stale_ttl_ms, create=create)


@pytest.mark.parametrize("op", ["create", "update", "delete"])
def test_a_key_of_many_rows_is_always_revoked(op: str) -> None:
    (effect,) = effects(OF, RowChange("orders", op, {"id": 7}, 5, after={"customer_id": 1}))  # type: ignore[arg-type]
    assert effect.op() == Revoke(300_000)


def test_tombstones_are_left_where_the_entity_asks_for_them() -> None:
    entity = Entity("order:{id}", table="orders", tombstone_ttl="10s")
    (effect,) = effects(entity, change())
    assert effect.op() == RaiseFloor(5, "update", 300_000, 10_000)


# --- several of one key ----------------------------------------------------------------------

NOW = 1_000_000
LEASE = 99
VERSIONS = st.integers(1, 6)
FLOORS = st.integers(0, 6)
CONTENT = st.sampled_from([Content(Kind.NONE), Content(Kind.ABSENCE), value_of(b"v")])


@st.composite
def items(draw: st.DrawFn) -> Item:
    """Whatever the machine may have left behind: content, floor and lease in any combination it allows."""
    content, floor = draw(CONTENT), draw(FLOORS)
    void = draw(st.booleans())
    version = 0 if content.kind is Kind.NONE else draw(FLOORS)
    assume(void or content.kind is Kind.NONE or version <= floor)
    return Item(
        content=content,
        void=void,
        known=version != 0 and draw(st.booleans()),
        version=version,
        floor=floor,
        floor_gone=floor != 0 and draw(st.booleans()),
        lease=draw(st.sampled_from([0, LEASE])),
        lease_until_ms=NOW + 1000,
        expires_ms=NOW + 10_000,
    )


CHANGES = st.builds(
    lambda op, version: RowChange("orders", op, {"id": 7}, version),
    st.sampled_from(["create", "update", "delete"]),
    st.none() | VERSIONS,
)


def after(item: Item | None, found: list[Effect]) -> Item | None:
    for effect in found:
        item, _ = apply(item, effect.op(), NOW)
    return item


def shows(item: Item | None) -> bool:
    return item is not None and serves(item, ANY)


def lets_in(item: Item | None, version: int) -> bool:
    """A load that began before the changes comes back with this version (0: absence without one)."""
    content = value_of(b"loaded") if version else Content(Kind.ABSENCE)
    return isinstance(apply(item, Fill(LEASE, content, version, 1000), NOW)[1], Stored)


def restarted() -> list[RowChange]:
    """A counter that began anew: the row was deleted with version 6 and came back with 1."""
    return [RowChange("orders", "create", {"id": 7}, 1), RowChange("orders", "update", {"id": 7}, 2)]


@given(items(), st.lists(CHANGES, min_size=1, max_size=5))
@example(Item(Content(Kind.ABSENCE), known=True, version=6, floor=6, expires_ms=NOW + 1), restarted())
@example(
    Item(Content(Kind.ABSENCE), known=True, version=6, floor=6, expires_ms=NOW + 1), [*restarted(), change("delete", 3)]
)
def test_what_is_left_of_several_changes_serves_nothing_that_all_in_turn_would_not(
    item: Item, changes: list[RowChange]
) -> None:
    all_of = [effect for one in changes for effect in effects(ORDERS, one)]
    (left,) = coalesce(all_of)
    assert not shows(after(item, [left])) or shows(after(item, all_of))


@given(items(), st.lists(CHANGES, min_size=1, max_size=5), FLOORS)
def test_what_is_left_of_several_changes_lets_no_older_load_in(
    item: Item, changes: list[RowChange], version: int
) -> None:
    assume(any(one.version is None or version < one.version for one in changes))
    all_of = [effect for one in changes for effect in effects(ORDERS, one)]
    (left,) = coalesce(all_of)
    assert not lets_in(after(item, [left]), version) or lets_in(after(item, all_of), version)


@given(items(), st.lists(CHANGES, min_size=1, max_size=4), st.integers(1, 3))
def test_it_does_not_matter_how_changes_are_cut_into_batches(item: Item, changes: list[RowChange], cut: int) -> None:
    all_of = [effect for one in changes for effect in effects(ORDERS, one)]
    in_two = after(after(item, coalesce(all_of[:cut])), coalesce(all_of[cut:]))
    assert not shows(in_two) or shows(after(item, all_of))


@given(items(), st.lists(CHANGES, min_size=1, max_size=5))
def test_what_is_voided_may_still_be_shown_as_stale(item: Item, changes: list[RowChange]) -> None:
    (left,) = coalesce(effect for one in changes for effect in effects(ORDERS, one))
    state = after(item, [left])
    assert state is not None
    assert may_serve_stale(state, NOW) == (item.content.kind is not Kind.NONE and (item.fresh or shows(state)))


def test_keys_of_different_entities_do_not_meet() -> None:
    twin = Entity("order:{id:int}", table="orders", name="twin")
    found = [*effects(ORDERS, change(version=5)), *effects(twin, change(version=6)), *effects(ORDERS, change(id=8))]
    assert coalesce(found) == found


def test_the_newest_version_is_what_is_left_of_updates() -> None:
    found = [effect for version in (3, 5, 4) for effect in effects(ORDERS, change(version=version))]
    (left,) = coalesce(found)
    assert left.op() == RaiseFloor(5, "update", 30_000)


def test_a_row_that_is_created_and_then_changed_was_created() -> None:
    (left,) = coalesce([*effects(ORDERS, change("create", 5)), *effects(ORDERS, change("update", 6))])
    assert left.op() == RaiseFloor(6, "create", 30_000)


def test_a_change_twice_is_the_change() -> None:
    (effect,) = effects(ORDERS, change())
    assert coalesce([effect, replace(effect)]) == [effect]
