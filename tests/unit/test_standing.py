"""What strong reads take from a server that was just met: nothing from before, unless it was told again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from cachelib import Cache, Entity, Eventual, Row, Strong
from cachelib.backends.memory import Memory
from cachelib.errors import CacheUnavailable, StoreError
from cachelib.layout import encode_layout, first_layout, with_strong
from cachelib.metrics import EVENTS
from cachelib.model import Name
from cachelib.proof import ProofNote, Seen, decode_proof, encode_proof, proof_name
from cachelib.stores.base import Loaded


def load(tx: FakeStore, keys: Sequence[int]) -> Mapping[int, Row]:
    return {key: Row(*tx.rows[key]) for key in keys if key in tx.rows}


ACCOUNTS = Entity("account:{id:int}", table="accounts", load=load, consistency=Strong())


class FakeStore:
    """Rows with versions, and a clock that moves with each question."""

    def __init__(self) -> None:
        self.rows = {1: ("first", 1)}
        self.document = encode_layout(with_strong(first_layout(), ACCOUNTS.name, ["accounts"]))
        self.clock = itertools.count(1_000)
        self.loads = self.clock_asked = 0
        self.down = False

    def read_layout(self) -> bytes:
        return self.document

    def now_us(self) -> int:
        if self.down:
            raise StoreError("down")
        self.clock_asked += 1
        return next(self.clock)

    def load(self, loader: Any, keys: Sequence[int], *, timeout_s: float | None = None) -> Loaded:
        self.loads += 1
        return Loaded(loader(self, keys), next(self.clock))


class Scene:
    """A cache over a memory that can be restarted."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.store, self.memory = FakeStore(), memory or Memory()
        self.cache = self.another()

    def another(self) -> Cache:
        """Another process of the same store and server."""
        return Cache(self.memory, store=self.store, entities=[ACCOUNTS])  # type: ignore[arg-type]

    def read(self) -> tuple[Any, str]:
        read = self.cache.read(ACCOUNTS, 1)
        return read.value, read.source

    def come_back_old(self) -> None:
        """The server comes back with what it had before the row was written last."""
        old = self.memory.snapshot()
        self.store.rows[1] = ("second", 2)
        self.memory.restart(old)

    def note(self, caught_up: str, *entities: str) -> None:
        note = ProofNote(caught_up, "store", None, 1, frozenset(entities))
        self.memory.apply([], {proof_name("lc"): encode_proof(note)}, 0)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr("cachelib.standing.LOOK_S", 0.0)
    return Scene()


def test_strong_reads_hit_what_was_loaded_since_the_server_was_met(scene: Scene) -> None:
    assert [scene.read() for _ in range(3)] == [("first", "filled"), ("first", "hit"), ("first", "hit")]
    assert scene.store.clock_asked == 1


def test_without_a_note_each_process_loads_a_key_once(scene: Scene) -> None:
    """Where no invalidator writes proofs: safe, and paid for once by each process that starts."""
    scene.read()
    scene.cache = scene.another()
    assert [scene.read()[1] for _ in range(3)] == ["filled", "hit", "hit"]


def test_server_that_comes_back_with_old_data_serves_none_of_it_as_strong(scene: Scene) -> None:
    scene.read()
    scene.come_back_old()
    assert scene.cache.get(ACCOUNTS, 1, consistency=Eventual()) == "first"  # what the old data would have answered
    assert scene.read() == ("second", "filled")
    assert scene.read() == ("second", "hit")


def test_server_that_comes_back_with_old_data_serves_none_of_it_to_get_and_get_many(scene: Scene) -> None:
    for _ in range(3):
        scene.cache.get(ACCOUNTS, 1)
    scene.come_back_old()
    assert scene.cache.get_many(ACCOUNTS, [1]) == {1: "second"}
    scene.come_back_old()
    assert scene.cache.get(ACCOUNTS, 1) == "second"


def test_node_that_was_told_everything_serves_what_it_has(scene: Scene) -> None:
    scene.read()
    scene.note(scene.memory.instance(), ACCOUNTS.name)
    scene.cache = scene.another()
    assert scene.read() == ("first", "hit")
    assert scene.store.clock_asked == 1


@pytest.mark.parametrize("caught_up", ["", "another start"])
def test_note_about_another_start_proves_nothing(scene: Scene, caught_up: str) -> None:
    scene.read()
    scene.note(caught_up, ACCOUNTS.name)
    scene.cache = scene.another()
    assert scene.read()[1] == "filled"


