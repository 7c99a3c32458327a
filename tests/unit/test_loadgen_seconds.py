"""A checked history, second by second."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from loadgen.history import History, reads_of, writes_of
from loadgen.judge import Judged
from loadgen.record import How, Source, Status
from loadgen.seconds import seconds_of

NS = 1_000_000_000
MS = 1_000_000
START = 7 * NS
"""Of the load."""


def read(at_s: float, *, version: int = 5, waited_ms: int = 1, took_ms: int = 2, source: Source = Source.HIT) -> Any:
    intended = START + int(at_s * NS)
    began = intended + waited_ms * MS
    return [0, 3, intended, began, began + took_ms * MS, version, 0, source, 1]


def judged(reads: list[Any], writes: list[Any], seconds: float) -> Judged:
    subject = SimpleNamespace(strong=False)
    keys = [[str(key) for key in range(5)]]
    stage = SimpleNamespace(
        dataset=SimpleNamespace(subjects=[subject]), keys=keys, first=[dict.fromkeys(keys[0], 5)], backend="redis"
    )
    probes = np.zeros((0, 9), dtype=np.int64)
    history = History(reads_of(np.asarray(reads)), reads_of(probes), writes_of(np.asarray(writes).reshape(-1, 9)))
    nothing: Any = SimpleNamespace(by_source=Counter())
    return Judged(cast("Any", stage), history, nothing, nothing, seconds, start_ns=START)


def test_reads_belong_to_the_second_in_which_they_were_meant_to_start() -> None:
    slow = read(0.2, took_ms=1500, source=Source.FILLED)
    first, second, third = seconds_of(judged([read(0.1), slow, read(1.5), read(2.0)], [], 3.0))
    assert [one.at_s for one in (first, second, third)] == [0, 1, 2]
    assert [one.offered for one in (first, second, third)] == [2, 1, 1]
    assert [one.ended for one in (first, second, third)] == [1, 2, 1]
    assert first.sources == {"hit": 1, "filled": 1}
    assert first.operations["read"].latency.max_ms == pytest.approx(1501, rel=0.01)
    assert first.operations["read"].service.max_ms == pytest.approx(1500, rel=0.01)


def test_reads_that_failed_are_errors_and_have_no_latency() -> None:
    (only,) = seconds_of(judged([read(0.1), read(0.2, took_ms=900, source=Source.ERROR)], [], 1.0))
    assert (only.offered, only.achieved, only.errors, only.ended) == (2, 1, 1, 1)
    assert only.operations["read"].latency.max_ms < 10


def test_stale_reads_are_counted_in_their_second() -> None:
    ended = START + NS // 2
    write = [0, 3, (1 << 32) | 1, How.BEHIND, 0, Status.ACKNOWLEDGED, 9, ended - MS, ended]
    before, after = seconds_of(judged([read(0.1), read(1.1), read(1.2)], [write], 2.0))
    assert (before.stale, before.checked) == (0, 1)
    assert (after.stale, after.checked) == (2, 2)


def test_second_without_reads_is_told_as_empty() -> None:
    first, second = seconds_of(judged([read(1.1)], [], 2.0))
    assert (first.offered, first.sources) == (0, {})
    assert second.offered == 1
