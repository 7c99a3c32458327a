"""What reads and writes say of the cache's truth: stale shares, nines, visibility, broken sessions. Pure.

A read is stale if the version that it returned is older than the newest write of its key that had
ended before the read started (`checker`); everything else here follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs

from loadgen.checker import (
    ANY_VERSION,
    backwards_of_threads,
    claimed_versions,
    committed_of,
    newest_before,
    promised_of,
    wrong_values,
)
from loadgen.histogram import Histogram
from loadgen.history import Flags, Numbers, Reads, Writes
from loadgen.intervals import design_effect, nines, ratio
from loadgen.levels import Level, broken_of
from loadgen.record import ABSENT, STAMP_BITS, How, Source
from loadgen.result import Consistency, Latency, LevelFound, Nines, Stale, Visibility
from loadgen.visibility import visibility

WITHIN_S = (0.1, 1.0, 10.0, 60.0, 300.0, 600.0)
US = 1000
UNRESOLVED = -2
"""The version of a read whose write's version is not known."""
OLDER = 0
"""The version of a value that was written before the run, and was no longer the store's when it began."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`first_version` and `first_stamp`: of each key before the run (0 and `ABSENT`: no row). `level`: by key.
    Times are nanoseconds; reads before `from_ns` or after `to_ns` are evidence, and not counted.
    """

    reads: Reads
    probes: Reads
    writes: Writes
    first_version: Numbers
    first_stamp: Numbers
    level: Numbers
    from_ns: int
    to_ns: int
    bounded_ns: int = 0
    """How old a read of a bounded key may be."""
    first_writer: int = 0
    """The lowest writer of this run: lower ones wrote in earlier runs on the same store."""

    @property
    def strong(self) -> Flags:
        """By key."""
        flags: Flags = self.level == Level.STRONG
        return flags


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reads` are those that were counted; `stale` of each of them."""

    consistency: Consistency
    reads: Reads
    stale: Flags


def judge(evidence: Evidence) -> Judgement:
    """All of it."""
    writes = evidence.writes
    every = _resolved(evidence.reads, evidence)
    committed = writes.where(committed_of(writes))
    # Of a strong key only what the library acknowledged is promised, of others every commit counts.
    promised = committed.where(promised_of(committed) | ~evidence.strong[committed.key])
    claimed = claimed_versions(every, writes, evidence.first_version)
    floor = newest_before(promised.key, promised.end, promised.version, every.key, every.start)
    floor = np.maximum(floor, evidence.first_version[every.key])
    counted = (every.intended >= evidence.from_ns) & (every.intended < evidence.to_ns)
    stale = claimed < floor
    since = _superseded(every.where(stale & counted), claimed[stale & counted], promised)
    found = _Found(every.where(counted), claimed[counted], floor[counted], stale[counted], since)
    backwards = backwards_of_threads(every, claimed) & counted
    own_missed = _own_missed(every, claimed, writes) & counted
    consistency = Consistency(
        ratio=ratio(int(found.stale.sum()), len(found.reads), design_effect(found.stale, found.reads.key)),
        stale=_by_level_and_source(found, evidence),
        nines=_nines(every, claimed, promised, evidence),
        visibility=_visibility(every, evidence),
        backwards=int(backwards.sum()),
        own_missed=int(own_missed.sum()),
        wrong=int((_wrong(every, evidence) & counted).sum()),
        levels=_by_level(found, backwards[counted], own_missed[counted], promised, evidence),
    )
    return Judgement(consistency, found.reads, found.stale)


@dataclass(frozen=True, slots=True)
class _Found:
    reads: Reads
    claimed: Numbers
    floor: Numbers
    stale: Flags
    since: Numbers
    """Of the stale ones: when they were superseded."""


# --- versions -----------------------------------------------------------------------------------------


def _resolved(reads: Reads, evidence: Evidence) -> Reads:
    """With the version of each read's stamp. Left out are errors, and values of writes whose version nobody knows."""
    reads = reads.where(reads.source != Source.ERROR)
    writes = evidence.writes.where(committed_of(evidence.writes))
    order = np.argsort(writes.stamp)
    stamps = writes.stamp[order]
    place = np.minimum(np.searchsorted(stamps, reads.stamp), max(0, len(stamps) - 1))
    # What an earlier run wrote, or nobody, is older than everything.
    version = np.where(np.isin(reads.stamp, evidence.writes.stamp), UNRESOLVED, OLDER)
    if len(stamps):
        version = np.where(stamps[place] == reads.stamp, writes.version[order][place], version)
    version = np.where(reads.stamp == evidence.first_stamp[reads.key], evidence.first_version[reads.key], version)
    version = np.where(reads.version > 0, reads.version, version)
    # Some reads bring the version of a delete and others do not, and of one behind the library we only know that it
    # is above the row's: so that they can be compared, every absence stands for the newest delete that it may be.
    version = np.where(reads.stamp == ABSENT, 0, version)
    return replace(reads, version=version).where(version != UNRESOLVED)


def _wrong(reads: Reads, evidence: Evidence) -> Flags:
    """Values of other keys, of no write, or of one that had not begun; an earlier run's are only old."""
    earlier = (reads.stamp > 0) & (reads.stamp >> STAMP_BITS < evidence.first_writer)
    wrong = wrong_values(_as_first(reads, evidence), evidence.writes, evidence.first_version)
    flags: Flags = wrong & ~(earlier & (reads.version == OLDER))
    return flags


def _as_first(reads: Reads, evidence: Evidence) -> Reads:
    """Rows that were there before the run as the checker knows them: with stamp 0."""
    stamp = np.where(reads.stamp == evidence.first_stamp[reads.key], 0, reads.stamp)
    return replace(reads, stamp=np.where(reads.stamp == ABSENT, ABSENT, stamp))


# --- stale reads ----------------------------------------------------------------------------------------


def _superseded(stale: Reads, claimed: Numbers, promised: Writes) -> Numbers:
    """When the row of each stale read was superseded: the end of the next write, in order of versions."""
    if not len(stale) or not len(promised):
        return stale.start
    at = promised.key * np.int64(ANY_VERSION) + promised.version
    order = np.argsort(at)
    asked = stale.key * np.int64(ANY_VERSION) + claimed
    following = np.minimum(np.searchsorted(at[order], asked, side="right"), len(at) - 1)
    known = promised.key[order][following] == stale.key
    return np.where(known, np.minimum(promised.end[order][following], stale.start), stale.start)


def _behind(found: _Found, chosen: Flags, promised: Writes) -> int:
    """The most versions that one of these stale reads was behind."""
    if not chosen.any() or not len(promised):
        return 0
    at = np.sort(promised.key * np.int64(ANY_VERSION) + promised.version)
    base = found.reads.key[chosen] * np.int64(ANY_VERSION)
    upto = np.searchsorted(at, base + found.floor[chosen], side="right")
    return int((upto - np.searchsorted(at, base + found.claimed[chosen], side="right")).max())


def _by_level_and_source(found: _Found, evidence: Evidence) -> list[Stale]:
    reads, writes = found.reads, evidence.writes
    age = np.zeros(len(reads), dtype=np.int64)
    age[found.stale] = reads.start[found.stale] - found.since
    promised = writes.where(committed_of(writes))
    table: list[Stale] = []
    for level in Level:
        of_level = evidence.level[reads.key] == level
        for source in np.unique(reads.source[of_level]).tolist():
            chosen = of_level & (reads.source == source)
            old = chosen & found.stale
            effect = design_effect(found.stale[chosen], reads.key[chosen])
            share = ratio(int(old.sum()), int(chosen.sum()), effect)
            ages = Latency.of(Histogram.of(age[old]))
            table.append(Stale(level.name.lower(), _name(source), share, ages, _behind(found, old, promised)))
    return table


def _by_level(
    found: _Found, backwards: Flags, own_missed: Flags, promised: Writes, evidence: Evidence
) -> list[LevelFound]:
    reads = found.reads
    level = evidence.level[reads.key]
    # What had ended so long before the read began must be seen, whoever wrote it.
    due = newest_before(promised.key, promised.end, promised.version, reads.key, reads.start - evidence.bounded_ns)
    beyond = (level == Level.BOUNDED) & (found.claimed < due)
    table = []
    for one in Level:
        of_it = level == one
        if of_it.any():
            counts = (int((of_it & what).sum()) for what in (found.stale, backwards, own_missed, beyond))
            row = LevelFound(one.name.lower(), int(of_it.sum()), *counts)
            table.append(structs.replace(row, broken=broken_of(row)))
    return table


def _name(source: int) -> str:
    # Imported here: the engine's lanes know the names beyond `record.Source`, and import this package's record.
    from loadgen.engine.lane import Outcome

    return Outcome(source).name.lower()


# --- nines, visibility, sessions ------------------------------------------------------------------------


def _nines(reads: Reads, claimed: Numbers, promised: Writes, evidence: Evidence) -> list[Nines]:
    """A write counts at T if its key was read later than T after its end: else nobody could have seen it late."""
    writes = promised.where((promised.end >= evidence.from_ns) & (promised.end < evidence.to_ns))
    if not len(writes):
        return []
    start_us = (reads.start - evidence.from_ns) // US + 1
    start_us = np.maximum(start_us, 0)  # reads of the warm-up tell nothing of later writes
    older = newest_before(reads.key, claimed, start_us, writes.key, writes.version)
    everything = np.full(len(writes), ANY_VERSION - 1, dtype=np.int64)
    last = newest_before(reads.key, np.zeros_like(claimed), start_us, writes.key, everything)
    end_us = (writes.end - evidence.from_ns) // US + 1
    length_s = (evidence.to_ns - evidence.from_ns) / 1e9
    table = []
    for within_s in WITHIN_S:
        limit = end_us + int(within_s * 1e6)
        seen = last > limit
        if within_s < length_s and seen.any():
            late, of = int((seen & (older > limit)).sum()), int(seen.sum())
            table.append(Nines(within_s, of, late, *nines(late, of)))
    return table


def _visibility(reads: Reads, evidence: Evidence) -> Visibility:
    """Of probes; where there are none, of what was written behind the library."""
    writes, probes = evidence.writes, _resolved(evidence.probes, evidence)
    watched = How.PROBE if (writes.how == How.PROBE).any() else How.BEHIND
    inside = writes.where((writes.end >= evidence.from_ns) & (writes.how == watched) | (writes.how != watched))
    seen = visibility(reads, probes, inside, evidence.first_version, (), watched)
    lag = Latency.of(Histogram.of(np.asarray(seen.seen_ms * 1e6, dtype=np.int64)))
    return Visibility(lag, seen.unseen, round(seen.poll_gap_ms, 3))


def _own_missed(reads: Reads, claimed: Numbers, writes: Writes) -> Flags:
    """Older than what the same thread had written through the library, and had been told of."""
    own = writes.where(promised_of(writes) & (writes.version > 0))
    threads, number = np.unique(np.concatenate((reads.thread, own.stamp >> STAMP_BITS)), return_inverse=True)
    place = np.concatenate((reads.key, own.key)) * len(threads) + number
    newest = newest_before(place[len(reads) :], own.end, own.version, place[: len(reads)], reads.start)
    flags: Flags = claimed < newest
    return flags
