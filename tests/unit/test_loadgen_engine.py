"""What a worker counts of its lanes, and what frames carry."""

from __future__ import annotations

import os
import time
from array import array

import numpy as np
import pytest

from loadgen.engine.frames import Beat, Channel, Done, Go
from loadgen.engine.lane import Lane, Outcome
from loadgen.engine.pace import Shift, run_closed, run_open
from loadgen.engine.tally import NOT_STARTED, Tally, histogram_of
from loadgen.histogram import Histogram
from loadgen.workloads.draws import Operations
from loadgen.workloads.workload import GET, OPERATIONS

MS = 1_000_000
START = 10**12


def gets(at_s: list[float]) -> Operations:
    count = len(at_s)
    zeros = np.zeros(count, dtype=np.int64)
    return Operations(np.asarray(at_s), zeros + GET, zeros, np.arange(count + 1))


def lane_of(rows: list[tuple[float, float, float]], *, in_order: bool = True) -> Lane:
    """Intended, start and end, milliseconds after the start; 0 and 0: never begun."""
    lane = Lane(gets([at / 1000 for at, _, _ in rows]), in_order=in_order)
    lane.begin(START)
    for place, (_, start, end) in enumerate(rows):
        lane.start_ns[place] = START + int(start * MS) if start else 0
        lane.end_ns[place] = START + int(end * MS) if end else 0
        lane.outcome[place] = Outcome.HIT if end else Outcome.UNFINISHED
    return lane


def lags_ms(lane: Lane) -> list[float]:
    return ((lane.columns()["start"] - lane.due_ns()) / MS).tolist()


def test_waiting_behind_a_slow_answer_is_latency_and_no_lag() -> None:
    lane = lane_of([(1, 1, 101), (2, 101, 102), (3, 102, 103)])
    assert lags_ms(lane) == [0, 0, 0]
    second = next(Tally([lane], START, closed=False).seconds())
    assert histogram_of(second.operations["get"].latency).max_ms == pytest.approx(100, rel=0.01)
    assert histogram_of(second.operations["get"].service).percentile_ms(50) == pytest.approx(1, rel=0.01)


def test_a_pause_of_the_generator_is_the_lag_of_all_that_queued_behind_it() -> None:
    # It slept through 50 ms; each answer takes 1 ms.
    assert lags_ms(lane_of([(1, 51, 52), (2, 52, 53), (3, 53, 54), (60, 60, 61)])) == [50, 50, 50, 0]


def test_without_an_order_every_late_start_is_lag() -> None:
    assert lags_ms(lane_of([(1, 1, 101), (2, 5, 9)], in_order=False)) == [0, 3]


def test_what_never_began_is_an_error_and_no_latency() -> None:
    second = next(Tally([lane_of([(1, 1, 2), (2, 0, 0)])], START, closed=False).seconds())
    get = second.operations["get"]
    assert (get.offered, get.achieved, get.errors) == (2, 1, {NOT_STARTED: 1})
    assert histogram_of(second.lag).count == 1


def test_an_operation_belongs_to_the_second_in_which_it_was_meant_to_start() -> None:
    tally = Tally([lane_of([(999, 999, 1500), (1000, 1500, 1501)])], START, closed=False)
    assert [(second.at_s, second.operations["get"].offered) for second in tally.seconds()] == [(0, 1), (1, 1)]
    assert tally.ended() == {1: 2}


def test_errors_are_counted_by_type_and_reads_by_source() -> None:
    lane = lane_of([(1, 1, 2), (2, 2, 3), (3, 3, 4)])
    lane.outcome[0] = lane.failed(TimeoutError())
    lane.outcome[1] = Outcome.FILLED
    second = next(Tally([lane], START, closed=False).seconds())
    assert second.operations["get"].errors == {"TimeoutError": 1}
    assert second.sources == {"filled": 1, "hit": 1}


def test_lanes_share_the_operations_in_turn_and_lose_none() -> None:
    operations = Operations(
        np.arange(5.0), np.asarray([1, 0, 1, 0, 0]), np.asarray([7, 8, 1, 2, 3, 4, 5]), np.asarray([0, 2, 3, 5, 6, 7])
    )
    even, odd = operations.every(2, 0), operations.every(2, 1)
    assert (even.keys.tolist(), even.first.tolist()) == ([7, 8, 2, 3, 5], [0, 2, 4, 5])
    assert (odd.keys.tolist(), odd.first.tolist()) == ([1, 4], [0, 1, 2])


