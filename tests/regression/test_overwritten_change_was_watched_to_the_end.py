"""A prober looked for its own stamp. Where somebody wrote the key before it was seen, it never came.

It looked on until time ran out, so of a run nothing was known of visibility after the first such key, and where that
was in the warm-up nothing at all: which ended a search for capacity after its sixteenth probe.
"""

from __future__ import annotations

from threading import Event, Thread

from msgspec.structs import replace

from loadgen.engine.bench import Bench
from loadgen.engine.pace import Shift, now_ns
from loadgen.engine.share import operations_of, space_of
from loadgen.plan import RunPlan, TargetPlan
from loadgen.targets.library import Library
from loadgen.targets.prober import Prober
from loadgen.targets.stamped import Behind
from loadgen.workloads.workload import Mix, Workload

PLAN = RunPlan(workload=Workload(name="one", keys=1, mix=Mix(get=1.0)), rate=100.0, seconds=1.0)
SECONDS = 2
SOMEBODY = 8


def test_change_that_somebody_wrote_over_ends_its_watch(redis_url: str) -> None:
    target = TargetPlan(cache_url=redis_url, threads=1, behind_share=1.0, invalidator=False)
    with Bench(replace(PLAN, target=target)) as bench:
        plan = replace(PLAN, target=bench.site.target)
        space = space_of(plan)
        library = Library(plan, space, operations_of(plan, space, 0), 1)
        over = Event()
        thread = Thread(target=write_over, args=(library, over))
        thread.start()
        try:
            prober, start_ns = Prober(library, 9, rate_per_s=50.0), now_ns()
            end_ns = start_ns + SECONDS * 10**9
            prober.run(Shift(end_ns), start_ns, end_ns)
        finally:
            over.set()
            thread.join()
            library.close()
    assert prober._seq >= 10


def write_over(library: Library, over: Event) -> None:
    """Another row, behind the library, and nothing cached: again and again."""
    behind, seq = Behind(library.plan.target.store_url), 0
    subject, name = library.subjects[library.subject[0]], library.names[0]
    while not over.wait(0.005):
        seq += 1
        named = {"key": name, "writer": SOMEBODY, "seq": seq, "payload": library.items.payload(0)}
        behind.change(subject, named, gone=False)
        library.cache.invalidate(subject.entity, name)
    behind.close()
