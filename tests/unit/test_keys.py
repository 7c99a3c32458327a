"""Key templates: one row has one text, two rows have two, and the text fits every server."""

from __future__ import annotations

import enum
import string
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachelib.errors import BadKey, ConfigError
from cachelib.keys import KEY_TEXT_MAX, Template

U = UUID("00112233-4455-6677-8899-aabbccddeeff")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(),
    "str": TEXTS,
    "uuid": st.uuids(),
    "date": st.dates(),
    "decimal": DECIMALS,
    "bytes": st.binary(),
}
ANYTHING = st.one_of(st.integers(), TEXTS, st.uuids(), st.dates(), DECIMALS)
SAFE = set(string.ascii_letters + string.digits + ":._@/=+-,%~")


# --- one field -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "text"),
    [
        ("any", 7, b"k:7"),
        ("any", "7", b"k:7"),
        ("any", -7, b"k:-7"),
        ("any", "a b", b"k:a%20b"),
        ("any", "", b"k:"),
        ("any", U, b"k:" + str(U).encode()),
        ("any", date(2026, 1, 2), b"k:2026-01-02"),
        ("any", Decimal("7.00"), b"k:7"),
        ("any", "ü", b"k:%C3%BC"),
        ("any", "a:b/c~d", b"k:a%3Ab%2Fc%7Ed"),
        ("int", "7", b"k:7"),
        ("int", Decimal(7), b"k:7"),
        ("uuid", str(U).upper(), b"k:" + str(U).encode()),
        ("uuid", U.hex, b"k:" + str(U).encode()),
        ("date", "2026-01-02", b"k:2026-01-02"),
        ("decimal", "1.50", b"k:1.5"),
        ("decimal", 1, b"k:1"),
        ("decimal", Decimal("1E+2"), b"k:100"),
        ("decimal", Decimal("-0.0"), b"k:0"),
        ("bytes", b"hi", b"k:6869"),
        ("bytes", "\\x6869", b"k:6869"),
    ],
)
def test_a_value_is_written_in_one_way(kind: str, key: object, text: bytes) -> None:
    assert Template(f"k:{{id:{kind}}}").render(key) == text


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *[("any", wrong) for wrong in (True, False, None, 1.5, b"x", datetime.now(UTC), [7], {7}, object())],
        *[("int", wrong) for wrong in (True, None, 1.0, "07", "+7", "-0", " 7", "7 ", "7.0", "", "1٣", Decimal("7.5"))],
        *[("str", wrong) for wrong in (7, None, b"x", U)],
        *[("uuid", wrong) for wrong in (7, None, "not-a-uuid", b"x" * 16)],
        *[("date", wrong) for wrong in (7, None, "2026-13-01", datetime.now(UTC))],
        *[("decimal", wrong) for wrong in (1.5, True, None, "x", Decimal("NaN"), Decimal("Infinity"))],
        *[("bytes", wrong) for wrong in (7, None, "zz")],
        ("any", "\ud800"),
        ("any", ("a", "b")),
        ("any", ()),
        ("any", {"other": 1}),
    ],
)
def test_a_key_of_a_wrong_type_is_refused(kind: str, key: object) -> None:
    with pytest.raises(BadKey):
        Template(f"k:{{id:{kind}}}").render(key)


def test_a_refusal_names_field_template_and_value() -> None:
    with pytest.raises(BadKey, match=r"field 'id' of key 'order:\{id:int\}' is 'x', a str, not a whole number"):
        Template("order:{id:int}").render("x")


def test_a_number_and_its_text_are_one_key() -> None:
    template = Template("k:{id}")
    assert template.render(7) == template.render("7") == template.render((7,)) == template.render({"id": 7})


@given(st.integers())
@example(10**200)
@example(-(10**200))
def test_any_number_and_its_text_are_one_key(number: int) -> None:
    template = Template("k:{id}")
    assert template.render(number) == template.render(str(number))


