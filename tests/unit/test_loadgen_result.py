"""The record of a run survives its file, and its histograms are HdrHistogram's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from loadgen.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram
from loadgen.result import (
    Host,
    Latency,
    NotAResult,
    Operation,
    RunResult,
    Usage,
    Window,
    config_hash,
    load_result,
    save_result,
    schema,
)

durations = st.lists(st.integers(0, HIGHEST_NS), max_size=50)


def counted_one_by_one(values: list[int]) -> HdrHistogram:
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for value in values:
        histogram.record_value(value)
    return histogram


@given(durations)
def test_counting_by_the_thousand_fills_the_buckets_of_hdrhistogram(values: list[int]) -> None:
    ours, theirs = Histogram.of(values), counted_one_by_one(values)
    assert ours.count == theirs.get_total_count()
    assert np.array_equal(Histogram.of_hdr(theirs).index, ours.index)
    assert np.array_equal(Histogram.of_hdr(theirs).counts, ours.counts)


@given(durations.filter(bool), st.sampled_from([50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_value_at_its_rank_rounded_up_in_its_bucket(values: list[int], percent: float) -> None:
    at_rank = int(np.percentile(values, percent, method="inverted_cdf"))
    expected = counted_one_by_one(values).get_highest_equivalent_value(at_rank)
    assert Histogram.of(values).percentile_ns(percent) == expected


@given(durations, durations)
def test_a_sum_is_what_counting_together_gives(some: list[int], others: list[int]) -> None:
    together, summed = Histogram.of(some + others), Histogram.sum_of([Histogram.of(some), Histogram.of(others)])
    assert np.array_equal(together.index, summed.index)
    assert np.array_equal(together.counts, summed.counts)


@given(durations)
def test_the_encoding_is_read_back_and_by_hdrhistogram(values: list[int]) -> None:
    ours = Histogram.of(values)
    again = Histogram.decode(ours.encode())
    assert np.array_equal(again.counts, ours.counts)
    assert HdrHistogram.decode(ours.encode()).get_total_count() == len(values)


def test_other_digits_are_refused() -> None:
    with pytest.raises(ValueError, match="2 digits"):
        Histogram.of_hdr(HdrHistogram(1, 1_000_000, 2))


def a_result(**changes: object) -> RunResult:
    latency = Latency.of(Histogram.of([1_000_000, 2_000_000, 90_000_000]))
    get = Operation(offered=4, achieved=3, errors={"TimeoutError": 1}, latency=latency, service=latency)
    window = Window(0, "measured", {"get": get}, {"hit": 2, "filled": 1}, latency, "", 0, 3, 1, 0, 0.25)
    fields: dict[str, object] = {
        "label": "a",
        "started": "2026-11-23T08:00:00Z",
        "host": Host("here", "Linux", 2, 4096),
        "versions": {"leasecache": "0.1.0"},
        "seed": 1,
        "config": {"rate": 4.0},
        "config_hash": config_hash({"rate": 4.0}),
        "target": "null",
        "processes": 1,
        "seconds": 1.0,
        "warmup_s": 0.0,
        "offered_per_s": 4.0,
        "achieved_per_s": 3.0,
        "operations": {"get": get},
        "sources": {"hit": 2, "filled": 1},
        "errors": {"TimeoutError": 1},
        "lag": latency,
        "windows": [window],
        "generator": [Usage(1, 0.25, 30.0)],
        "servers": {},
    }
    return RunResult(**(fields | changes))  # type: ignore[arg-type]


def test_a_result_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save_result(tmp_path / "run.json", a_result())
    assert load_result(tmp_path / "run.json") == a_result()


def test_the_file_keeps_to_the_schema(tmp_path: Path) -> None:
    save_result(tmp_path / "run.json", a_result())
    Draft202012Validator(schema()).validate(msgspec.json.decode((tmp_path / "run.json").read_bytes()))


def test_another_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"reads": 1}')
    with pytest.raises(NotAResult, match=r"other.json is not the record of a run"):
        load_result(tmp_path / "other.json")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    save_result(tmp_path / "later.json", a_result(format="loadgen-result/9"))
    with pytest.raises(NotAResult, match="loadgen-result/9"):
        load_result(tmp_path / "later.json")


def test_the_hash_is_of_what_was_asked_not_of_its_seed() -> None:
    assert config_hash({"rate": 1, "seed": 1}) == config_hash({"seed": 2, "rate": 1})
    assert config_hash({"rate": 1}) != config_hash({"rate": 2})


def test_a_window_sums_its_operations() -> None:
    window = a_result().windows[0]
    assert (window.offered, window.achieved, window.errors) == (4, 3, 1)


def test_the_hit_ratio_is_of_reads_that_were_answered() -> None:
    assert a_result().hit_ratio == pytest.approx(2 / 3)
