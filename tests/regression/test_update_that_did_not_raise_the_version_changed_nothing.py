"""A row was replaced, or changed by somebody who does not know of versions, and its item stayed as it was for ever.

Order of events: a row has version 5, counted by the application · `replace into` gives it version 1, or an update
leaves it at 5 · the topic has an update with that version · the item knows 5, so the change is taken for an old one.

MariaDB logs a `replace` as an update, so the rule for a counter that begins anew, which is about creates, does not
help. Of its class: every statement of a database, against versions that it does not draw (`mariadb/test_chain.py`).
"""

from __future__ import annotations

import json

import pytest

from cachelib.effects import effects
from cachelib.entity import Entity
from cachelib.model import Revoke
from invalidator.formats.base import Changes
from invalidator.formats.debezium import Debezium

SOURCE = {"connector": "mariadb", "db": "shop", "table": "orders", "ts_us": 9}
ORDERS = Entity.from_table("shop.orders", key="id")


@pytest.mark.parametrize("version", [1, 4, 5])
def test_it_voids_the_item_whatever_that_knows(version: int) -> None:
    images = {"before": {"id": 1, "row_version": 5}, "after": {"id": 1, "row_version": version}}
    value = json.dumps(images | {"source": SOURCE, "op": "u"}).encode()
    answer = Debezium()("p.shop.orders", b'{"id":1}', value)
    assert isinstance(answer, Changes)
    (change,) = answer.changes
    assert change.version is None
    assert [type(effect.op()) for effect in effects(ORDERS, change)] == [Revoke]


def test_a_version_that_rose_is_one() -> None:
    images = {"before": {"id": 1, "row_version": 5}, "after": {"id": 1, "row_version": 6}}
    value = json.dumps(images | {"source": SOURCE, "op": "u"}).encode()
    answer = Debezium()("p.shop.orders", b'{"id":1}', value)
    assert isinstance(answer, Changes)
    assert answer.changes[0].version == 6
