"""What a loader answers, as content and value: rows found by their keys' text, absence, and mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cachelib.drivers import run_now
from cachelib.entity import Entity, FunctionLoader
from cachelib.errors import ConfigError, DecodeError
from cachelib.loading import Loading
from cachelib.model import ABSENCE, Kind, Row
from cachelib.port import Loaded
from cachelib.stores.base import Loaded as StoreLoaded

BIG = 1 << 20
ORDERS = Entity("order:{id}", table="orders", load=lambda tx, keys: {})
PLAIN = Entity("plain:{id}", load=lambda tx, keys: {})


def sorted_out(entity: Entity, keys: Sequence[Any], rows: Mapping[Any, Any], bytes_max: int = BIG) -> list[Loaded]:
    return Loading(entity, None, None, bytes_max).sorted_out(keys, StoreLoaded(rows, 77))


def test_a_row_has_value_version_and_time() -> None:
    (loaded,) = sorted_out(ORDERS, [7], {7: Row("v", 5)})
    assert (loaded.value, loaded.found, loaded.version, loaded.as_of_us) == ("v", True, 5, 77)
    assert loaded.content is not None
    assert ORDERS.packer.unpack(loaded.content.payload) == "v"


def test_a_key_left_out_is_an_absent_row() -> None:
    (loaded,) = sorted_out(ORDERS, [7], {})
    assert (loaded.content, loaded.found, loaded.version) == (ABSENCE, False, 0)


def test_none_is_a_value() -> None:
    (loaded,) = sorted_out(ORDERS, [7], {7: Row(None, 5)})
    assert loaded.found
    assert loaded.content is not None
    assert loaded.content.kind is Kind.VALUE


def test_answers_stand_in_the_order_of_the_keys() -> None:
    rows = {8: Row("b", 2), 7: Row("a", 1)}
    assert [one.value for one in sorted_out(ORDERS, [7, 9, 8], rows)] == ["a", None, "b"]


def test_a_row_is_found_by_the_text_of_its_key() -> None:
    assert [one.value for one in sorted_out(ORDERS, ["7", 8], {7: Row("a", 1), "8": Row("b", 2)})] == ["a", "b"]


def test_a_row_that_nobody_asked_for_is_left_alone() -> None:
    assert [one.value for one in sorted_out(ORDERS, [7], {7: Row("a", 1), 9: Row("b", 1)})] == ["a"]


def test_a_plain_value_is_a_row_without_a_version() -> None:
    (loaded,) = sorted_out(PLAIN, [7], {7: "v"})
    assert (loaded.value, loaded.version) == ("v", 0)


def test_a_row_of_a_table_without_a_version_is_a_mistake() -> None:
    for row in ("v", Row("v"), Row("v", 0)):
        with pytest.raises(ConfigError, match="without a version"):
            sorted_out(ORDERS, [7], {7: row})


def test_versions_of_what_has_none_are_dropped() -> None:
    (loaded,) = sorted_out(PLAIN, [7], {7: Row("v", 5)})
    assert loaded.version == 0


def test_a_miss_returns_what_a_hit_will() -> None:
    (loaded,) = sorted_out(PLAIN, [7], {7: (1, 2)})
    assert loaded.value == [1, 2]


def test_a_value_is_nobody_elses_object() -> None:
    value = {"lines": [1]}
    (loaded,) = sorted_out(PLAIN, [7], {7: value})
    value["lines"].append(2)
    assert loaded.value == {"lines": [1]}


def test_a_value_that_is_too_large_is_returned_without_content() -> None:
    (loaded,) = sorted_out(ORDERS, [7], {7: Row("x" * 200, 5)}, bytes_max=100)
    assert (loaded.value, loaded.content, loaded.found, loaded.version) == ("x" * 200, None, True, 5)


def test_a_value_that_its_codec_cannot_read_back_is_an_error() -> None:
    entity = Entity("n:{id}", load=lambda tx, keys: {}, codec=list[int])
    with pytest.raises(DecodeError):
        sorted_out(entity, [7], {7: ["no number"]})


# --- asking ----------------------------------------------------------------------------------


def asked(entity: Entity, keys: Sequence[Any]) -> Mapping[Any, Any]:
    return run_now(Loading(entity, None, None, BIG).ask(keys, None)).rows


def test_a_function_gets_the_fields_by_name() -> None:
    entity = Entity("stock:{shop}:{item}", load=FunctionLoader(lambda item, shop: f"{shop}/{item}"))
    assert asked(entity, [("a", 7)]) == {("a", 7): "a/7"}


def test_a_function_may_be_async() -> None:
    async def double(n: int) -> int:
        return 2 * n

    assert asked(Entity("double:{n}", load=FunctionLoader(double)), [2]) == {2: 4}


def test_an_entity_that_loads_nothing_says_so() -> None:
    with pytest.raises(ConfigError, match="has no load="):
        asked(Entity("order:{id}"), [7])


def test_an_entity_that_loads_from_a_store_needs_one() -> None:
    with pytest.raises(ConfigError, match="give the cache one"):
        asked(ORDERS, [7])
    with pytest.raises(ConfigError, match="needs Cache"):
        Loading(Entity.from_table("orders"), None, None, BIG)


def test_a_table_is_loaded_as_the_store_knows() -> None:
    loading = Loading(Entity.from_table("orders", key="no", version="v"), None, lambda *about: about, BIG)
    assert loading.loader == ("orders", ("no",), "v")
