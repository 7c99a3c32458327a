"""What the store had to do: loads, their amplification, and herds. Pure."""

from __future__ import annotations

import numpy as np

from loadgen.history import Numbers
from loadgen.result import Origin

NS = 1_000_000_000


def origin_of(
    loads: Numbers, writes_end: Numbers, client_reads: int, from_ns: int, to_ns: int
) -> tuple[Origin, dict[int, int], dict[int, int]]:
    """`loads`: rows of key, start, end, version. The record, and reads and writes of each second since `from_ns`."""
    loads = loads[(loads[:, 1] >= from_ns) & (loads[:, 1] < to_ns)]
    writes = writes_end[(writes_end >= from_ns) & (writes_end < to_ns)]
    seconds = max((to_ns - from_ns) / NS, 1e-9)
    reads_by, writes_by = _by_second(loads[:, 1] - from_ns), _by_second(writes - from_ns)
    # A key at a version, or its absence, has to be loaded once; what comes beyond is amplification.
    states, state, times = np.unique(loads[:, [0, 3]], axis=0, return_inverse=True, return_counts=True)
    return (
        Origin(
            reads=len(loads),
            writes=len(writes),
            reads_per_s=round(len(loads) / seconds, 3),
            reads_per_s_max=float(max(reads_by.values(), default=0)),
            client_reads=client_reads,
            needed=len(states),
            amplification=round(len(loads) / len(states), 6) if len(states) else 0.0,
            herd_total_max=int(times.max()) if len(times) else 0,
            herd_at_once_max=at_once_max(loads, state.reshape(-1)),
        ),
        reads_by,
        writes_by,
    )


def at_once_max(loads: Numbers, state: Numbers) -> int:
    """The most loads of one state under way at a time: +1 at each start, -1 at each end, summed by state."""
    if not len(loads):
        return 0
    times = np.concatenate((loads[:, 1], loads[:, 2]))
    steps = np.concatenate((np.ones(len(loads), dtype=np.int64), -np.ones(len(loads), dtype=np.int64)))
    # Ends before starts of the same moment: those two were not under way together.
    order = np.lexsort((steps, times, np.concatenate((state, state))))
    # Every state's steps sum to 0, so the running sum starts anew with each.
    return int(np.cumsum(steps[order]).max())


def _by_second(since_ns: Numbers) -> dict[int, int]:
    seconds, counts = np.unique(since_ns // NS, return_counts=True)
    return dict(zip(seconds.tolist(), counts.tolist(), strict=True))
