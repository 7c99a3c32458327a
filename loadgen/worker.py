"""One worker process: `python -m loadgen.worker`, told what to do in lines of JSON.

    in:  its `WorkerSpec`         out: {"ready": pid}
    in:  {"start_ns", "end_ns"}   out: a frame of counts every half second
    in:  nothing more, or the end of the input: stop     out: the last frame, with "done"

The end of the input also comes when the coordinator dies, so no worker outlives it.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal, TypeAlias

import numpy as np

from loadgen.loops import Evictor, Loop, Prober, Reader, Shift, Work, Writer
from loadgen.record import How
from loadgen.tables import DATASETS
from loadgen.targets.stamped import Target, target_of
from loadgen.workloads.popularity import Zipf

Role: TypeAlias = Literal["read", "write", "behind", "probe", "evict"]
FRAME_S = 0.5
THREADS_MAX = 64
"""A thread's number is worker * THREADS_MAX + its place, from 1 on."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is to do. `rate_per_s` is each thread's; without meaning where `arrivals` is "closed"."""

    number: int
    role: Role
    threads: int
    rate_per_s: float
    arrivals: str
    dataset: str
    target: str
    cache_url: str
    store_url: str
    namespace: str
    folder: str
    seed: int
    exponent: float
    strong_share: float
    gone_share: float
    origin_ms: float


def keys_file(folder: Path) -> Path:
    """Where the coordinator leaves the keys of each subject, those of deleted rows included."""
    return folder / "keys.json"


class Crew:
    """The threads of one worker."""

    def __init__(self, spec: WorkerSpec) -> None:
        dataset = DATASETS[spec.dataset]
        self._target: Target = target_of(
            spec.target, spec.cache_url, spec.store_url, dataset, spec.namespace, spec.origin_ms
        )
        keys = json.loads(keys_file(Path(spec.folder)).read_text())
        zipfs = [Zipf(len(names), spec.exponent, spec.seed) for names in keys]
        self._loops = [
            _loop(
                spec,
                Work(
                    target=self._target,
                    subjects=dataset.subjects,
                    keys=keys,
                    zipfs=zipfs,
                    shares=_shares(spec),
                    rate_per_s=spec.rate_per_s,
                    arrivals=spec.arrivals,
                    random=np.random.default_rng([spec.seed, spec.number, place]),
                    folder=Path(spec.folder),
                    thread=spec.number * THREADS_MAX + place + 1,
                    gone_share=spec.gone_share,
                    store_url=spec.store_url,
                ),
            )
            for place in range(spec.threads)
        ]
        self._threads: list[Thread] = []
        self._stop = Event()
        self._broken: BaseException | None = None

    def start(self, start_ns: int, end_ns: int) -> None:
        """Begin the shift."""
        shift = Shift(start_ns, end_ns, self._stop)
        self._threads = [Thread(target=self._run, args=(loop, shift)) for loop in self._loops]
        for thread in self._threads:
            thread.start()

    def _run(self, loop: Loop, shift: Shift) -> None:
        try:
            loop.run(shift)
        except BaseException as error:  # noqa: BLE001 - a thread that is missing must not go unnoticed: `join` raises it
            self._broken = error
            self._stop.set()

    def stop(self) -> None:
        """End the shift early."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait a while; whether all threads have ended. Raises what one of them has raised."""
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))
        if self._broken is not None:
            raise self._broken
        return not any(thread.is_alive() for thread in self._threads)

    def frame(self) -> dict[str, Any]:
        """The counts so far."""
        errors: dict[str, int] = {}
        by_source = np.zeros(0, dtype=np.int64)
        for loop in self._loops:
            own = np.asarray(loop.counts.by_source, dtype=np.int64)
            by_source = own if not len(by_source) else by_source + own
            for name, times in list(loop.counts.errors.items()):
                errors[name] = errors.get(name, 0) + times
        writes = sum(loop.counts.writes for loop in self._loops)
        counters = dict(self._target.counters())
        return {"by_source": by_source.tolist(), "writes": writes, "errors": errors, "counters": counters}

    def finish(self) -> None:
        """Leave the records behind, and close."""
        for loop in self._loops:
            loop.save()
        self._target.close()


def _loop(spec: WorkerSpec, work: Work) -> Loop:
    match spec.role:
        case "read":
            return Reader(work)
        case "write":
            return Writer(work, How.LIBRARY)
        case "behind":
            return Writer(work, How.BEHIND)
        case "probe":
            return Prober(work)
        case "evict":
            return Evictor(work)


def _shares(spec: WorkerSpec) -> list[float]:
    """How much each subject gets. What goes behind the library goes where the dataset allows it."""
    subjects = DATASETS[spec.dataset].subjects
    if spec.role in ("behind", "probe"):
        return [1.0 if subject.behind else 0.0 for subject in subjects]
    return [spec.strong_share if subject.strong else 1.0 - spec.strong_share for subject in subjects]


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _stop_at_end_of_input(crew: Crew) -> None:
    while sys.stdin.readline():
        pass
    crew.stop()


def main() -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's, who then ends the input
    faulthandler.register(signal.SIGUSR1)  # where it hangs, for the coordinator that waits in vain
    crew = Crew(WorkerSpec(**json.loads(sys.stdin.readline())))
    gc.freeze()
    _say({"ready": os.getpid()})
    order = sys.stdin.readline()
    if not order:
        return
    crew.start(**json.loads(order))
    Thread(target=_stop_at_end_of_input, args=(crew,), daemon=True).start()
    try:
        while not crew.join(FRAME_S):
            _say(crew.frame())
        crew.finish()
        _say(crew.frame() | {"done": True})
    except BrokenPipeError:
        crew.stop()  # nobody listens any more
        os._exit(1)


def line_of(spec: WorkerSpec) -> str:
    """A spec as the worker reads it."""
    return json.dumps(asdict(spec))


if __name__ == "__main__":
    main()