@given(st.integers() | TEXTS)
@example(10**20)
@example(-(10**19))
@example(True)
@example(Decimal(7))
def test_a_namer_says_what_render_says(key: Any) -> None:
    for text in ("k:{id}", "k:{id:int}", "k:{id:str}", "a" * 170 + ":{id}"):
        template = Template(text)
        try:
            expected = b"ns/e.t/" + template.render(key)
        except BadKey:
            with pytest.raises(BadKey):
                template.namer(b"ns/e.t/")(key)
        else:
            assert template.namer(b"ns/e.t/")(key) == expected
            assert template.render_all([key, key], b"ns/e.t/") == [expected] * 2


@given(st.lists(st.integers(), max_size=5))
@example([10**20 - 1, 1 - 10**19])
@example([10**20, 0])
def test_many_numbers_are_named_as_each_of_them(keys: list[int]) -> None:
    template = Template("k:{id:int}")
    assert template.render_all(keys, b"ns%d/") == [b"ns%d/" + template.render(key) for key in keys]


class Colour(int, enum.Enum):
    RED = 7


class Shade(str, enum.Enum):  # noqa: UP042 - a StrEnum is another thing: it prints as its value
    DARK = "dark"


def test_a_member_of_an_enum_is_its_value() -> None:
    assert Template("k:{id}").render(Colour.RED) == b"k:7"
    assert Template("k:{id:int}").render(Colour.RED) == b"k:7"
    assert Template("k:{id}").render(Shade.DARK) == b"k:dark"


@pytest.mark.parametrize("kind", ["any", "int", "decimal"])
@pytest.mark.parametrize(
    "huge", [Decimal("1E+999999999"), Decimal("1E-999999999"), 10**5000], ids=["big", "small", "int"]
)
def test_a_number_of_absurd_size_is_refused_at_once(kind: str, huge: object) -> None:
    with pytest.raises(BadKey):
        Template(f"k:{{id:{kind}}}").render(huge)


# --- the text of a key -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", BY_TYPE)
def test_different_keys_have_different_texts(kind: str) -> None:
    template = Template(f"k:{{id:{kind}}}")

    @given(BY_TYPE[kind], BY_TYPE[kind])
    def check(one: Any, other: Any) -> None:
        assert (template.render(one) == template.render(other)) == (one == other)

    check()


@given(st.tuples(TEXTS, TEXTS), st.tuples(TEXTS, TEXTS), st.sampled_from([":", "/", ":x:", "/-"]))
@example(("a:b", "c"), ("a", "b:c"), ":")
@example(("a-", "c"), ("a", "-c"), "/-")
def test_no_value_ends_a_field(one: tuple[str, str], other: tuple[str, str], between: str) -> None:
    template = Template(f"k:{{a}}{between}{{b}}")
    assert (template.render(one) == template.render(other)) == (one == other)


@pytest.mark.parametrize("between", ["", "-", "_", ".", "@", "=", "+", "x", "-x-"])
def test_fields_that_could_run_into_each_other_are_refused(between: str) -> None:
    with pytest.raises(ConfigError, match="':' or '/'"):
        Template(f"k:{{a}}{between}{{b}}")


@given(ANYTHING, st.text(string.ascii_lowercase + ":._@/=+-", max_size=300))
def test_a_text_fits_every_server(key: object, head: str) -> None:
    text = Template(head + "{id}").render(key)
    assert len(text) <= KEY_TEXT_MAX
    assert set(text.decode("ascii")) <= SAFE


@given(st.tuples(ANYTHING, ANYTHING))
def test_a_text_of_several_fields_fits_too(key: tuple[object, object]) -> None:
    text = Template("stock:{shop}:{item}").render(key)
    assert len(text) <= KEY_TEXT_MAX
    assert set(text.decode("ascii")) <= SAFE


@given(st.text(min_size=100, max_size=300), st.text(min_size=100, max_size=300))
def test_long_keys_are_hashed_and_differ(one: str, other: str) -> None:
    template = Template("k:{id}")
    try:
        texts = template.render("x" * 180 + one), template.render("x" * 180 + other)
    except BadKey:  # a lone surrogate
        return
    assert (texts[0] == texts[1]) == (one == other)


@given(st.integers(150, 200), st.sampled_from("x%ü"))
def test_a_hashed_text_is_never_that_of_a_short_key(length: int, letter: str) -> None:
    text = Template("k:{id}").render(letter * length)
    assert (b"~" in text) == (len(Template("k:{id}").render(letter)[2:]) * length + 2 > KEY_TEXT_MAX)


