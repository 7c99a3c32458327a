"""The shelves of decoded values in the process: bounds, drops and the race with a writer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib import L1, ConfigError, Entity, Strong
from cachelib import l1 as module
from cachelib.l1 import Copy, Near, Shelf
from tests.servers.missing import package

THINGS = Entity("thing:{id}", load=lambda tx, keys: {})
OTHERS = Entity("other:{id}", load=lambda tx, keys: {})


@pytest.fixture(params=["cachebox", "dict"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "dict":
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    else:
        package("cachebox")
    return request.param


def keep(shelf: Shelf, key: Any, value: Any = "value", size: int = 10, stamp: int | None = None) -> None:
    text = THINGS.text(key)
    shelf.keep(key, text, shelf.stamp if stamp is None else stamp, Copy(value, 1e9, text, size, 1, 0))


def shelf_of(near: Near, entity: Entity = THINGS, number: int = 1) -> Shelf:
    shelf = near.shelf(entity, number)
    assert shelf is not None
    return shelf


def value(shelf: Shelf, key: Any) -> Any:
    copy = shelf.look(key)
    return None if copy is None else copy.value


def test_a_drop_takes_every_spelling_of_a_key(kind: str) -> None:
    shelf = shelf_of(Near(L1()))
    for key in (7, "7", "8"):
        keep(shelf, key, f"{key!r}")
    shelf.drop(b"thing:7")
    assert [value(shelf, key) for key in (7, "7", "8")] == [None, None, "'8'"]


def test_what_was_read_before_a_drop_is_refused(kind: str) -> None:
    shelf = shelf_of(Near(L1()))
    stamp = shelf.stamp
    shelf.drop(b"thing:7")  # nothing is there yet: the reader is still on its way
    keep(shelf, 7, "old", stamp=stamp)
    assert value(shelf, 7) is None


def test_a_later_layout_has_an_empty_shelf_and_late_readers_of_the_old_one_keep_nothing(kind: str) -> None:
    near = Near(L1())
    old = shelf_of(near)
    keep(old, 7)
    new = shelf_of(near, number=2)
    keep(old, 8)
    assert (value(new, 7), value(old, 7), value(old, 8)) == (None, None, None)
    assert (near.bytes, near.copies) == (0, 0)
    assert near.shelf(THINGS, 1) is None
    assert near.shelf(THINGS, 2) is new


def test_entries_are_bounded_over_all_entities(kind: str) -> None:
    near = Near(L1(entries_max=5))
    things, others = shelf_of(near), shelf_of(near, OTHERS)
    for number in range(20):
        keep(things if number % 2 else others, number)
    assert near.copies == 5
    assert sum(value(shelf, n) is not None for shelf in (things, others) for n in range(20)) == 5


def test_bytes_are_bounded_and_what_is_larger_than_the_bound_is_not_kept(kind: str) -> None:
    near = Near(L1(bytes_max=100))
    shelf = shelf_of(near)
    keep(shelf, 0, size=101)
    assert value(shelf, 0) is None
    for number in range(1, 20):
        keep(shelf, number, size=30)
    assert near.bytes == 90
    assert value(shelf, 19) is not None


def test_cachebox_forgets_what_was_used_longest_ago() -> None:
    package("cachebox")
    near = Near(L1(entries_max=3))
    shelf = shelf_of(near)
    for key in (1, 2, 3):
        keep(shelf, key)
    shelf.look(1)
    keep(shelf, 4)
    assert [value(shelf, key) is not None for key in (1, 2, 3, 4)] == [True, False, True, True]


def test_nothing_is_kept_for_strong_entities_or_without_a_policy() -> None:
    strong = Entity("account:{id}", table="accounts", load=lambda tx, keys: {}, consistency=Strong())
    assert Near(L1()).shelf(strong, 1) is None
    assert Near(None).shelf(THINGS, 1) is None


@pytest.mark.parametrize("wrong", [{"ttl": "61s"}, {"ttl": 0}, {"entries_max": 0}, {"bytes_max": "1"}])
def test_a_wrong_setting_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"L1.{next(iter(wrong))}"):
        L1(**wrong)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.integers(0, 9), st.integers(1, 60)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("all"), st.just(0), st.just(0)),
        st.tuples(st.just("layout"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_the_books_agree_with_what_is_kept(steps: list[tuple[str, int, int]]) -> None:
    near, number = Near(L1(entries_max=4, bytes_max=100)), 1
    shelf = shelf_of(near)
    written: dict[int, int] = {}
    for at, (what, key, size) in enumerate(steps):
        if what == "keep":
            keep(shelf, key, at, size)
            written[key] = at
            assert value(shelf, key) == at
        elif what == "drop":
            near.drop(THINGS, THINGS.text(key))
            assert value(shelf, key) is None
        elif what == "all":
            near.drop_all()
        else:
            number += 1
            shelf = shelf_of(near, number=number)
        held = {key: copy for key in range(10) if (copy := shelf.look(key)) is not None}
        assert near.copies == len(held) <= 4
        assert near.bytes == shelf.bytes == sum(copy.size for copy in held.values()) <= 100
        assert all(copy.value == written[key] for key, copy in held.items())


def test_threads_that_keep_and_drop_leave_the_books_right(kind: str) -> None:
    near = Near(L1(entries_max=20, bytes_max=300))
    shelves = [shelf_of(near), shelf_of(near, OTHERS)]
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(2000):
                shelf, key = shelves[step % 2], (step * 7 + seed) % 50
                keep(shelf, key, size=seed + 5)
                shelf.look(key)
                if step % 5 == 0:
                    shelf.drop(THINGS.text(key))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    held = [copy for shelf in shelves for key in range(50) if (copy := shelf.look(key)) is not None]
    assert (near.copies, near.bytes) == (len(held), sum(copy.size for copy in held))
    assert near.copies <= 20
    assert near.bytes <= 300
