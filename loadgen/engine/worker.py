"""One worker process: `python -m loadgen.engine.worker`, told what to do in frames on its standard input.

The end of its input also comes when the coordinator dies, so no worker outlives it.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
from threading import Event, Thread

import numpy as np
import psutil

from cachelib.errors import CacheError
from loadgen.engine.frames import Beat, Channel, Done, Failed, Go, Hello, Ready
from loadgen.engine.lane import NS, Lane
from loadgen.engine.pace import Shift, now_ns
from loadgen.engine.share import operations_of, space_of
from loadgen.engine.tally import Tally
from loadgen.histogram import Histogram, Numbers
from loadgen.plan import PROCESSES_MAX, THREADS_MAX, RunPlan
from loadgen.targets.base import Target
from loadgen.targets.null import Null
from loadgen.targets.wire import Wire

BEAT_S = 0.5
GRACE_S = 5.0
"""After the last intended start: what has not ended then is counted as an error."""
MB = 1024 * 1024
SAMPLE = 1000
"""The live view looks at so many of the last operations."""


def target_of(hello: Hello) -> Target:
    """The plan's target, connected. Raises what cannot be reached."""
    plan, worker = hello.plan, hello.worker
    space = space_of(plan)
    operations = operations_of(plan, space, worker)
    match plan.target.kind:
        case "null":
            return Null(operations, plan.target.threads)
        case "library":
            from loadgen.targets.library import Library  # the other targets need neither SQL nor the library

            # No two threads of the runs on one stage share a number: it stands in the rows that they write.
            thread = (hello.run * PROCESSES_MAX + worker) * THREADS_MAX + 1
            if plan.target.style == "asyncio":
                from loadgen.targets.async_library import AwaitedLibrary

                return AwaitedLibrary(plan, space, operations, thread)
            return Library(plan, space, operations, thread)
        case "wire":
            return Wire(plan, space, operations)


class Pulse:
    """Tells the coordinator how it goes, until it is stopped."""

    def __init__(self, channel: Channel, target: Target, start_ns: int) -> None:
        self._channel, self._target, self._start_ns = channel, target, start_ns
        self._process = psutil.Process()
        self._end = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(BEAT_S):
            self.beat()

    def beat(self) -> None:
        """One frame; a coordinator that is gone is noticed elsewhere."""
        used = self._process.cpu_times()
        looks = [_look(lane) for lane in self._target.lanes]
        late, latency = (np.concatenate([look[place][-SAMPLE:] for look in looks]) for place in (0, 1))
        frame = Beat(
            at_s=(now_ns() - self._start_ns) / NS,
            done=sum(len(look[1]) for look in looks),
            errors=sum(int((lane.columns()["outcome"] < 0).sum()) for lane in self._target.lanes if lane.errors),
            late_ms=Histogram.of(late).percentile_ms(99),
            p99_ms=Histogram.of(latency).percentile_ms(99),
            cpu_s=used.user + used.system,
            rss_mb=self._process.memory_info().rss / MB,
        )
        try:
            self._channel.send(frame)
        except OSError:
            self._end.set()

    def stop(self) -> None:
        """The last beat is sent by whoever stops it."""
        self._end.set()
        self._thread.join()
        self.beat()


def _look(lane: Lane) -> tuple[Numbers, Numbers]:
    """Lateness and latency of all that has ended, as far as they are known while it goes on."""
    # Copies, the ends first: numpy refuses to search what changes meanwhile, and what has ended had begun.
    end, start = (np.frombuffer(column, dtype=np.int64).copy() for column in (lane.end_ns, lane.start_ns))
    ended = np.flatnonzero(end)
    at = lane.at_ns[ended] if len(lane.at_ns) else start[ended]
    return np.maximum(start[ended] - at, 0), np.maximum(end[ended] - at, 0)


def work(channel: Channel, hello: Hello) -> None:
    """A worker's life after it was told who it is."""
    plan = hello.plan
    target = target_of(hello)
    try:
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection is a pause, and what a run makes is kept until its end anyway
        channel.send(Ready(os.getpid(), sum(len(lane.operations) for lane in target.lanes)))
        go = channel.receive()
        if not isinstance(go, Go):
            return
        _run(channel, plan, target, go.start_ns)
    finally:
        target.close()


def _run(channel: Channel, plan: RunPlan, target: Target, start_ns: int) -> None:
    closed = plan.loop == "closed"
    end_ns = start_ns + int(plan.length_s * NS)
    shift = Shift(end_ns + int(GRACE_S * NS))
    for lane in target.lanes:
        lane.begin(start_ns)
    Thread(target=_stop_at_end_of_input, args=(channel, shift), daemon=True).start()
    pulse = Pulse(channel, target, start_ns)
    try:
        target.run(shift, start_ns, end_ns, closed=closed)
    finally:
        pulse.stop()
    tally = Tally(target.lanes, start_ns, closed=closed)
    for frame in tally.seconds():
        channel.send(frame)
    for log, rows in target.logs().items():
        channel.send_log(log, rows)
    channel.send(Done(tally.ended()))


def _stop_at_end_of_input(channel: Channel, shift: Shift) -> None:
    while channel.receive() is not None:
        pass
    shift.stop()


def main() -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's, who then ends the input
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for the coordinator that waits in vain
    channel = Channel(sys.stdin.buffer, sys.stdout.buffer)
    hello = channel.receive()
    if not isinstance(hello, Hello):
        return
    try:
        work(channel, hello)
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except (CacheError, OSError) as error:
        channel.send(Failed(f"{type(error).__name__}: {error}"))
        sys.exit(1)


if __name__ == "__main__":
    main()
