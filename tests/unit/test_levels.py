"""What a level makes of what is known: pure, with the store's clock in the test's hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib import Bounded, ConfigError, Entity, Eventual, Strong
from cachelib.item import serves
from cachelib.levels import FREE, NO_GROUND, Ground, both, bounded_ground, strong_ground, strong_in_session
from cachelib.model import ANY, Item, Requirement, value_of
from cachelib.plans import level_of

times = st.integers(1, 10_000)


def yes() -> bool:
    return True


def item(as_of_us: int, version: int = 1) -> Item:
    return Item(value_of(b"v"), version=version, as_of_us=as_of_us)


@given(times, times, times, times)
def test_bounded_shows_nothing_that_is_not_proven(now: int, age: int, as_of: int, watermark: int) -> None:
    for known in (None, watermark):
        ground = bounded_ground(now, age, known, yes)
        shown = serves(item(as_of), ground.requirement)
        assert shown == (as_of >= now - age or (known is not None and known >= now - age))
        assert not ground.stale
        assert ground.joins_from_us == now - age


def test_bounded_on_a_watermark_is_of_one_start_of_the_server() -> None:
    assert bounded_ground(100, 10, 95, lambda: False).holds() is False
    assert bounded_ground(100, 10, 80, lambda: False).holds() is True, "when it was loaded counts wherever it is"


@given(st.booleans(), st.none() | times, times)
def test_strong_shows_what_was_told_again_or_loaded_since(caught_up: bool, since: int | None, as_of: int) -> None:
    ground = strong_ground(caught_up, since, yes)
    shown = ground.proven and serves(item(as_of), ground.requirement)
    assert shown == (caught_up or (since is not None and as_of >= since))


@given(times, times)
def test_strong_in_a_session_asks_for_the_later_of_both(since: int, least: int) -> None:
    assert strong_in_session(strong_ground(False, since, yes), least).requirement.min_as_of_us == max(since, least)
    assert strong_in_session(FREE, 0) is FREE
    assert not strong_in_session(NO_GROUND, least).proven


asked = st.builds(Requirement, st.none() | st.integers(1, 5), st.none()) | st.builds(Requirement, st.none(), times)


@given(asked, asked, times, st.integers(0, 6))
def test_a_level_and_a_session_are_both_kept(one: Requirement, other: Requirement, as_of: int, version: int) -> None:
    ground = both(Ground(one), Ground(other))
    shown = item(as_of, version)
    together = serves(shown, ground.requirement) and serves(shown, ground.also)
    assert together == (serves(shown, one) and serves(shown, other))


def test_a_bound_takes_a_duration_and_a_table() -> None:
    assert Bounded("250ms").max_age_us == 250_000
    with pytest.raises(ConfigError, match=r"Bounded\.max_age"):
        Bounded("soon")
    report = Entity("report:{day}", load=lambda tx, keys: {})
    with pytest.raises(ConfigError, match="says not whose changes"):
        level_of(report, Bounded("1s"))
    order = Entity("order:{id}", table="orders", consistency=Bounded("1s"))
    assert level_of(order, None) == Bounded("1s")
    assert level_of(order, Eventual()) == Eventual()
    with pytest.raises(ConfigError, match="Strong"):
        level_of(order, Strong())


def test_free_ground_asks_nothing() -> None:
    assert (FREE.requirement, FREE.also, FREE.proven, FREE.holds()) == (ANY, ANY, True, True)
