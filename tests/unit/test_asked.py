"""What callers give and get: keys by position or by name, and the long answer."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cachelib import Cache, Read
from cachelib.asked import NO_KEY, as_read, key_of
from cachelib.entity import Entity
from cachelib.errors import BadKey
from cachelib.port import Found

ORDER = Entity("order:{id}")
STOCK = Entity("stock:{shop}:{item}")


@pytest.mark.parametrize(
    ("entity", "key", "named", "expected"),
    [
        (ORDER, 7, {}, 7),
        (ORDER, NO_KEY, {"id": 7}, 7),
        (ORDER, {"id": 7}, {}, 7),
        (STOCK, ("a", 7), {}, ("a", 7)),
        (STOCK, NO_KEY, {"item": 7, "shop": "a"}, ("a", 7)),
        (STOCK, {"item": 7, "shop": "a"}, {}, ("a", 7)),
    ],
)
def test_a_key_by_name_is_the_key_by_position(entity: Entity, key: Any, named: dict[str, Any], expected: Any) -> None:
    assert key_of(entity, key, named) == expected


@pytest.mark.parametrize(
    ("entity", "key", "named"),
    [
        (ORDER, NO_KEY, {}),
        (ORDER, NO_KEY, {"idd": 7}),
        (ORDER, NO_KEY, {"id": 7, "more": 1}),
        (ORDER, 7, {"id": 7}),
        (ORDER, {"idd": 7}, {}),
        (STOCK, NO_KEY, {"shop": "a"}),
        (STOCK, NO_KEY, {"shop": "a", "itm": 7}),
        (STOCK, {"shop": "a"}, {}),
    ],
)
def test_wrong_names_are_a_bad_key(entity: Entity, key: Any, named: dict[str, Any]) -> None:
    with pytest.raises(BadKey):
        key_of(entity, key, named)


def test_none_is_a_key_that_was_given() -> None:
    assert key_of(ORDER, None, {}) is None


def test_an_argument_that_is_no_key_shows_as_such() -> None:
    assert repr(NO_KEY) == "<no key>"


def test_named_fields_reach_a_function_and_its_cache() -> None:
    cache = Cache("memory://")
    calls: list[tuple[str, int]] = []

    @cache.cached("stock:{shop}:{item}")
    def stock(shop: str, item: int) -> str:
        calls.append((shop, item))
        return f"{shop}{item}"

    entity = stock.entity  # type: ignore[attr-defined]
    assert cache.get(entity, shop="a", item=7) == stock("a", 7) == cache.get(entity, {"item": 7, "shop": "a"}) == "a7"
    assert calls == [("a", 7)]


def test_a_batch_takes_keys_by_name() -> None:
    cache = Cache("memory://")

    @cache.cached("stock:{shop}:{item}")
    def stock(shop: str, item: int) -> str:
        return f"{shop}{item}"

    entity = stock.entity  # type: ignore[attr-defined]
    assert cache.get_many(entity, [{"shop": "a", "item": 7}, ("b", 8)]) == {("a", 7): "a7", ("b", 8): "b8"}


@pytest.mark.parametrize("wrong", [[7], {7}, {"shop": []}, bytearray(b"x")])
def test_a_batch_refuses_what_cannot_be_a_key(wrong: Any) -> None:
    cache = Cache("memory://")

    @cache.cached("number:{n}")
    def number(n: int) -> int:
        raise AssertionError("nothing is to be asked")

    with pytest.raises(BadKey):
        cache.get_many(number.entity, [1, wrong])  # type: ignore[attr-defined]


# --- the long answer -------------------------------------------------------------------------


def test_the_long_answer_has_what_was_found() -> None:
    now_us = time.time_ns() // 1000
    read = as_read(Found("v", True, 5, "hit", now_us - 2_000_000))
    assert (read.value, read.found, read.version, read.source) == ("v", True, 5, "hit")
    assert read.age_ms is not None
    assert 2_000 <= read.age_ms < 60_000


def test_an_unknown_age_is_none() -> None:
    assert as_read(Found(None, False, 0, "store", 0)) == Read(None, False, 0, "store", 0, None)


def test_a_store_whose_clock_is_ahead_gives_no_negative_age() -> None:
    assert as_read(Found(1, True, 1, "hit", time.time_ns() // 1000 + 10_000_000)).age_ms == 0
