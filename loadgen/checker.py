"""Judges a history: which reads broke what was promised, and which were merely old.

    stale       the returned version is older than the newest write that had *ended* before the read
                *started*; a write that ran at the same time never counts
    backwards   strong: an earlier read had been served something newer; eventual: the same thread's had
    wrong       the value is another key's, or not what the write of its version wrote, or nobody's
    misordered  a write that started after another had ended drew a lower version

A key whose reads are not stale, not backwards and not wrong, and whose writes are not misordered,
is a linearizable register: versions are unique, so no search over orders is needed.

Absence that came without a version is taken for the newest delete that it may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from loadgen.history import Flags, Numbers, Reads, Writes
from loadgen.record import ABSENT, STAMP_BITS, How, Source, Status

NEVER = -1
"""Below every version: nothing that anybody could have read."""
BEGINNING = -(2**62)
"""Before the run."""
ANY_VERSION = 2**34
"""Above every version: the delete whose version nobody knows."""
EXAMPLES = 5


@dataclass(slots=True)
class Findings:
    """What was found about one subject. Times of stale reads: when they started, and since when they were old."""

    reads: int = 0
    hits: int = 0
    stale: int = 0
    backwards: int = 0
    wrong: int = 0
    misordered: int = 0
    behind_max: int = 0
    """How many versions the oldest stale read was behind."""
    stale_by_source: dict[str, int] = field(default_factory=dict)
    stale_start: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    stale_since: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    examples: list[str] = field(default_factory=list)

    @property
    def age_ms(self) -> Numbers:
        """How long each stale read's row had been superseded, milliseconds."""
        return (self.stale_start - self.stale_since) // 1_000_000


def check(reads: Reads, writes: Writes, first: Numbers, *, strong: bool) -> Findings:
    """Judge one subject. `first`: the version of each key before the run, 0 where there was no row.

    For a strong subject only what the library acknowledged is promised; for others every commit counts.
    """
    reads = reads.where(reads.source != Source.ERROR)
    committed = writes.where(committed_of(writes))
    promised = committed.where(promised_of(committed)) if strong else committed
    claimed = claimed_versions(reads, writes, first)
    floor = newest_before(promised.key, promised.end, promised.version, reads.key, reads.start)
    floor = np.maximum(floor, first[reads.key])
    old, wrong = claimed < floor, wrong_values(reads, writes, first)
    back = _backwards_of_all(reads, claimed) if strong else backwards_of_threads(reads, claimed)
    found = Findings(len(reads), int((reads.source == Source.HIT).sum()))
    found.stale, found.backwards, found.wrong = int(old.sum()), int(back.sum()), int(wrong.sum())
    found.misordered = _misordered(committed)
    _describe_stale(found, reads.where(old), claimed[old], floor[old], promised)
    for what, chosen in (("stale", old), ("backwards", back if strong else back & False), ("wrong", wrong)):
        found.examples += _examples(what, reads.where(chosen), claimed[chosen], floor[chosen])
    return found


def committed_of(writes: Writes) -> Flags:
    """Surely in the store, and the version is known."""
    ended = (writes.status == Status.ACKNOWLEDGED) | (writes.status == Status.UNCONFIRMED)
    flags: Flags = ended & (writes.version > 0)
    return flags


def promised_of(committed: Writes) -> Flags:
    """Of those, what the library has acknowledged."""
    flags: Flags = (committed.status == Status.ACKNOWLEDGED) & (committed.how == How.LIBRARY)
    return flags


def _perhaps(writes: Writes) -> Flags:
    """Nobody knows whether, or as which version, it is in the store."""
    unsure = np.isin(writes.status, (Status.BEGUN, Status.UNKNOWN))
    flags: Flags = unsure | ((writes.status == Status.UNCONFIRMED) & (writes.version == 0))
    return flags


# --- versions ------------------------------------------------------------------------------------


