"""Refresh: the invalidator writes a change through where the key is cached, and only what is surely visible."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cachelib.effects import Effect, coalesce
from cachelib.entity import Entity
from cachelib.envelope import decode, encode
from cachelib.errors import ConfigError
from cachelib.item import apply
from cachelib.model import ABSENCE, Fill, Get, Item, Kind, Put, RaiseFloor, Release, RowChange, value_of
from cachelib.policy import Ttl
from cachelib.stores.base import Snapshot
from invalidator.formats.base import Changes
from invalidator.formats.debezium import Debezium
from invalidator.refreshes import LOOK_AFTER_S, Refreshes, Watched, verdict
from invalidator.rules import Reading, Rules, rules_from
from invalidator.sources.base import Event
from invalidator.work import Work
from tests.unit.invalidator_world import Clock, EarlyOutbox, FakeNode, World, at


def name_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"]}


CUSTOMERS = Entity.from_table("customers", key="id", refresh=name_of, jitter=Ttl(jitter=0.0, early=0.0))
RULES = Rules([CUSTOMERS])
NAMED = {"key": {"id": 7}, "after": {"id": 7, "name": "Ada"}}


def change(op: str = "update", version: int | None = 5, after: Any = None, **fields: Any) -> RowChange:
    return RowChange("customers", op, {"id": 7}, version, after=after, **fields)  # type: ignore[arg-type]


def reading(one: RowChange, rules: Rules = RULES) -> Reading:
    return rules.read([Event("log", at(1), one)])


# --- after-images ----------------------------------------------------------------------------


def test_image_is_what_a_load_would_have_filled() -> None:
    (effect,) = reading(change(after={"id": 7, "name": "Ada", "more": 1}, at_us=99)).effects
    put = effect.refresh(lambda: 0.5)
    assert isinstance(put, Put)
    assert CUSTOMERS.packer.unpack(put.content.payload) == {"id": 7, "name": "Ada"}
    assert (put.version, put.change, put.as_of_us, put.ttl_ms) == (5, "update", 99, 3_600_000)
    assert put.token == 0, "I2: it has no lease, so it stores only over known content"


def test_image_of_a_delete_is_absence() -> None:
    (effect,) = reading(change("delete", before={"id": 7})).effects
    assert effect.content == ABSENCE


def broken(row: Mapping[str, Any]) -> Any:
    raise ValueError(row)


@pytest.mark.parametrize(
    ("entity", "after", "why"),
    [
        (CUSTOMERS, {"id": 7}, "incomplete"),
        (CUSTOMERS, None, "incomplete"),
        (CUSTOMERS, {"id": 7, "name": "x" * 2000}, "too_large"),
        (CUSTOMERS, {"id": 7, "name": object()}, "failed"),
        (Entity.from_table("customers", key="id", refresh=broken), {"id": 7, "name": "Ada"}, "failed"),
    ],
)
def test_change_without_a_sure_image_voids_as_without_refresh(entity: Entity, after: Any, why: str) -> None:
    found = reading(change(after=after), Rules([entity], 1000))
    (effect,) = found.effects
    assert effect.refresh(lambda: 0.5) is None
    assert isinstance(effect.op(), RaiseFloor)
    assert found.unmade == {("customers", why): 1}


def test_change_without_a_version_is_not_written_through() -> None:
    (effect,) = reading(change(version=None, after={"id": 7, "name": "Ada"})).effects
    assert effect.content is None


def test_image_of_an_event_of_debezium_is_the_row_with_its_types() -> None:
    row = {"id": 7, "name": "Ada", "row_version": 12}
    source = {"connector": "postgresql", "schema": "public", "table": "customers", "txId": 3, "ts_us": 1_700_000}
    value = json.dumps({"before": None, "after": row, "source": source, "op": "u", "ts_ms": 6}).encode()
    told = Debezium()("shop.public.customers", b'{"id":7}', value)
    assert isinstance(told, Changes)
    (effect,) = reading(told.changes[0]).effects
    put = effect.refresh(lambda: 0.0)
    assert put is not None
    assert CUSTOMERS.packer.unpack(put.content.payload) == {"id": 7, "name": "Ada"}
    assert (put.version, put.as_of_us) == (12, 1_700_000)


# --- declaring -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"refresh": True, "table": "customers"}, "give a function"),
        ({"refresh": name_of, "depends_on": {"orders": "id"}}, "needs table= and version="),
        ({"refresh": name_of, "table": "customers", "version": None}, "needs table= and version="),
        ({"refresh": name_of, "table": "customers", "tombstone_ttl": "5s"}, "not both"),
    ],
)
def test_entity_that_cannot_be_refreshed_says_why(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Entity("customers:{id}", **settings)


def test_rule_of_a_file_has_no_function_and_says_where_one_can_be() -> None:
    with pytest.raises(ConfigError, match="only a function can tell"):
        rules_from([], [{"template": "customers:{id}", "table": "customers", "refresh": True}])


# --- one change, told twice ------------------------------------------------------------------


def effect(version: int, op: str = "update", content: Any = None) -> Effect:
    return Effect(CUSTOMERS, 7, b"customers:7", version, change(op, version), content=content)


@pytest.mark.parametrize("op", ["create", "update"])
def test_first_and_last_look_in_one_batch_write_through(op: str) -> None:
    value = value_of(b"five")
    (both,) = coalesce([effect(5, op), effect(5, op, value)])
    assert both.content == value
    (again,) = coalesce([effect(5, op, value), effect(5, op)])
    assert again.content == value


def test_newer_change_at_its_first_look_keeps_an_older_image_out() -> None:
    (newest,) = coalesce([effect(5, content=value_of(b"five")), effect(6)])
    assert newest.refresh(lambda: 0.5) is None
    assert newest.op() == RaiseFloor(6, "update", CUSTOMERS.lives.stale_ttl_ms)


def test_what_waits_takes_room_by_its_bytes() -> None:
    plain = Work((effect(5),), 1, {}, {})
    heavy = Work((effect(5, content=value_of(b"x" * 10_240)),), 1, {}, {})
    assert (plain.room, heavy.room) == (2, 12)
    assert heavy.early().room == 2


# --- in the daemon ---------------------------------------------------------------------------


def daemon(source: Any = None, **apply: Any) -> World:
    world = World(**({"source": source} if source else {}), settle_delay="1h", refresh_watch=0, **apply)
    world.rules = world.new_rules = RULES
    world.start()
    world.go()
    return world


def test_cached_key_is_written_through_and_one_that_is_not_is_left_out() -> None:
    world = daemon()
    name = world.cache(version=0)
    world.store.version = 10
    world.store.change(**NAMED)
    world.store.change(key={"id": 8}, after={"id": 8, "name": "Bob"})
    world.go()
    raw = world.node().get(name)
    assert raw is not None
    item = decode(raw)
    assert CUSTOMERS.packer.unpack(item.content.payload)["name"] == "Ada"
    assert (item.version, item.floor) == (11, 11)
    assert world.node().get(world.name_of("customers:8")) is None, "I2: nothing enters an empty slot"
    assert world.metric("refreshes_total", node="a", answer="stored") == 1
    assert world.metric("refreshes_total", node="a", answer="noop") == 1


def test_change_that_is_not_visible_is_written_through_only_at_its_last_look() -> None:
    world = daemon(EarlyOutbox)
    hidden = {5}
    world.store.snapshot = lambda: Snapshot(min(hidden, default=1000), 1000, frozenset(hidden))  # type: ignore[attr-defined]
    world.start()
    world.go()
    name = world.cache(version=0)
    world.store.change(**NAMED, tx=5)
    world.go()
    item = decode(world.node().get(name) or b"")
    assert not item.fresh, "its first look voids"
    assert item.content.payload == b"x"
    hidden.clear()
    world.go()
    item = decode(world.node().get(name) or b"")
    assert item.fresh
    assert CUSTOMERS.packer.unpack(item.content.payload)["name"] == "Ada"


def test_change_that_is_visible_at_once_is_written_through_at_once() -> None:
    world = daemon(EarlyOutbox)
    world.store.snapshot = lambda: Snapshot(1000, 1000)  # type: ignore[attr-defined]
    world.start()
    world.go()
    name = world.cache(version=0)
    world.store.change(**NAMED, tx=5)
    world.go()
    assert decode(world.node().get(name) or b"").fresh


def test_unmade_images_are_counted_by_why() -> None:
    world = daemon()
    world.store.change(key={"id": 7}, after={"id": 7})
    world.go()
    assert world.metric("images_unmade_total", entity="customers", why="incomplete") == 1


# --- of use? ---------------------------------------------------------------------------------

NAME = b"lc/x/customers:7"
NOW_MS = 1_000_000


def put(version: int, content: Any = None) -> Put:
    return Put(content or value_of(b"new"), version, "update", 60_000, 0, 30_000, as_of_us=77)


def watched(one_in: int = 1) -> tuple[Refreshes, FakeNode, Clock]:
    clock = Clock()
    node = FakeNode(clock)
    node.plant(NAME, encode(Item(value_of(b"x"), version=1, known=True, floor=1, expires_ms=clock.ms() + 60_000)))
    refreshes = Refreshes(one_in, clock)
    batch = [(NAME, refreshes.chosen(put(5)))]
    refreshes.answered(batch, node.apply(batch, {}, clock.ms()), clock.ms())
    return refreshes, node, clock


def test_put_that_nobody_reads_is_of_no_use() -> None:
    refreshes, node, _ = watched()
    refreshes.look(node, [NAME])
    assert refreshes.told.verdicts == {"unread": 1}
    assert len(refreshes) == 0


def test_put_that_is_read_before_the_next_change_is_of_use() -> None:
    refreshes, node, clock = watched()
    clock.now_s += 1
    node.execute(NAME, Get(9, 3000), clock.ms())  # its reader is asked to refresh it early
    refreshes.look(node, [NAME])
    assert refreshes.told.verdicts == {"read": 1}


def test_put_is_of_use_also_once_its_reader_has_filled() -> None:
    refreshes, node, clock = watched()
    clock.now_s += 1
    node.execute(NAME, Get(9, 3000), clock.ms())
    node.execute(NAME, Fill(9, value_of(b"new"), 5, 60_000, 30_000, 99), clock.ms())
    refreshes.look(node, [NAME])
    assert refreshes.told.verdicts == {"read": 1}


def test_put_that_was_evicted_says_nothing() -> None:
    refreshes, node, _ = watched()
    node.restart()
    refreshes.look(node, [NAME])
    assert refreshes.told.verdicts == {"unknown": 1}


def test_put_whose_key_does_not_change_is_looked_at_after_a_while() -> None:
    refreshes, node, clock = watched()
    refreshes.look(node, [])
    assert len(refreshes) == 1
    clock.now_s += LOOK_AFTER_S
    refreshes.look(node, [])
    assert len(refreshes) == 0


def test_lost_connection_says_nothing_of_what_was_put_over_it() -> None:
    refreshes, _, _ = watched()
    refreshes.lost()
    assert refreshes.take().verdicts == {"unknown": 1}
    assert refreshes.take().verdicts == {}


def test_only_one_in_so_many_is_watched() -> None:
    refreshes, _, _ = watched(one_in=0)
    assert len(refreshes) == 0
    chosen = Refreshes(10, Clock())
    marked = sum(chosen.chosen(put(5)).soft_ttl_ms == 1 for _ in range(2000))
    assert 100 < marked < 320


def test_absence_is_not_watched() -> None:
    assert Refreshes(1, Clock()).chosen(put(5, ABSENCE)).soft_ttl_ms == 30_000


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ([], "unread"),
        ([Get(9, 3000)], "read"),
        ([Get(9, 3000), Release(9)], "unread"),  # its load failed: documented
        ([RaiseFloor(6, "update", 1000)], "unread"),
        ([RaiseFloor(6, "update", 1000), Get(9, 3000)], "unknown"),  # who asks now is shown nothing of the put
        ([Put(value_of(b"newer"), 7, "update", 60_000, 0)], "unknown"),
        ([Put(ABSENCE, 7, "delete", 60_000, 0)], "unknown"),
    ],
)
def test_verdict_follows_from_the_item_alone(done: list[Any], said: str) -> None:
    item: Item | None = Item(value_of(b"x"), version=1, known=True, floor=1, expires_ms=NOW_MS + 60_000)
    for step, op in enumerate([Refreshes(1, Clock()).chosen(put(5)), *done]):
        item, _ = apply(item, op, NOW_MS + 10 * step)
    assert item is not None
    assert item.content.kind is not Kind.NONE
    assert verdict(Watched(5, NOW_MS + 1, 77, 0.0), encode(item)) == said
    assert verdict(Watched(5, NOW_MS + 1, 77, 0.0), b"garbage") == "unknown"
