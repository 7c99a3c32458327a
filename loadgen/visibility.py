"""How long a commit that bypasses the library stays unseen, and how long an outage is felt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadgen.checker import Findings, claimed_versions
from loadgen.history import Numbers, Reads, Writes
from loadgen.record import How, Source, Status


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without the invalidator: killed, started again, ready again (nanoseconds; 0: never)."""

    down_ns: int
    started_ns: int
    ready_ns: int


@dataclass(frozen=True, slots=True)
class Visibility:
    """`seen_ms`: of each probe while the invalidator ran. `unseen`: probes that nobody had seen at the end."""

    seen_ms: Numbers
    unseen: int
    poll_gap_ms: float
    """The resolution: the median time between two looks at one key."""


def visibility(
    reads: Reads, probes: Reads, writes: Writes, first: Numbers, outages: Sequence[Outage], watched: How = How.PROBE
) -> Visibility:
    """From each probe's commit to the first read, by anyone, after which no read showed the older row.

    `watched`: other writes instead; how often their keys are read is then the resolution.
    """
    every = Reads(*(np.concatenate((getattr(reads, name), getattr(probes, name))) for name in Reads.__slots__))
    chosen = writes.where((writes.how == watched) & (writes.status == Status.ACKNOWLEDGED) & (writes.version > 0))
    every = every.where(np.isin(every.key, chosen.key) & (every.source != Source.ERROR))
    every = every.where(np.lexsort((every.start, every.key)))  # type: ignore[arg-type]  # an order chooses as well
    claimed = claimed_versions(every, writes, first)
    begins = np.searchsorted(every.key, chosen.key, side="left").tolist()
    ends = np.searchsorted(every.key, chosen.key, side="right").tolist()
    seen, unseen = [], 0
    for at, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        after = begin + int(np.searchsorted(every.start[begin:end], chosen.end[at], side="left"))
        older = np.flatnonzero(claimed[after:end] < chosen.version[at])
        shown = after + (int(older[-1]) + 1 if len(older) else 0)
        until_ns = int(every.start[shown]) if shown < end else None
        if _in_outage(int(chosen.end[at]), until_ns, outages):
            continue
        if until_ns is None:
            unseen += 1
        else:
            seen.append(until_ns - int(chosen.end[at]))
    looks = probes if watched is How.PROBE else every
    gaps = np.diff(looks.start)[np.diff(looks.key) == 0] if len(looks) > 1 else np.zeros(0)
    gap_ms = float(np.median(gaps)) / 1e6 if len(gaps) else 0.0
    return Visibility(np.asarray(seen, dtype=np.int64) / 1e6, unseen, gap_ms)  # type: ignore[arg-type]


def _in_outage(committed_ns: int, seen_ns: int | None, outages: Sequence[Outage]) -> bool:
    return any(
        (not outage.ready_ns or committed_ns < outage.ready_ns) and (seen_ns is None or seen_ns > outage.down_ns)
        for outage in outages
    )


def catch_up_s(found: Findings, outages: Sequence[Outage]) -> float | None:
    """From each new start of the invalidator to the last read, of any key, that showed a row superseded before
    the daemon was ready; the longest of them. None: there was no outage that ended.
    """
    longest = None
    for outage in outages:
        if not outage.ready_ns:
            continue
        late = (found.stale_since > outage.down_ns) & (found.stale_since < outage.ready_ns)
        late &= found.stale_start > outage.started_ns
        last_ns = int(found.stale_start[late].max()) if late.any() else outage.started_ns
        longest = max(longest or 0.0, (last_ns - outage.started_ns) / 1e9)
    return longest
