"""What workers leave behind is what the checker reads."""

from __future__ import annotations

from pathlib import Path

from loadgen.history import load
from loadgen.record import How, ReadLog, Result, Source, Status, WriteLog, stamp_of


def test_reads_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    log = ReadLog()
    log.add((0, 5, 100, 101, 110, 7, stamp_of(2, 3), int(Source.HIT)))
    log.add((1, 6, 200, 201, 210, 0, -1, int(Source.FILLED)))
    log.save(tmp_path / "reads-65.npy")
    reads = load(tmp_path).reads
    assert reads.key.tolist() == [5, 6]
    assert reads.stamp.tolist() == [stamp_of(2, 3), -1]
    assert reads.thread.tolist() == [65, 65]
    assert len(reads.of(1)) == 1


def test_a_thread_that_read_nothing_leaves_nothing(tmp_path: Path) -> None:
    ReadLog().save(tmp_path / "reads-1.npy")
    assert len(load(tmp_path).reads) == 0


def test_a_write_that_was_cut_off_is_known_by_its_beginning(tmp_path: Path) -> None:
    log = WriteLog(tmp_path / "writes-1.bin")
    log.begun(0, 5, stamp_of(1, 1), How.LIBRARY, gone=False, start_ns=100)
    result = Result(Status.ACKNOWLEDGED, 9)
    log.ended(0, 5, stamp_of(1, 1), How.LIBRARY, gone=False, times=(100, 150), result=result)
    log.begun(0, 6, stamp_of(1, 2), How.BEHIND, gone=True, start_ns=200)
    # Not closed: the process was killed here.
    writes = load(tmp_path).writes
    log.close()
    assert dict(zip(writes.stamp.tolist(), writes.status.tolist(), strict=True)) == {
        stamp_of(1, 1): Status.ACKNOWLEDGED,
        stamp_of(1, 2): Status.BEGUN,
    }
    assert writes.version.tolist() == [9, 0]


def test_stamps_of_two_writers_never_meet() -> None:
    assert len({stamp_of(writer, seq) for writer in range(50) for seq in range(50)}) == 2500
    assert stamp_of(0, 0) == 0