def claimed_versions(reads: Reads, writes: Writes, first: Numbers) -> Numbers:
    """The version that each read stands for."""
    gone = writes.where((writes.gone == 1) & (committed_of(writes) | _perhaps(writes)))
    version = np.where(_perhaps(gone), ANY_VERSION, gone.version)
    # A delete counts from its start: until the read ended it may have become visible.
    newest = newest_before(gone.key, gone.start, version, reads.key, reads.end)
    at_least = np.where(first[reads.key] == 0, 0, NEVER)
    bare = (reads.stamp == ABSENT) & (reads.version == 0)
    claimed: Numbers = np.where(bare, np.maximum(newest, at_least), reads.version)
    return claimed


def newest_before(key: Numbers, time: Numbers, version: Numbers, asked_key: Numbers, asked_time: Numbers) -> Numbers:
    """For each question the highest version among the events of its key with a time before it; else `NEVER`."""
    keys = np.concatenate((asked_key, key))
    times = np.concatenate((asked_time, time))
    is_event = np.concatenate((np.zeros(len(asked_key), dtype=np.int64), np.ones(len(key), dtype=np.int64)))
    # At equal times questions come first: what ended at that very moment was still running.
    order = np.lexsort((is_event, times, keys))
    values = np.concatenate((np.full(len(asked_key), NEVER, dtype=np.int64), version)) + 1
    base = np.unique(keys, return_inverse=True)[1].astype(np.int64) * np.int64(2 * ANY_VERSION)
    # Keys ascend, so the running maximum of key and version together never comes from another key.
    running = np.maximum.accumulate((base + values)[order])
    newest = np.empty(len(order), dtype=np.int64)
    newest[order] = running - base[order] - 1
    return newest[: len(asked_key)]


# --- verdicts --------------------------------------------------------------------------------------


def _backwards_of_all(reads: Reads, claimed: Numbers) -> Flags:
    """Older than what any earlier read was served *by the item*: what came from the store past an
    unreachable cache is no evidence, since the write that made it may not be acknowledged yet.
    """
    shown = ((reads.source == Source.HIT) | (reads.source == Source.FILLED)) & (reads.version > 0)
    newest = newest_before(reads.key[shown], reads.end[shown], reads.version[shown], reads.key, reads.start)
    flags: Flags = claimed < newest
    return flags


def backwards_of_threads(reads: Reads, claimed: Numbers) -> Flags:
    """Older than what the same thread has seen."""
    threads, number = np.unique(reads.thread, return_inverse=True)
    place = reads.key * max(1, len(threads)) + number.astype(np.int64)
    shown = reads.version > 0
    newest = newest_before(place[shown], reads.end[shown], reads.version[shown], place, reads.start)
    flags: Flags = claimed < newest
    return flags


def wrong_values(reads: Reads, writes: Writes, first: Numbers) -> Flags:
    """The value is not what the write of its version left in this key."""
    left = writes.where(committed_of(writes) & (writes.gone == 0))
    present = np.flatnonzero(first > 0)
    key = np.concatenate((left.key, present))
    version = np.concatenate((left.version, first[present]))
    stamp = np.concatenate((left.stamp, np.zeros(len(present), dtype=np.int64)))
    start = np.concatenate((left.start, np.full(len(present), BEGINNING, dtype=np.int64)))
    if not len(key):
        return np.asarray(reads.stamp != ABSENT)
    at = key * np.int64(ANY_VERSION) + version
    order = np.argsort(at)
    asked = reads.key * np.int64(ANY_VERSION) + reads.version
    found = order[np.minimum(np.searchsorted(at[order], asked), len(at) - 1)]
    known = at[found] == asked
    fits = known & (stamp[found] == reads.stamp) & (start[found] <= reads.end)
    flags: Flags = (reads.stamp != ABSENT) & ~fits & ~(_of_perhaps(reads, writes) & ~known)
    return flags