def test_a_hash_never_cuts_an_escape() -> None:
    for pad in range(4):
        text = Template("k:{id}").render("x" * pad + "ü" * 100)
        head = text.split(b"~")[0]
        assert head.decode().count("%") * 3 + pad + 2 == len(head)


# --- several fields --------------------------------------------------------------------------


@pytest.mark.parametrize("key", [("a", 7), {"shop": "a", "item": 7}, {"item": 7, "shop": "a"}])
def test_several_fields_come_in_order_or_by_name(key: object) -> None:
    assert Template("stock:{shop}:{item}").render(key) == b"stock:a:7"


@pytest.mark.parametrize("key", ["a", 7, ("a",), ("a", 7, 8), ["a", 7], {"shop": "a"}, {"shop": "a", "itm": 7}, None])
def test_a_key_of_other_fields_is_refused(key: object) -> None:
    with pytest.raises(BadKey, match="shop, item"):
        Template("stock:{shop}:{item}").render(key)


def test_columns_give_the_key_in_the_order_of_their_names() -> None:
    template = Template("stock:{shop}:{item}")
    columns = {"item_id": 7, "shop_id": "a", "more": 1}
    assert template.from_columns(columns, ("shop_id", "item_id")) == ("a", 7)
    assert Template("k:{id}").from_columns({"id": 7}, ("id",)) == 7


@pytest.mark.parametrize("columns", [{"a": 1}, {"a": 1, "b": None}, {}])
def test_a_column_that_is_null_or_missing_gives_no_key(columns: dict[str, Any]) -> None:
    assert Template("k:{a}:{b}").from_columns(columns, ("a", "b")) is None


# --- templates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["", "plain", "k:{}", "k:{id", "k:id}", "k {id}", "k:{id:}", "kö:{id}", "k~{id}", "{a}:{a}"]
)
def test_what_is_no_template_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="key template"):
        Template(wrong)


def test_a_wrong_type_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'uuid'"):
        Template("k:{id:uid}")


@pytest.mark.parametrize(
    ("text", "name"),
    [("order:{id:int}", "order"), ("orders-of:{c}", "orders-of"), ("a:b/{id}", "a:b"), ("{id}", "{id}")],
)
def test_an_entity_is_named_after_the_head_of_its_template(text: str, name: str) -> None:
    assert Template(text).name == name


# --- two templates ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("order:{id}", "order:{no}", True),
        ("order:{id}", "order:{a}:{b}", False),
        ("order:{id}", "order:{id}:lines", False),
        ("order:{id}", "orders:{id}", False),
        ("order:{id}", "{kind}:{id}", True),
        ("order:{id}", "ord{x}:{id}", True),
        ("order:{id}", "{x}", False),
        ("a{x}", "{y}b", True),
        ("a{x}c", "a{y}b", False),
        ("order/{id}", "order:{id}", False),
        ("a:{x}:b:{y}", "a:{x}:{y}:c", True),
        ("a:{x}:b:{y}", "a:{x}:c:{y}", False),
    ],
)
def test_two_templates_that_can_give_one_text_meet(one: str, other: str, meet: bool) -> None:
    assert Template(one).meets(Template(other)) is Template(other).meets(Template(one)) is meet


SMALL = st.text("ab:", max_size=2)
SHAPES = st.lists(SMALL, min_size=2, max_size=3).filter(lambda parts: all(":" in part for part in parts[1:-1]))
PARTS = st.lists(st.text("ab", max_size=2), min_size=2, max_size=2)


@given(SHAPES, PARTS, SHAPES, PARTS)
def test_templates_that_do_not_meet_never_give_one_text(
    one: list[str], mine: list[str], other: list[str], theirs: list[str]
) -> None:
    templates, texts = [], []
    for shape, values in ((one, mine), (other, theirs)):
        template = Template("".join(part + f"{{f{n}}}" for n, part in enumerate(shape[:-1])) + shape[-1])
        templates.append(template)
        key = tuple(values[: len(template.fields)])
        texts.append(template.render(key))
    if texts[0] == texts[1]:
        assert templates[0].meets(templates[1])