def test_note_that_came_back_with_the_old_data_proves_nothing(scene: Scene) -> None:
    scene.note(scene.memory.instance(), ACCOUNTS.name)
    assert [scene.read()[1] for _ in range(2)] == ["filled", "hit"]
    scene.come_back_old()
    assert scene.read() == ("second", "filled")


def test_note_of_an_invalidator_that_does_not_know_the_entity_proves_nothing(scene: Scene) -> None:
    scene.read()
    scene.note(scene.memory.instance(), "order")
    scene.cache = scene.another()
    assert scene.read()[1] == "filled"


def test_proof_opens_the_hit_path_and_another_start_closes_it(scene: Scene) -> None:
    scene.note(scene.memory.instance(), ACCOUNTS.name)
    for _ in range(3):
        assert scene.cache.get(ACCOUNTS, 1) == "first"
    view = scene.cache._layout.view
    assert view is not None
    assert ACCOUNTS in view.lanes
    scene.come_back_old()
    assert scene.cache.get(ACCOUNTS, 1) == "second"
    assert ACCOUNTS not in view.lanes


class Mute(Memory):
    """It does not tell which start it is."""

    def instance(self) -> str:
        raise CacheUnavailable("INFO is not allowed")

    def watch(self, seen: Seen) -> None:
        seen("")


def test_node_that_does_not_tell_its_start_is_not_read_as_strong() -> None:
    scene = Scene(Mute())
    assert [scene.read()[1] for _ in range(3)] == ["store"] * 3
    assert scene.cache.read(ACCOUNTS, 1, consistency=Eventual()).source == "filled"


def test_store_whose_clock_cannot_be_asked_is_asked_for_the_row(scene: Scene) -> None:
    scene.store.down = True
    assert scene.read() == ("first", "store")


class Replaced(Memory):
    """Another start answers while a `get` is under way."""

    old: Any = None

    def get(self, name: Name) -> bytes | None:
        if self.old is not None:
            old, self.old = self.old, None
            self.restart(old)
        return super().get(name)

    def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        return [self.get(name) for name in names]


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("many", [True, False])
def test_hit_of_a_server_that_was_replaced_meanwhile_is_not_served(proven: bool, many: bool) -> None:
    memory = Replaced()
    scene = Scene(memory)
    if proven:
        scene.note(memory.instance(), ACCOUNTS.name)
    scene.read()
    assert scene.read() == ("first", "hit")
    memory.old = memory.snapshot()
    scene.store.rows[1] = ("second", 2)
    seen = scene.cache.get_many(ACCOUNTS, [1])[1] if many else scene.cache.get(ACCOUNTS, 1)
    assert seen == "second"


def test_answer_of_a_server_that_was_replaced_meanwhile_is_counted() -> None:
    class ReplacedInTheSteps(Memory):
        old: Any = None

        def execute(self, name: Name, op: Any, now_ms: int) -> Any:
            if self.old is not None:
                old, self.old = self.old, None
                self.restart(old)
            return super().execute(name, op, now_ms)

    memory = ReplacedInTheSteps()
    scene = Scene(memory)
    scene.read()
    memory.old, items = memory.snapshot(), memory._items
    items.clear()  # evicted, so that the first look finds nothing
    memory.restart = lambda old: Memory.restart(memory, old)  # type: ignore[method-assign,assignment]
    scene.store.rows[1] = ("second", 2)
    assert scene.read() == ("second", "store")
    assert scene.cache.metrics.values()[EVENTS, ACCOUNTS.name, "server_changed"] == 1


# --- the note --------------------------------------------------------------------------------


def test_note_is_read_as_it_was_written() -> None:
    note = ProofNote("a-b", "system-1", 17, 3, frozenset(("order", "customer")))
    assert decode_proof(encode_proof(note)) == note


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"\xff",
        b"7",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1, "caught_up": "a", "store": "s", "watermark_us": 5, "partitions": 1}',
        b'{"format": 1, "caught_up": "a", "store": "s", "watermark_us": "5", "partitions": 1, "entities": []}',
        b'{"format": 1, "caught_up": "a", "store": "s", "watermark_us": 5, "partitions": 1, "entities": "ab"}',
    ],
)
def test_note_that_is_none_of_ours_proves_nothing(raw: bytes | None) -> None:
    assert decode_proof(raw) is None