def _of_perhaps(reads: Reads, writes: Writes) -> Flags:
    """The value carries the stamp of a write to this key whose end nobody knows."""
    unsure = writes.where(_perhaps(writes))
    key_of = dict(zip(unsure.stamp.tolist(), unsure.key.tolist(), strict=True))
    candidates = np.flatnonzero(np.isin(reads.stamp, unsure.stamp))
    flags = np.zeros(len(reads), dtype=np.bool_)
    for at in candidates.tolist():
        flags[at] = key_of[int(reads.stamp[at])] == reads.key[at]
    return flags


def _misordered(committed: Writes) -> int:
    newest = newest_before(committed.key, committed.end, committed.version, committed.key, committed.start)
    return int((newest >= committed.version).sum())


# --- describing ------------------------------------------------------------------------------------


def _describe_stale(found: Findings, stale: Reads, claimed: Numbers, floor: Numbers, promised: Writes) -> None:
    """Since when each stale read's row was superseded: the end of the next write, in order of versions."""
    found.stale_by_source = {one.name.lower(): int((stale.source == one).sum()) for one in Source}
    found.stale_by_source = {name: count for name, count in found.stale_by_source.items() if count}
    if not len(stale) or not len(promised):
        found.stale_start, found.stale_since = stale.start, stale.start
        return
    at = promised.key * np.int64(ANY_VERSION) + promised.version
    order = np.argsort(at)
    base = stale.key * np.int64(ANY_VERSION)
    following = np.minimum(np.searchsorted(at[order], base + claimed, side="right"), len(at) - 1)
    newest = np.searchsorted(at[order], base + floor, side="right") - 1
    found.behind_max = int((newest - following + 1).max())
    found.stale_start = stale.start
    # A row that was there before the run and is missed has no write to count from.
    known = promised.key[order][following] == stale.key
    found.stale_since = np.where(known, np.minimum(promised.end[order][following], stale.start), stale.start)


def _examples(what: str, reads: Reads, claimed: Numbers, floor: Numbers) -> list[str]:
    lines = []
    for at in range(min(EXAMPLES, len(reads))):
        stamp = int(reads.stamp[at])
        value = "absence" if stamp == ABSENT else f"a value of write {stamp >> STAMP_BITS}.{stamp & 0xFFFFFFFF}"
        lines.append(
            f"{what}: key {int(reads.key[at])} at {int(reads.start[at])} ns returned version {int(claimed[at])}"
            f" ({value}, {Source(int(reads.source[at])).name.lower()}), promised was {int(floor[at])}"
        )
    return lines


# --- what is left in the store -----------------------------------------------------------------------


def lost_writes(writes: Writes, rows: dict[int, tuple[int, int]]) -> list[str]:
    """Acknowledged writes that the store does not know. `rows`: key to version and stamp of the rows that it has."""
    acknowledged = writes.where((writes.status == Status.ACKNOWLEDGED) & (writes.version > 0))
    unsure = writes.where(_perhaps(writes))
    perhaps_gone = set(unsure.key[unsure.gone == 1].tolist())
    unsure_stamps = set(unsure.stamp.tolist())
    lost = []
    order = np.lexsort((acknowledged.version, acknowledged.key))
    keys = acknowledged.key[order]
    last = order[np.append(keys[1:] != keys[:-1], True)] if len(keys) else order
    for at in last.tolist():
        key, version = int(acknowledged.key[at]), int(acknowledged.version[at])
        gone, row = bool(acknowledged.gone[at]), rows.get(key)
        if row is None:
            fine = gone or key in perhaps_gone
        else:
            written = not gone and row == (version, int(acknowledged.stamp[at]))
            fine = written or (row[0] > version and (row[1] in unsure_stamps or _is_of(writes, row[1], key)))
        if not fine:
            lost.append(f"key {key}: version {version} was acknowledged, the store has {row or 'no row'}")
    return lost


def _is_of(writes: Writes, stamp: int, key: int) -> bool:
    """A write to this key that was committed but not acknowledged."""
    return bool(((writes.stamp == stamp) & (writes.key == key) & (writes.status == Status.UNCONFIRMED)).any())
