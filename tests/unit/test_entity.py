"""Entities: what is declared is checked when it is declared, and the message says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cachelib.entity import Entity, TableLoader
from cachelib.errors import BadKey, ConfigError
from cachelib.policy import Eventual, LeasePolicy, OnFailure, Strong, Ttl

WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: Entity("o:{id}", tll="1h"), "no setting 'tll': did you mean 'ttl'"),
    (lambda: Entity("o:{id}", consistancy=Strong()), "did you mean 'consistency'"),
    (lambda: Entity("o"), "key template 'o'"),
    (lambda: Entity("o:{id}", ttl="soon"), "ttl of entity 'o' is 'soon'"),
    (lambda: Entity("o:{id}", ttl="10ms"), "ttl of entity 'o'.*between 1000 ms"),
    (lambda: Entity("o:{id}", negative_ttl=0), "negative_ttl of entity 'o'"),
    (lambda: Entity("o:{id}", stale_ttl="-1s"), "stale_ttl of entity 'o'"),
    (lambda: Entity("o:{id}", tombstone_ttl=True), "tombstone_ttl of entity 'o'"),
    (lambda: Entity("o:{id}", write="trough"), "write of entity 'o'.*did you mean 'through'"),
    (lambda: Entity("o:{id}", consistency="strong"), r"'strong', not Eventual\(\), Bounded\('2s'\) or Strong\(\)"),
    (lambda: Entity("o:{id}", consistency=Strong()), "give table= or depends_on="),
    (lambda: Entity("o:{id}", lease="3s"), r"lease is '3s': give lease=LeasePolicy\("),
    (lambda: Entity("o:{id}", jitter=0.2), r"jitter is 0.2: give jitter=Ttl\("),
    (lambda: Entity("o:{id}", on_failure="store"), r"on_failure is 'store': give on_failure=OnFailure\("),
    (lambda: Entity("o:{id}", codec="msgpak"), "did you mean 'msgpack'"),
    (lambda: Entity("o:{id}", schema=300), "schema is 300"),
    (lambda: Entity("o:{id}", compress_over="1k"), "compress_over is '1k'"),
    (lambda: Entity("o:{id}", table="a", depends_on={"b": "id"}), "not both"),
    (lambda: Entity("o:{id}", depends_on=["b"]), r"depends_on is \['b'\]: give each table"),
    (lambda: Entity("o:{id}", table="a", key=("x", "y")), r"2 columns \('x', 'y'\) for the 1 fields"),
    (lambda: Entity("o:{a}:{b}", depends_on={"t": "a"}), "1 columns"),
]


@pytest.mark.parametrize(("build", "says"), WRONG)
def test_a_wrong_declaration_says_what_to_do(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build()


def test_an_entity_has_usable_defaults() -> None:
    entity = Entity("order:{id}")
    assert (entity.name, entity.write, entity.consistency) == ("order", "through", Eventual())
    assert (entity.lives.ttl_ms, entity.lives.negative_ttl_ms, entity.lives.stale_ttl_ms) == (
        3_600_000,
        30_000,
        300_000,
    )
    assert entity.pace.wait_ms_max > entity.pace.hold_ms


def test_policies_arrive_in_milliseconds() -> None:
    entity = Entity(
        "order:{id}",
        lease=LeasePolicy(hold="1s", wait="20ms", wait_max="2s"),
        jitter=Ttl(jitter=0, early="50%"),
        ttl=60,
    )
    assert (entity.pace.hold_ms, entity.pace.wait_ms, entity.pace.wait_ms_max) == (1000, 20, 2000)
    assert (entity.lives.ttl_ms, entity.lives.jitter, entity.lives.early) == (60_000, 0, 0.5)


def test_a_table_gives_template_key_and_loader() -> None:
    entity = Entity.from_table("stock", key=("shop", "item"))
    assert entity.template.text == "stock:{shop}:{item}"
    assert entity.load == TableLoader("stock", ("shop", "item"), "row_version")
    assert (entity.table, entity.key, entity.versioned) == ("stock", ("shop", "item"), True)


def test_a_table_takes_another_template_and_loader() -> None:
    entity = Entity.from_table("customers", template="c/{id:int}", load=dict)
    assert entity.text(7) == b"c/7"
    assert entity.load is dict


@pytest.mark.parametrize(
    ("settings", "versioned"),
    [
        ({"table": "t"}, True),
        ({"table": "t", "version": None}, False),
        ({"depends_on": {"t": "id"}}, False),
        ({}, False),
    ],
)
def test_only_rows_of_a_table_with_versions_compare(settings: dict[str, Any], versioned: bool) -> None:
    assert Entity("o:{id}", **settings).versioned is versioned


@pytest.mark.parametrize(
    ("settings", "confirm"),
    [
        ({}, False),
        ({"consistency": Strong()}, True),
        ({"on_failure": OnFailure(write="confirm")}, True),
    ],
)
def test_strong_entities_demand_confirmation(settings: dict[str, Any], confirm: bool) -> None:
    assert Entity("o:{id}", table="t", **settings).confirm is confirm


def test_many_rows_may_be_strong() -> None:
    assert Entity("orders-of:{c}", depends_on={"orders": "c"}, consistency=Strong()).strong


def test_a_bad_key_is_refused_by_name() -> None:
    with pytest.raises(BadKey, match="order"):
        Entity("order:{id:int}").text("x")


def test_two_entities_of_one_template_are_two() -> None:
    assert Entity("o:{id}") != Entity("o:{id}")
