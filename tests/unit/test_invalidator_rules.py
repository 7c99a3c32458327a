"""From changes to keys, and what is done where a change names none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cachelib.entity import Entity
from cachelib.errors import ConfigError
from cachelib.model import RaiseFloor, Revoke, RowChange
from invalidator.rules import Rules, rules_from
from invalidator.sources.base import Event

CUSTOMERS = Entity.from_table("customers", key="id")
ORDERS_OF = Entity("orders-of:{customer_id}", depends_on={"orders": "customer_id", "customers": "id"})
RULES = Rules([CUSTOMERS, ORDERS_OF])


def events(*changes: RowChange) -> list[Event]:
    return [Event("log", str(number), change) for number, change in enumerate(changes)]


def update(number: int, version: int | None = 1, table: str = "customers", **images: Any) -> RowChange:
    return RowChange(table, "update", {"id": number}, version, **images)


def test_one_change_concerns_every_entity_of_its_table() -> None:
    reading = RULES.read(events(update(7, 5)))
    assert {effect.text: type(effect.op()) for effect in reading.effects} == {
        b"customers:7": RaiseFloor,
        b"orders-of:7": Revoke,
    }


def test_many_row_key_is_told_by_the_columns_of_before_and_after() -> None:
    before, after = {"id": 1, "customer_id": 7}, {"id": 1, "customer_id": 8}
    reading = RULES.read(events(update(1, table="orders", before=before, after=after)))
    assert [effect.text for effect in reading.effects] == [b"orders-of:7", b"orders-of:8"]


def test_changes_of_a_key_become_the_newest() -> None:
    reading = RULES.read(events(update(7, 5), update(7, 9), update(7, 6)))
    assert reading.keys == 6
    assert [effect.version for effect in reading.effects] == [9, 0]
    assert reading.highest == 9


def test_null_is_no_key() -> None:
    image = {"id": 1, "customer_id": None}
    reading = RULES.read(events(update(1, table="orders", before=image, after=image)))
    assert not reading.effects
    assert not reading.renew


def test_column_that_the_log_does_not_carry_renews_the_entity() -> None:
    reading = RULES.read(events(update(1, table="orders", before={"id": 1}, after={"id": 1})))
    assert [(entity, reason) for _, entity, reason in reading.renew] == [("orders-of", "bad_key")]
    assert "watch these columns" in reading.problems[0][1]


def test_key_that_does_not_fit_renews_the_entity() -> None:
    reading = RULES.read(events(RowChange("customers", "update", {"id": 1.5}, 1)))
    assert {entity for _, entity, _ in reading.renew} == {"customers", "orders-of"}


def test_truncate_renews_what_depends_on_the_table() -> None:
    reading = RULES.read(events(RowChange("customers", "truncate", version=3)))
    assert [(entity, reason) for _, entity, reason in reading.renew] == [
        ("customers", "truncate"),
        ("orders-of", "truncate"),
    ]


def test_unknown_table_is_counted() -> None:
    assert RULES.read(events(update(1, table="boats"), update(2, table="boats"))).unknown == {"boats": 2}


def test_oldest_change_gives_the_lag() -> None:
    changes = [RowChange("customers", "update", {"id": 1}, 1, at_us=at_us) for at_us in (50, 40, 60)]
    assert RULES.read(events(*changes)).oldest_us == 40


# --- where rules come from ---------------------------------------------------------------------------


def test_rules_in_toml() -> None:
    rules = rules_from(
        [],
        [
            {"template": "customers:{id}", "table": "customers", "stale_ttl": "1m"},
            {"template": "places:{city}:{street}", "table": "places", "key": ["city", "street"], "version": ""},
            {"template": "orders-of:{customer_id}", "depends_on": {"orders": "customer_id"}},
        ],
    )
    assert [entity.versioned for entity in rules.entities] == [True, False, False]
    assert rules.entities[0].lives.stale_ttl_ms == 60_000
    assert list(rules.tables) == ["customers", "orders", "places"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"table": "customers"}, "a rule needs a template"),
        ({"template": "a:{id}"}, "needs table = or depends_on ="),
        ({"template": "a:{id}", "tabel": "a"}, "did you mean 'table'?"),
        ({"template": "a:{id", "table": "a"}, "key template"),
    ],
)
def test_wrong_rule_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        rules_from([], [rule])


@pytest.mark.parametrize("name", ["shop_rules:everything", "shop_rules:by_name", "shop_rules"])
def test_entities_are_imported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_rules.py").write_text(
        "from cachelib.entity import Entity\n"
        "one = Entity.from_table('ones', key='id')\ntwo = Entity('two:{id}', depends_on={'ones': 'id'})\n"
        "everything = [one, two]\nby_name = {'one': one, 'two': two}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("shop_rules", None)
    assert [entity.name for entity in rules_from([name], []).entities] == ["ones", "two"]


def test_function_results_are_no_business_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_results.py").write_text(
        "from cachelib.entity import Entity\nentities = [Entity('report:{day}'), Entity.from_table('ones')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [entity.name for entity in rules_from(["shop_results:entities"], []).entities] == ["ones"]


def test_two_entities_of_one_key_are_refused() -> None:
    with pytest.raises(ConfigError, match="two entities have the key"):
        Rules([Entity("a:{id}", table="a", name="one"), Entity("a:{id}", table="b", name="two")])
