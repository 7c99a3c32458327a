"""A read of one key was told as from where the reads of several keys before it had come.

The library's listener is silent for plain hits, so a thread of the load keeps what it heard last: only a read of one
key forgot it. After a batch with a copy in the process, a strong hit of the cache was told as such a copy; after a
read that had failed, a hit was told as another source. Should have been caught by the judged run of every operation
(`tests/integration/test_loadgen_targets.py`), which finds it only where chance puts a strong read behind such a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from cachelib.errors import CacheError
from loadgen.database import connect
from loadgen.engine.lane import Outcome
from loadgen.engine.share import operations_of, space_of
from loadgen.levels import Level
from loadgen.plan import RunPlan, TargetPlan
from loadgen.targets.item_stage import ItemStage
from loadgen.targets.items import Items
from loadgen.targets.library import Library
from loadgen.workloads.workload import GET, MULTIGET, workload_of

# With an invalidator: without one, strong reads of a server just met are not plain hits.
PLAN = RunPlan(
    workload=replace(workload_of("ycsb-b"), keys=40),
    target=TargetPlan(kind="library", strong_share=0.5, l1_ms=60_000.0, threads=1),
    rate=50.0,
    seconds=1.0,
    warmup_s=0.0,
)


@pytest.fixture
def loaded(memcached_url: str) -> Iterator[SimpleNamespace]:
    """A worker's target that nobody has asked yet; its calls, a strong key and some eventual ones."""
    plan = replace(PLAN, target=replace(PLAN.target, cache_url=memcached_url))
    space = space_of(plan)
    items = Items(plan, space)
    by_level = {level: [key for key in range(40) if items.level[key] == level] for level in Level}
    with ItemStage(items, lambda _what, _done, _of: None) as stage:
        plan = replace(plan, target=stage.target)
        library = Library(plan, space, operations_of(plan, space, 0), 1)
        try:
            yield SimpleNamespace(
                calls=library.hands[0].calls,
                strong=by_level[Level.STRONG][0],
                eventual=by_level[Level.EVENTUAL],
                table=items.subjects[items.subject[by_level[Level.EVENTUAL][0]]].table,
                store_url=stage.store_url,
            )
        finally:
            library.close()


def test_single_read_is_not_told_as_the_batch_before_it(loaded: SimpleNamespace) -> None:
    get, many = loaded.calls[GET], loaded.calls[MULTIGET]
    assert get(0, loaded.strong) == Outcome.FILLED
    assert get(1, loaded.strong) == Outcome.HIT
    # Filled, hit, and then a copy: there is one to be had.
    assert Outcome.LOCAL in [get(2, loaded.eventual[0]) for _ in range(5)]
    many(3, loaded.eventual[:1])
    assert get(4, loaded.strong) == Outcome.HIT
    many(5, loaded.eventual[1:5])  # filled
    assert get(6, loaded.strong) == Outcome.HIT


def test_single_read_is_not_told_as_the_failed_read_before_it(loaded: SimpleNamespace) -> None:
    get = loaded.calls[GET]
    assert [get(at, loaded.strong) for at in range(2)] == [Outcome.FILLED, Outcome.HIT]
    with closing(connect(loaded.store_url)) as database, database.transaction():
        database.execute(f"drop table {loaded.table}")
    with pytest.raises(CacheError):
        get(2, loaded.eventual[0])
    assert get(3, loaded.strong) == Outcome.HIT