def test_an_open_loop_starts_nothing_early() -> None:
    lane = Lane(gets([0.0, 0.01, 0.02]), in_order=True)
    lane.begin(time.monotonic_ns())
    run_open(lane, [lambda place, key: Outcome.HIT] * len(OPERATIONS), Shift(time.monotonic_ns() + 60_000 * MS))
    assert (lane.columns()["start"] >= lane.at_ns).all()
    assert list(lane.outcome) == [Outcome.HIT] * 3


def test_a_stopped_shift_starts_nothing_more() -> None:
    lane = Lane(gets([3600.0]), in_order=True)
    lane.begin(time.monotonic_ns())
    shift = Shift(time.monotonic_ns() + 7200 * 1000 * MS)
    shift.stop()
    run_open(lane, [lambda place, key: Outcome.HIT] * len(OPERATIONS), shift)
    assert list(lane.start_ns) == [0]


def test_an_error_of_the_target_is_an_outcome_and_the_loop_goes_on() -> None:
    def call(place: int, key: int) -> int:
        if place == 1:
            raise TimeoutError
        return Outcome.HIT

    lane = Lane(gets([0.0, 0.0, 0.0]), in_order=True)
    lane.begin(time.monotonic_ns())
    run_open(lane, [call] * len(OPERATIONS), Shift(time.monotonic_ns() + 60_000 * MS))
    assert list(lane.outcome) == [Outcome.HIT, -1, Outcome.HIT]
    assert lane.errors == ["TimeoutError"]


def test_a_closed_loop_ends_at_its_end_whatever_was_drawn() -> None:
    lane = Lane(gets([0.0] * 100_000), in_order=True)
    end_ns = time.monotonic_ns() + 30 * MS
    calls = [lambda place, key: time.sleep(0.001) or Outcome.HIT] * len(OPERATIONS)
    run_closed(lane, calls, Shift(end_ns + 60_000 * MS), end_ns)
    done = sum(1 for end in lane.end_ns if end)
    assert 1 <= done <= 31
    seconds = Tally([lane], end_ns - 30 * MS, closed=True).seconds()
    assert sum(second.operations["get"].offered for second in seconds) == done


def test_frames_cross_a_stream_and_its_end_is_none() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as incoming, os.fdopen(writing, "wb") as outgoing:
        sender, receiver = Channel(incoming, outgoing), Channel(incoming, outgoing)
        beat = Beat(0.5, 10, 0, 0.1, 0.2, 0.3, 40.0)
        sender.send(beat)
        sender.send(Go(5))
        sender.send_log("reads", array("q", range(10)).tobytes())
        sender.send(Done({3: 4}))
        assert [receiver.receive() for _ in range(2)] == [beat, Go(5)]
        assert receiver.receive().rows == array("q", range(10)).tobytes()
        assert receiver.receive() == Done({3: 4})
        outgoing.write(b"\x00\x00\x00\x09half")
        outgoing.close()
        assert receiver.receive() is None


def test_a_stall_is_told_within_two_percent_and_service_times_alone_hide_it() -> None:
    # A thousand operations a second on one thread, 0.2 ms each; the target stands still in the second from 4 to 5 s.
    rows, free = [], 0.0
    for number in range(10_000):
        at = number + 0.5
        start = max(at, free)
        answered = max(start, 5000.0) if 4000.0 <= start < 5000.0 else start
        free = answered + 0.2
        rows.append((at, start, free))
    seconds = list(Tally([lane_of(rows)], START, closed=False).seconds())
    parts = [second.operations["get"] for second in seconds]
    latency = Histogram.sum_of(histogram_of(part.latency) for part in parts)
    service = Histogram.sum_of(histogram_of(part.service) for part in parts)
    # 1000 arrivals of 10 000 wait until 5 s, and then for those before them: 250 more have arrived when none waits.
    for percent in (92.0, 95.0, 99.0, 99.9):
        waits = np.sort([end - at for at, _, end in rows])
        assert latency.percentile_ms(percent) == pytest.approx(waits[int(percent * 100) - 1], rel=0.02)
    # In closed form: the k-th of those that meet the pause waits for its end and for those before it; the 99th
    # percentile is that of k = 100.
    assert latency.percentile_ms(99) == pytest.approx(1000 - 0.8 * 100, rel=0.02)
    assert service.percentile_ms(99.9) < 1
    assert max(histogram_of(second.lag).max_ms for second in seconds) < 0.001
