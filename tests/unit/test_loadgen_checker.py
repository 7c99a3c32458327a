"""Hand-made histories, and what the checker says of each. Times are small numbers; versions are 10, 20 and so on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from loadgen.checker import Findings, check, lost_writes
from loadgen.history import Reads, Writes, reads_of, writes_of
from loadgen.record import ABSENT, WRONG, How, Source, Status, stamp_of

FIRST = 1
"""The version of every row before the run, whose stamp is 0."""


@dataclass
class Story:
    """A history in the making: key 0 unless said otherwise."""

    reads: list[tuple[int, ...]] = field(default_factory=list)
    writes: list[tuple[int, ...]] = field(default_factory=list)
    keys: int = 2
    absent_first: bool = False

    def write(
        self,
        version: int,
        start: int,
        end: int,
        *,
        key: int = 0,
        how: How = How.LIBRARY,
        status: Status = Status.ACKNOWLEDGED,
        gone: bool = False,
    ) -> int:
        """A write; its stamp."""
        stamp = stamp_of(1, len(self.writes) + 1)
        self.writes.append((0, key, stamp, how, int(gone), status, version, start, end))
        return stamp

    def read(
        self,
        version: int,
        start: int,
        end: int,
        stamp: int,
        *,
        key: int = 0,
        source: Source = Source.HIT,
        thread: int = 1,
    ) -> None:
        """A read that returned this version and stamp."""
        self.reads.append((0, key, start, start, end, version, stamp, source, thread))

    def check(self, *, strong: bool = True) -> Findings:
        """What the checker says."""
        first = np.full(self.keys, 0 if self.absent_first else FIRST, dtype=np.int64)
        return check(self.reads_(), self.writes_(), first, strong=strong)

    def reads_(self) -> Reads:
        return reads_of(np.asarray(self.reads, dtype=np.int64))

    def writes_(self) -> Writes:
        return writes_of(np.asarray(self.writes, dtype=np.int64))


def clean(found: Findings) -> bool:
    return (found.stale, found.backwards, found.wrong, found.misordered) == (0, 0, 0, 0)


# --- stale ---------------------------------------------------------------------------------------


def test_a_read_that_started_after_a_write_ended_must_see_it() -> None:
    story = Story()
    story.write(10, 100, 200)
    story.read(FIRST, 201, 210, stamp=0)
    assert story.check().stale == 1


def test_a_read_of_the_newest_write_is_fine() -> None:
    story = Story()
    stamp = story.write(10, 100, 200)
    story.read(10, 201, 210, stamp)
    assert clean(story.check())


def test_a_write_that_ran_at_the_same_time_does_not_count() -> None:
    story = Story()
    stamp = story.write(10, 100, 200)
    story.read(FIRST, 150, 300, stamp=0)  # started before the write had ended
    story.read(FIRST, 200, 300, stamp=0)  # at that very moment
    story.read(10, 120, 130, stamp)  # and the new value may be seen before the write is acknowledged
    assert story.check(strong=False).stale == 0


def test_another_keys_write_does_not_count() -> None:
    story = Story()
    story.write(10, 100, 200, key=1)
    story.read(FIRST, 300, 310, stamp=0, key=0)
    assert clean(story.check())


def test_strong_counts_only_what_the_library_acknowledged() -> None:
    story = Story()
    story.write(10, 100, 200, how=How.BEHIND)
    story.write(20, 300, 400, status=Status.UNCONFIRMED)
    story.read(FIRST, 500, 510, stamp=0)
    assert story.check(strong=True).stale == 0
    assert story.check(strong=False).stale == 1


def test_age_counts_from_the_first_write_that_was_missed() -> None:
    ms = 1_000_000
    story = Story()
    story.write(10, 1 * ms, 2 * ms)
    story.write(20, 3 * ms, 4 * ms)
    story.read(FIRST, 12 * ms, 13 * ms, stamp=0)
    found = story.check()
    assert found.age_ms.tolist() == [10]
    assert found.behind_max == 2
    assert found.stale_by_source == {"hit": 1}


def test_failed_reads_promise_nothing() -> None:
    story = Story()
    story.write(10, 100, 200)
    story.read(0, 300, 310, stamp=0, source=Source.ERROR)
    assert story.check().reads == 0


# --- absence -------------------------------------------------------------------------------------


def test_absence_of_a_row_that_was_never_deleted_is_stale() -> None:
    story = Story()
    story.write(10, 100, 200)
    story.read(0, 300, 310, ABSENT)
    assert story.check().stale == 1


def test_absence_before_the_first_insert_is_fine_and_stale_after_it() -> None:
    story = Story(absent_first=True)
    story.write(10, 100, 200)
    story.read(0, 50, 60, ABSENT)
    story.read(0, 150, 160, ABSENT)
    assert clean(story.check())
    story.read(0, 201, 210, ABSENT)
    assert story.check().stale == 1


def test_absence_after_a_delete_is_fine() -> None:
    story = Story()
    story.write(10, 100, 200, gone=True)
    story.read(0, 300, 310, ABSENT)
    story.read(10, 320, 330, ABSENT)  # as the cache tells it where it knows the version
    assert clean(story.check())


def test_a_row_after_its_delete_is_stale() -> None:
    story = Story()
    story.write(10, 100, 200, gone=True)
    story.read(FIRST, 300, 310, stamp=0)
    assert story.check().stale == 1


def test_absence_after_the_row_came_back_is_stale() -> None:
    story = Story()
    story.write(10, 100, 200, gone=True)
    story.write(20, 300, 400)
    story.read(0, 350, 360, ABSENT)  # while it came back
    assert clean(story.check())
    story.read(0, 401, 410, ABSENT)
    assert story.check().stale == 1


def test_absence_while_a_later_delete_runs_is_fine() -> None:
    story = Story()
    story.write(10, 100, 200)
    story.write(20, 300, 400, gone=True)
    story.read(0, 350, 360, ABSENT)
    assert clean(story.check())


def test_absence_after_a_delete_whose_end_nobody_knows_is_fine() -> None:
    story = Story()
    story.write(0, 100, 0, gone=True, status=Status.BEGUN)
    story.read(0, 300, 310, ABSENT)
    assert clean(story.check())


# --- monotonic reads -----------------------------------------------------------------------------


def test_strong_reads_do_not_go_back_behind_what_anybody_was_served() -> None:
    story = Story()
    stamp = story.write(10, 100, 900)  # still running: neither value is stale
    story.read(10, 200, 210, stamp, thread=1)
    story.read(FIRST, 220, 230, stamp=0, thread=2)
    found = story.check()
    assert (found.stale, found.backwards) == (0, 1)


def test_strong_reads_at_the_same_time_may_differ() -> None:
    story = Story()
    stamp = story.write(10, 100, 900)
    story.read(10, 200, 230, stamp, thread=1)
    story.read(FIRST, 220, 240, stamp=0, thread=2)
    assert clean(story.check())


def test_what_came_from_the_store_past_the_cache_is_no_evidence() -> None:
    story = Story()
    stamp = story.write(10, 100, 900)
    story.read(10, 200, 210, stamp, source=Source.STORE)
    story.read(FIRST, 220, 230, stamp=0)
    assert clean(story.check())


def test_eventual_reads_are_held_against_their_own_thread() -> None:
    story = Story()
    stamp = story.write(10, 100, 900)
    story.read(10, 200, 210, stamp, thread=1)
    story.read(FIRST, 220, 230, stamp=0, thread=2)
    assert story.check(strong=False).backwards == 0
    story.read(FIRST, 240, 250, stamp=0, thread=1)
    assert story.check(strong=False).backwards == 1


# --- values --------------------------------------------------------------------------------------


def test_a_value_of_another_key_is_wrong() -> None:
    story = Story()
    story.read(FIRST, 100, 110, WRONG)
    assert story.check().wrong == 1


def test_a_value_of_another_version_is_wrong() -> None:
    story = Story()
    first, second = story.write(10, 100, 200), story.write(20, 300, 400)
    story.read(20, 500, 510, second)
    assert clean(story.check())
    story.read(20, 520, 530, first)
    assert story.check().wrong == 1


def test_a_version_that_nobody_wrote_is_wrong() -> None:
    story = Story()
    stamp = story.write(10, 100, 200)
    story.read(11, 300, 310, stamp)
    assert story.check().wrong == 1


def test_a_version_before_it_was_written_is_wrong() -> None:
    story = Story()
    stamp = story.write(10, 100, 200)
    story.read(10, 50, 60, stamp)
    assert story.check().wrong == 1


def test_a_write_that_was_refused_must_not_be_seen() -> None:
    story = Story()
    stamp = story.write(0, 100, 200, status=Status.REFUSED)
    story.read(10, 300, 310, stamp)
    assert story.check().wrong == 1


def test_a_write_that_was_cut_off_may_be_seen_in_its_own_key() -> None:
    story = Story()
    stamp = story.write(0, 100, 0, status=Status.BEGUN)
    story.read(10, 300, 310, stamp)
    story.read(FIRST, 290, 295, stamp=0)
    assert clean(story.check())
    story.read(10, 300, 310, stamp, key=1)
    assert story.check().wrong == 1


# --- writes --------------------------------------------------------------------------------------


def test_versions_rise_in_the_order_of_the_writes() -> None:
    story = Story()
    story.write(20, 100, 200)
    story.write(10, 300, 400)
    assert story.check().misordered == 1


def test_writes_at_the_same_time_come_in_either_order() -> None:
    story = Story()
    story.write(20, 100, 200)
    story.write(10, 150, 400)
    assert story.check().misordered == 0


def test_the_end_of_a_write_replaces_its_beginning() -> None:
    stamp = stamp_of(1, 1)
    begun = (0, 0, stamp, How.LIBRARY, 0, Status.BEGUN, 0, 100, 0)
    ended = (0, 0, stamp, How.LIBRARY, 0, Status.ACKNOWLEDGED, 10, 100, 200)
    other = (0, 0, stamp_of(1, 2), How.LIBRARY, 0, Status.BEGUN, 0, 300, 0)
    writes = writes_of(np.asarray([begun, ended, other], dtype=np.int64))
    assert sorted(writes.status.tolist()) == [Status.BEGUN, Status.ACKNOWLEDGED]


def test_an_acknowledged_write_must_be_in_the_store() -> None:
    story = Story()
    stamp = story.write(10, 100, 200)
    assert lost_writes(story.writes_(), {0: (10, stamp)}) == []
    assert len(lost_writes(story.writes_(), {0: (FIRST, 0)})) == 1
    assert len(lost_writes(story.writes_(), {})) == 1
    assert len(lost_writes(story.writes_(), {0: (10, stamp + 1)})) == 1


def test_an_acknowledged_delete_must_not_be_undone() -> None:
    story = Story()
    story.write(10, 100, 200, gone=True)
    assert lost_writes(story.writes_(), {}) == []
    assert len(lost_writes(story.writes_(), {0: (FIRST, 0)})) == 1


def test_a_write_that_was_cut_off_may_stand_over_an_acknowledged_one() -> None:
    story = Story()
    story.write(10, 100, 200)
    stamp = story.write(0, 300, 0, status=Status.BEGUN)
    assert lost_writes(story.writes_(), {0: (20, stamp)}) == []
    story.write(0, 400, 0, status=Status.BEGUN, gone=True)
    assert lost_writes(story.writes_(), {}) == []
