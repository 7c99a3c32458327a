"""loadgen told some reads of the process's own copies (L1) as hits of the cache.

It took a read for one of a copy where it returned the object that the last read *of the load* had returned for that
key. What a prober had fetched, or another thread a moment before, was told as a hit once more, and with a short life
of the copies that is a large share. The tests of the library's target should have caught it: they asked only whether
any read was told as local, and held nothing against the library's own counter.
"""

from __future__ import annotations

from collections import Counter
from threading import Barrier, Thread

from msgspec.structs import replace

from cachelib.metrics import READS
from loadgen.engine.bench import Bench
from loadgen.engine.lane import Outcome
from loadgen.engine.share import operations_of, space_of
from loadgen.plan import RunPlan, TargetPlan
from loadgen.targets.library import Library
from loadgen.targets.prober import Prober
from loadgen.workloads.workload import OPERATIONS, Mix, Workload

KEYS = 3
PLAN = RunPlan(workload=Workload(name="few", keys=KEYS, mix=Mix(get=1.0)), rate=100.0, seconds=1.0)


def test_every_read_of_a_copy_in_the_process_is_told_as_local_whoever_fetched_it(redis_url: str) -> None:
    target = TargetPlan(cache_url=redis_url, threads=2, l1_ms=200.0, invalidator=False)
    with Bench(replace(PLAN, target=target)) as bench:
        plan = replace(PLAN, target=bench.site.target)
        space = space_of(plan)
        library = Library(plan, space, operations_of(plan, space, 0), 1)
        try:
            told, counted = read(library), counted_by(library)
        finally:
            library.close()
    assert told["local"] > 1000
    assert +told == +counted


def counted_by(library: Library) -> Counter[str]:
    """Reads by source, as the library itself counts them."""
    found = Counter[str]()
    for (name, _, source), count in library.cache.metrics.values().items():
        found[source] += count if name == READS else 0
    return found


def read(library: Library) -> Counter[str]:
    """What a prober and two threads read, by where it was told to come from."""
    told, together = [Counter[str](), Counter[str]()], Barrier(2)

    def reads_of(number: int) -> None:
        get = library.hands[number].calls[OPERATIONS.index("get")]
        together.wait(30)
        for place in range(3000):
            told[number][Outcome(get(0, place % KEYS)).name.lower()] += 1

    prober = Prober(library, 9, rate_per_s=1.0)
    for key in [*range(KEYS)] * 2:  # the first read of a process learns the layout, and keeps no copy
        prober._look(key)
    looked = counted_by(library)
    threads = [Thread(target=reads_of, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told[0] + told[1] + looked
