"""The thread that tells how a worker is doing ended with an error of numpy's, which had looked at times that changed
while it did: no processor time, no live view and no metrics from then on, at the highest rates first.

Should have been caught by a test of the live view while the hot loop runs, instead of after it.
"""

from __future__ import annotations

from threading import Event, Thread

import numpy as np

from loadgen.engine.lane import Lane
from loadgen.engine.worker import _look
from loadgen.workloads.draws import Operations
from loadgen.workloads.workload import GET

COUNT = 300_000
LOOKS = 40


def test_a_lane_is_looked_at_while_its_operations_end() -> None:
    at_s = np.zeros(COUNT)
    gets = Operations(at_s, np.full(COUNT, GET), np.zeros(COUNT, dtype=np.int64), np.arange(COUNT + 1))
    lane, over = Lane(gets, in_order=True), Event()
    lane.begin(1)

    def work() -> None:
        ends = lane.end_ns
        while not over.is_set():
            for place in range(0, COUNT, 97):
                ends[place] = 0 if ends[place] else 5

    thread = Thread(target=work)
    thread.start()
    try:
        for _ in range(LOOKS):
            late, latency = _look(lane)
            assert len(late) == len(latency)
    finally:
        over.set()
        thread.join()
