"""Scales of the pictures: every value has a place, and ticks are round and within."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.page.scale import Scale, milliseconds, plain, size, spread

values = st.floats(1e-6, 1e12)


@given(st.lists(values, min_size=1, max_size=20), st.sampled_from(["linear", "log"]))
def test_every_value_has_its_place_in_order_and_ticks_are_within(found: list[float], kind: str) -> None:
    scale = Scale.over(found, "log" if kind == "log" else "linear")
    places = [scale.share(value) for value in sorted(found)]
    assert places == sorted(places)
    assert scale.low <= min(found) * (1 + 1e-9)
    assert scale.high >= max(found) * (1 - 1e-9)
    ticks = scale.ticks()
    assert ticks == sorted(ticks)
    assert all(scale.low * (1 - 1e-6) <= tick <= scale.high * (1 + 1e-6) for tick in ticks)
    assert 1 <= len(ticks) <= 20


@pytest.mark.parametrize("kind", ["linear", "log", "nines"])
def test_nothing_still_has_a_scale(kind: str) -> None:
    scale = Scale.over([], "log" if kind == "log" else "linear")
    assert scale.high > scale.low
    assert scale.ticks()


def test_nines_stand_equally_far_apart() -> None:
    scale = Scale(0, 99.99, "nines")
    places = [scale.share(value) for value in (0, 90, 99, 99.9, 99.99)]
    assert places == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert scale.share(100) == 1.0


@given(st.floats(1, 1e9), st.floats(2, 1e6))
def test_ticks_of_bytes_are_powers_of_two(low: float, factor: float) -> None:
    ticks = Scale(low, low * factor, "bytes").ticks(8)
    assert len(ticks) <= 8
    assert all(math.log2(tick) == int(math.log2(tick)) for tick in ticks)
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in ticks)


def test_low_picture_has_fewer_ticks() -> None:
    scale = Scale(0.5, 500, "log")
    assert scale.ticks() == [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    assert scale.ticks(crowd=7) == [1, 3, 10, 30, 100, 300]


def test_what_lies_outside_is_at_the_edge() -> None:
    assert Scale(1, 10, "log").share(0) == 0.0
    assert Scale(1, 10, "log").share(1e9) == 1.0


@given(st.lists(st.floats(30, 250), min_size=1, max_size=6))
def test_labels_do_not_touch_each_other(wanted: list[float]) -> None:
    placed = spread(wanted, 14, 30, 260)
    assert all(30 <= one <= 260 for one in placed)
    assert all(after - before >= 14 - 1e-9 for before, after in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert not any(math.isnan(one) for one in placed)


def test_words_have_the_unit_that_fits() -> None:
    assert [milliseconds(0.02), milliseconds(2.5), milliseconds(12_000)] == ["20 µs", "2.5 ms", "12 s"]
    assert [plain(950), plain(12_340), plain(2.5e6)] == ["950", "12.3k", "2.5M"]
    assert [size(512), size(3 * 2**20)] == ["512 B", "3 MiB"]
