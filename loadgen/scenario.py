"""One load on one stage: which workers there are, and the run from the first operation to the settled cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from cachelib.errors import ConfigError
from cachelib.policy import one_of
from loadgen.arrivals import KINDS
from loadgen.history import load
from loadgen.judge import Judged
from loadgen.result import Mark
from loadgen.runner import Fleet, Progress
from loadgen.settle import Comparison
from loadgen.stage import Stage
from loadgen.visibility import Outage
from loadgen.worker import Role, WorkerSpec

TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """Rates are per second, over all threads of a role. `strong_share`: of reads and of the library's writes."""

    seconds: float = 10.0
    readers: int = 2
    reader_threads: int = 2
    read_rate: float = 1000.0
    arrivals: str = "poisson"
    writers: int = 1
    writer_threads: int = 2
    write_rate: float = 20.0
    behind_rate: float = 10.0
    probers: int = 0
    probe_rate: float = 4.0
    evict_rate: float = 0.0
    """Keys that the cache is made to lose."""
    target: str = "library"
    exponent: float = 0.99
    strong_share: float = 0.4
    gone_share: float = 0.05
    origin_ms: float = 0.0
    """Every load of the store takes so much longer."""
    seed: int = 1
    settle_within_s: float = 15.0
    warm: bool = False
    """Every key is read once before the load, so that it finds what a cache in use holds."""

    def __post_init__(self) -> None:
        one_of("arrivals", self.arrivals, KINDS)
        one_of("target", self.target, ("library", "forgetful"))
        if self.seconds <= 0 or self.readers < 1 or self.reader_threads < 1:
            raise ConfigError("a load needs a duration above 0 and at least one reader with one thread")


class Director(Protocol):
    """Who breaks things while the load runs."""

    @property
    def outages(self) -> Sequence[Outage]:
        """Those of the invalidator, so far."""

    @property
    def marks(self) -> Sequence[Mark]:
        """What was done so far."""

    def during(self, fleet: Fleet, start_ns: int, end_ns: int) -> AbstractContextManager[object]:
        """Act until the block is left."""


def workers(stage: Stage, load: Load) -> list[WorkerSpec]:
    """The processes of a load."""
    roles: list[tuple[Role, int, int, float, str]] = [
        ("read", load.readers, load.reader_threads, load.read_rate, load.arrivals),
        ("write", load.writers, load.writer_threads, load.write_rate, "poisson"),
        ("behind", 1 if load.behind_rate else 0, 1, load.behind_rate, "poisson"),
        ("probe", load.probers, 1, load.probe_rate, "poisson"),
        ("evict", 1, 1, load.evict_rate, "poisson"),
    ]
    specs: list[WorkerSpec] = []
    for role, processes, threads, rate, arrivals in roles:
        for _ in range(processes if rate else 0):
            specs.append(
                WorkerSpec(
                    number=len(specs),
                    role=role,
                    threads=threads,
                    rate_per_s=rate / (processes * threads),
                    arrivals=arrivals,
                    dataset=stage.dataset.name,
                    target=load.target,
                    cache_url=stage.cache_url,
                    store_url=stage.store_url,
                    namespace=stage.namespace,
                    folder=str(stage.folder),
                    seed=load.seed,
                    exponent=load.exponent,
                    strong_share=load.strong_share,
                    gone_share=load.gone_share,
                    origin_ms=load.origin_ms,
                )
            )
    return specs


def run(
    stage: Stage,
    load_: Load,
    tick: Callable[[Progress], None],
    said: Callable[[str], None],
    director: Director | None = None,
) -> Judged:
    """The load, then the comparison of the whole cache with the whole store."""
    comparison = Comparison(stage)
    if load_.warm:
        comparison.warm()
    with Fleet(workers(stage, load_)) as fleet:
        said(f"{len(fleet.workers)} worker processes are ready; the load runs for {load_.seconds:g} s")
        start_ns, end_ns = fleet.start(load_.seconds)
        breaking = director.during(fleet, start_ns, end_ns) if director else nullcontext()
        with breaking:
            fleet.run(TICK_S, tick)
        progress = fleet.finish()
    stage.check_servers()
    said("the load has ended; comparing every key of the cache with the store")
    settled = comparison.settle(load_.settle_within_s)
    outages, marks = (director.outages, director.marks) if director else ((), ())
    return Judged(stage, load(stage.folder), progress, settled, load_.seconds, outages, marks, start_ns)
