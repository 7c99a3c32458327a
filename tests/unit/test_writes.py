"""What a session keeps of a transaction that was refused, that is committed, and of which nobody knows."""

from __future__ import annotations

from cachelib import Entity, Strong
from cachelib.effects import Effect
from cachelib.history import History, key_mark
from cachelib.model import ANY, Requirement, RowChange
from cachelib.writes import Writes

ORDERS = Entity("order:{id}", table="orders")
LISTS = Entity("orders-of:{customer}", depends_on={"orders": "customer_id"})
ACCOUNTS = Entity("account:{id}", table="accounts", consistency=Strong())
NOW_US = 5_000


def effect(entity: Entity = ORDERS, version: int = 7, *, force: bool = False) -> Effect:
    return Effect(entity, 1, entity.text(1), version, RowChange("orders", "update"), force)


def asks(writes: Writes, one: Effect) -> Requirement:
    history = History("")
    writes.remember(history, NOW_US)
    return history.ground(key_mark(one.entity.name, one.text), 0)[0].requirement


def sent(one: Effect) -> Writes:
    writes = Writes()
    writes.sent([one])
    return writes


def test_transaction_that_was_not_sent_or_was_refused_asks_for_nothing() -> None:
    one = effect()
    refused = sent(one)
    refused.refused()
    assert asks(Writes(), one) == asks(refused, one) == ANY


def test_committed_write_asks_for_its_version() -> None:
    one = effect()
    writes = sent(one)
    writes.done()
    assert asks(writes, one) == Requirement(min_version=7)


def test_commit_of_unknown_outcome_asks_for_what_is_loaded_from_now_on() -> None:
    """Its version may never exist: to ask for it would miss for ever."""
    one = effect()
    assert asks(sent(one), one) == Requirement(min_as_of_us=NOW_US)


def test_write_without_a_version_asks_for_what_is_loaded_from_now_on() -> None:
    for one in (effect(LISTS, 0), effect(version=7, force=True)):
        writes = sent(one)
        writes.done()
        assert asks(writes, one) == Requirement(min_as_of_us=NOW_US)


def test_confirmed_write_of_a_strong_entity_asks_for_nothing_as_everybody_sees_it() -> None:
    one = effect(ACCOUNTS)
    confirmed, lost = sent(one), sent(one)
    for writes in (confirmed, lost):
        writes.done()
    confirmed.confirmed([one])
    assert asks(confirmed, one) == ANY
    assert asks(lost, one) == Requirement(min_as_of_us=NOW_US)


def test_bulk_write_asks_for_later_loads_of_every_key() -> None:
    writes = Writes()
    writes.sent(None)
    writes.done()
    assert asks(writes, effect()) == Requirement(min_as_of_us=NOW_US)
