"""When a commit behind the library was seen by all, and how long an outage was felt."""

from __future__ import annotations

import numpy as np

from loadgen.checker import Findings
from loadgen.history import Reads, Writes, reads_of, writes_of
from loadgen.record import How, Source, Status, stamp_of
from loadgen.visibility import Outage, catch_up_s, visibility

MS = 1_000_000
NO_READS = reads_of(np.zeros((0, 9), dtype=np.int64))


def probe(version: int, end_ms: int) -> Writes:
    row = (0, 0, stamp_of(1, 1), How.PROBE, 0, Status.ACKNOWLEDGED, version, (end_ms - 1) * MS, end_ms * MS)
    return writes_of(np.asarray([row], dtype=np.int64))


def looks(*seen: tuple[int, int]) -> Reads:
    """Reads of key 0: (start in ms, version)."""
    rows = [(0, 0, at * MS, at * MS, at * MS + 1, version, 0, Source.HIT, 1) for at, version in seen]
    return reads_of(np.asarray(rows, dtype=np.int64))


def seen_ms(reads: Reads, probes: Reads, *outages: Outage) -> list[float]:
    found = visibility(reads, probes, probe(10, 100), np.asarray([1], dtype=np.int64), outages)
    return [round(one, 3) for one in found.seen_ms.tolist()]


def test_visible_is_the_first_look_that_shows_the_new_row() -> None:
    assert seen_ms(NO_READS, looks((99, 1), (103, 1), (106, 1), (109, 10))) == [9.0]


def test_any_reader_who_still_sees_the_old_row_counts() -> None:
    assert seen_ms(looks((120, 1)), looks((103, 1), (109, 10), (130, 10))) == [30.0]


def test_a_row_that_nobody_saw_is_told_apart() -> None:
    found = visibility(NO_READS, looks((103, 1)), probe(10, 100), np.asarray([1], dtype=np.int64), [])
    assert (len(found.seen_ms), found.unseen) == (0, 1)


def test_what_an_outage_held_up_is_not_a_visibility() -> None:
    outage = Outage(105 * MS, 150 * MS, 160 * MS)
    assert seen_ms(NO_READS, looks((103, 1), (170, 10)), outage) == []
    assert seen_ms(NO_READS, looks((103, 10), (170, 10)), outage) == [3.0]


def test_catching_up_ends_with_the_last_read_that_the_outage_made_stale() -> None:
    s = 1_000_000_000
    outage = Outage(10 * s, 14 * s, 15 * s)
    found = Findings()
    found.stale_since = np.asarray([11 * s, 12 * s, 16 * s])  # the last was committed after the daemon was back
    found.stale_start = np.asarray([13 * s, 17 * s, 18 * s])
    assert catch_up_s(found, [outage]) == 3.0
    assert catch_up_s(Findings(), [outage]) == 0.0
    assert catch_up_s(found, []) is None
