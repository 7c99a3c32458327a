"""The end of a transaction, in the protocol's order: read the changes, prepare, commit, tell, acknowledge (I7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from cachelib import Cache, CommitUnknown, Entity, OnFailure, Row, StoreError, Strong, Unconfirmed, Written
from cachelib import puts as puts_module
from cachelib.backends import Memory
from cachelib.backends.base import Batch, Results
from cachelib.breaker import Breaker
from cachelib.envelope import decode
from cachelib.errors import CacheUnavailable, ConfigError, LayoutConflict
from cachelib.layout import LEASE_MS, decode_layout, encode_layout, first_layout, with_new_epochs
from cachelib.model import Item, Kind, Name, RowChange
from cachelib.stores.base import Loaded


class FakeTransaction:
    """Rows change by hand. `steps` is the order of events, shared with the cache."""

    connection = None

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.log: list[RowChange] = []
        self.bulk = False
        self.rows = dict(store.rows)

    def set(self, key: int, value: Any) -> None:
        self._store.version += 1
        op = "update" if key in self.rows else "create"
        self.rows[key] = Row(value, self._store.version)
        self.log.append(RowChange("orders", op, {"id": key}, self._store.version, after={"id": key, "owner": 1}))  # type: ignore[arg-type]

    def remove(self, key: int) -> None:
        self._store.version += 1
        del self.rows[key]
        self.log.append(RowChange("orders", "delete", {"id": key}, self._store.version, before={"id": key, "owner": 1}))

    def changes(self) -> Sequence[RowChange] | None:
        self._store.steps.append("changes")
        return None if self.bulk else self.log

    def touched(self) -> frozenset[str]:
        return frozenset({"orders"} if self.log or self.bulk else ())

    def commit(self) -> None:
        self._store.steps.append("commit")
        self._store.fail_commit()
        self._store.rows = self.rows


class FakeStore:
    """One table, `orders`, whose rows belong to owner 1."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.version = 0
        self.document = encode_layout(first_layout())
        self.steps: list[str] = []
        self.fail_commit: Callable[[], None] = lambda: None
        self.fail_layout = False

    @contextmanager
    def transaction(self, connection: Any = None) -> Iterator[FakeTransaction]:
        yield FakeTransaction(self)

    def load(self, loader: Any, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        tx = FakeTransaction(self)
        return Loaded(loader(tx, keys), 1)

    def now_us(self) -> int:
        return 1

    def read_layout(self) -> bytes:
        if self.fail_layout:
            raise StoreError("the store is down")
        return self.document

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        if self.document != expected:
            raise LayoutConflict("somebody else")
        self.document = document


class WatchedMemory(Memory):
    """Notes each operation in the order of events; `down`: it does not answer."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__()
        self.steps = steps
        self.down = False
        self.on_batch: Callable[[], None] = lambda: None

    def execute_many(self, batch: Batch, now_ms: int) -> Results:
        if self.down:
            raise CacheUnavailable("down")
        self.steps += [type(op).__name__ for _, op in batch]
        self.on_batch()
        return super().execute_many(batch, now_ms)

    def get(self, name: Name) -> bytes | None:
        if self.down:
            raise CacheUnavailable("down")
        return super().get(name)


def load_orders(tx: FakeTransaction, keys: Sequence[int]) -> Mapping[int, Row]:
    return {key: tx.rows[key] for key in keys if key in tx.rows}


def load_owner(tx: FakeTransaction, keys: Sequence[int]) -> Mapping[int, Any]:
    return {key: sorted(tx.rows) for key in keys}


def order(**settings: Any) -> Entity:
    return Entity("order:{id:int}", table="orders", load=load_orders, **settings)


def owned(**settings: Any) -> Entity:
    return Entity("orders-of:{owner:int}", depends_on={"orders": "owner"}, load=load_owner, **settings)


class Shop:
    """A cache over a fake store, with what it holds."""

    def __init__(self, *entities: Entity) -> None:
        self.store = FakeStore()
        self.memory = WatchedMemory(self.store.steps)
        self.cache = Cache(
            self.memory,
            store=self.store,
            entities=entities,
            breaker=Breaker(failures=10_000),  # type: ignore[arg-type]
        )

    def write(self, *changes: tuple[int, Any]) -> Written:
        with self.cache.transaction() as tx:
            self.store.steps.clear()
            for key, value in changes:
                tx._tx.set(key, value)
        assert tx.written is not None
        return tx.written

    def item(self, text: str) -> Item | None:
        prefix = decode_layout(self.store.document).now.prefix("lc", "order")
        raw = Memory.get(self.memory, prefix + text.encode())
        return None if raw is None else decode(raw)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


# --- the order of events ---------------------------------------------------------------------


def test_a_write_reads_its_changes_commits_and_then_tells() -> None:
    shop = Shop(order())
    assert shop.write((1, "a"), (2, "b")) == Written(2, True, 2)
    assert shop.store.steps == ["changes", "commit", "Put", "Put"]


def test_populate_claims_before_the_commit() -> None:
    shop = Shop(order(write="populate"))
    shop.write((1, "a"))
    assert shop.store.steps == ["changes", "Claim", "commit", "Put"]
    item = shop.item("order:1")
    assert item is not None
    assert item.fresh


def test_through_leaves_a_cold_key_cold() -> None:
    shop = Shop(order())
    shop.write((1, "a"))
    assert shop.item("order:1") is None


def test_through_puts_over_what_is_cached() -> None:
    entity = order()
    shop = Shop(entity)
    shop.write((1, "a"))
    shop.cache.get(entity, 1)
    shop.write((1, "b"))
    item = shop.item("order:1")
    assert item is not None
    assert (item.fresh, item.version) == (True, 2)


def test_invalidate_voids_what_is_cached() -> None:
    entity = order(write="invalidate")
    shop = Shop(entity)
    shop.write((1, "a"))
    shop.cache.get(entity, 1)
    shop.write((1, "b"))
    item = shop.item("order:1")
    assert item is not None
    assert (item.fresh, item.floor) == (False, 2)


def test_a_delete_puts_absence() -> None:
    entity = order()
    shop = Shop(entity)
    shop.write((1, "a"))
    shop.cache.get(entity, 1)
    with shop.cache.transaction() as tx:
        tx._tx.remove(1)
    item = shop.item("order:1")
    assert item is not None
    assert (item.content.kind, item.fresh, item.floor_gone) == (Kind.ABSENCE, True, True)


def test_keys_of_many_rows_are_revoked_in_the_same_step() -> None:
    shop = Shop(order(), owned())
    shop.write((1, "a"), (2, "b"))
    assert sorted(shop.store.steps[2:]) == ["Put", "Put", "Revoke"]


def test_a_transaction_that_changes_nothing_tells_nobody() -> None:
    shop = Shop(order())
    assert shop.write() == Written(0, True, 0)
    assert shop.store.steps == ["changes", "commit"]


def test_many_keys_are_voided_instead_of_read_again() -> None:
    shop = Shop(order())
    shop.write(*[(key, "v") for key in range(puts_module.THROUGH_KEYS_MAX + 1)])
    assert set(shop.store.steps[2:]) == {"RaiseFloor"}


def test_a_value_too_large_to_keep_raises_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WatchedMemory, "capability", replace(Memory.capability, payload_bytes_max=100))
    shop = Shop(order())
    shop.write((1, "x" * 200))
    assert shop.store.steps[2:] == ["RaiseFloor"]


def test_a_row_changed_behind_the_logs_back_raises_the_floor() -> None:
    shop = Shop(order())
    with shop.cache.transaction() as tx:
        tx._tx.set(1, "a")
        tx._tx.rows[1] = Row("b", 99)
    assert shop.store.steps[-1] == "RaiseFloor"


# --- the commit fails ------------------------------------------------------------------------


def refuse() -> None:
    raise StoreError("refused")


def say_nothing() -> None:
    raise CommitUnknown("the connection broke")


def test_a_refused_commit_touches_no_item() -> None:
    shop = Shop(order())
    shop.store.fail_commit = refuse
    with pytest.raises(StoreError):
        shop.write((1, "a"))
    assert shop.store.steps == ["changes", "commit"]


def test_a_refused_commit_gives_its_claims_back() -> None:
    shop = Shop(order(write="populate"))
    shop.store.fail_commit = refuse
    with pytest.raises(StoreError):
        shop.write((1, "a"))
    item = shop.item("order:1")
    assert item is not None
    assert item.lease == 0


def test_an_unknown_commit_revokes_and_raises_no_floor() -> None:
    entity = order()
    shop = Shop(entity)
    shop.write((1, "a"))
    shop.cache.get(entity, 1)
    shop.store.fail_commit = say_nothing
    with pytest.raises(CommitUnknown):
        shop.write((1, "b"))
    item = shop.item("order:1")
    assert item is not None
    assert (item.void, item.floor) == (True, 0)


def test_an_unknown_bulk_commit_costs_a_new_epoch() -> None:
    entity = order()
    shop = Shop(entity)
    before = decode_layout(shop.store.document)
    shop.store.fail_commit = say_nothing
    with pytest.raises(CommitUnknown), shop.cache.transaction() as tx:
        tx._tx.bulk = True
    after = decode_layout(shop.store.document)
    assert after.prefixes("lc", "order") != before.prefixes("lc", "order")


def test_claims_are_given_back_when_a_later_key_cannot_be_prepared() -> None:
    def broken(tx: FakeTransaction, keys: Sequence[int]) -> Mapping[int, Row]:
        raise ValueError("a loader that does not work")

    other = Entity("twin:{id:int}", table="orders", load=broken, name="twin")
    shop = Shop(order(write="populate"), other)
    with pytest.raises(ValueError, match="does not work"):
        shop.write((1, "a"))
    item = shop.item("order:1")
    assert item is None or item.lease == 0


# --- the cache does not answer ---------------------------------------------------------------


def test_a_write_that_the_cache_did_not_hear_of_is_not_confirmed() -> None:
    shop = Shop(order())
    shop.memory.down = True
    assert shop.write((1, "a")) == Written(1, False, 1)
    assert shop.store.rows[1].value == "a"


@pytest.mark.parametrize("settings", [{"consistency": Strong()}, {"on_failure": OnFailure(write="confirm")}])
def test_where_confirmation_is_demanded_it_is_an_error_that_says_committed(settings: dict[str, Any]) -> None:
    shop = Shop(order(**settings))
    shop.memory.down = True
    with pytest.raises(Unconfirmed, match="never repeat") as caught:
        shop.write((1, "a"))
    assert caught.value.version == 1
    assert shop.store.rows[1].value == "a"


def test_only_the_entities_that_demand_it_make_an_error() -> None:
    shop = Shop(order(), owned())
    shop.memory.down = True
    assert not shop.write((1, "a")).confirmed


@pytest.mark.parametrize("document", [b"{}", None])
def test_after_the_commit_a_layout_that_cannot_be_read_is_not_confirmed(
    document: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    shop = Shop(order())
    shop.write((1, "a"))

    def lapse() -> None:
        now[0] += LEASE_MS / 1000
        shop.store.document = document or shop.store.document
        shop.store.fail_layout = document is None

    shop.store.fail_commit = lapse
    assert shop.write((1, "b")) == Written(2, False, 1)
    assert shop.store.rows[1].value == "b"


def test_a_claim_that_failed_lets_the_write_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(order(write="populate"))
    shop.memory.down = True
    assert shop.write((1, "a")) == Written(1, False, 1)


# --- the layout changes meanwhile (I13) ------------------------------------------------------


def test_a_step_is_repeated_on_all_names_when_the_layout_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    entity = order()
    shop = Shop(entity)
    shop.write((1, "a"))
    shop.cache.get(entity, 1)

    def lapse() -> None:
        """Our lease ends while the step is on its way, and somebody has published new epochs."""
        now[0] += LEASE_MS / 1000
        shop.store.document = encode_layout(with_new_epochs(decode_layout(shop.store.document), ["order"]))
        shop.memory.on_batch = lambda: None

    shop.memory.on_batch = lapse
    assert shop.write((1, "b")).confirmed
    assert shop.store.steps[2:] == ["Put", "Put", "Put"]


def test_a_step_is_not_repeated_when_the_layout_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    shop = Shop(order())
    shop.write((1, "a"))
    shop.memory.on_batch = lambda: now.__setitem__(0, now[0] + LEASE_MS / 1000)
    assert shop.write((1, "b")).confirmed
    assert shop.store.steps[2:] == ["Put"]


def test_a_layout_that_never_rests_leaves_the_write_unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    shop = Shop(order())

    def lapse() -> None:
        now[0] += LEASE_MS / 1000
        shop.store.document = encode_layout(with_new_epochs(decode_layout(shop.store.document), ["order"]))

    shop.memory.on_batch = lapse
    assert not shop.write((1, "a")).confirmed


# --- too many rows to name -------------------------------------------------------------------


def test_a_bulk_write_is_acknowledged_when_its_new_epochs_are_current() -> None:
    shop = Shop(order(), owned())
    with shop.cache.transaction() as tx:
        before = decode_layout(shop.store.document)
        tx._tx.bulk = True
    after = decode_layout(shop.store.document)
    assert tx.written == Written(0, True, 0)
    assert after.next is None
    for name in ("order", "orders-of"):
        assert after.prefixes("lc", name) != before.prefixes("lc", name)


def test_a_bulk_write_whose_epochs_cannot_be_published_is_not_confirmed() -> None:
    shop = Shop(order())
    with shop.cache.transaction() as tx:
        tx._tx.bulk = True
        shop.store.write_layout = lambda document, expected: refuse()  # type: ignore[method-assign]
    assert tx.written == Written(0, False, 0)


def test_a_bulk_write_of_a_strong_entity_whose_epochs_cannot_be_published_is_an_error() -> None:
    shop = Shop(order(consistency=Strong()))
    shop.store.write_layout = lambda document, expected: refuse()  # type: ignore[method-assign]
    with pytest.raises(Unconfirmed, match="never repeat"), shop.cache.transaction() as tx:
        tx._tx.bulk = True


# --- writers that do not know everybody ------------------------------------------------------


def test_a_writer_that_does_not_know_a_strong_entity_is_refused_and_rolled_back() -> None:
    reader = order(consistency=Strong())
    shop = Shop(reader)
    shop.write((1, "a"))
    shop.cache.get(reader, 1)
    stranger = Cache(shop.memory, store=shop.store)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="entity 'order'"), stranger.transaction() as tx:
        tx._tx.set(1, "b")
    assert shop.store.rows[1].value == "a"
