"""What a run on the library stands on, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cachelib.errors import ConfigError
from loadgen.checker import committed_of
from loadgen.engine.crew import Heard
from loadgen.engine.share import space_of
from loadgen.engine.site import Advance, Verdict, rows_of
from loadgen.engine.summary import measured_from
from loadgen.history import Numbers, reads_of, writes_of
from loadgen.oracle import Evidence, judge
from loadgen.origin import origin_of
from loadgen.plan import PROCESSES_MAX, THREADS_MAX, RunPlan, TargetPlan
from loadgen.record import ABSENT, READ_FIELDS, WRITE_FIELDS
from loadgen.targets.item_stage import ItemStage
from loadgen.targets.items import Items
from loadgen.targets.origin import LOAD_FIELDS

NS = 1_000_000_000


class LibrarySite:
    """See `Site`."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._items = Items(plan, space_of(plan))
        self._stage: ItemStage | None = None
        self._runs = -1
        self._first: tuple[Numbers, Numbers] = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    @property
    def stage(self) -> ItemStage:
        """Store, cache and invalidator: for whoever breaks them."""
        if self._stage is None:
            raise ConfigError("the bench has no stage: enter it first")
        return self._stage

    def open(self, advance: Advance) -> None:
        """See `Site.open`."""
        self._stage = ItemStage(self._items, advance)
        self._stage.__enter__()
        try:
            if self._plan.prefill:
                self._stage.warm()
        except BaseException:
            self.close()
            raise

    @property
    def target(self) -> TargetPlan:
        """See `Site.target`."""
        return self.stage.target

    def pids(self) -> Mapping[str, int]:
        """See `Site.pids`."""
        servers = (self.stage.server, self.stage.invalidator)
        return {server.name: server.pid for server in servers if server is not None and server.pid is not None}

    def begin(self) -> None:
        """Note what the store holds: versions and stamps that the oracle knows as those before the run."""
        version = np.zeros(self._items.space.total, dtype=np.int64)
        stamp = np.full(self._items.space.total, ABSENT, dtype=np.int64)
        number = {name: key for key, name in enumerate(self._items.space.names)}
        for subject in self._items.subjects:
            for name, (row_version, row_stamp) in self.stage.rows(subject).items():
                version[number[name]], stamp[number[name]] = row_version, row_stamp
        self._first = version, stamp
        self._runs += 1

    def verdict(self, plan: RunPlan, heard: Sequence[Heard], start_ns: int) -> Verdict:
        """See `Site.verdict`."""
        self.stage.check_servers()
        from_ns = start_ns + measured_from(plan) * NS
        to_ns = start_ns + int(plan.length_s * NS)
        writes = writes_of(rows_of(heard, "writes", len(WRITE_FIELDS)))
        judged = judge(
            Evidence(
                reads=reads_of(rows_of(heard, "reads", len(READ_FIELDS) + 1)),
                probes=reads_of(rows_of(heard, "probes", len(READ_FIELDS) + 1)),
                writes=writes,
                first_version=self._first[0],
                first_stamp=self._first[1],
                level=self._items.level,
                from_ns=from_ns,
                to_ns=to_ns,
                bounded_ns=int(plan.target.bounded_ms * 1e6),
                first_writer=self._runs * PROCESSES_MAX * THREADS_MAX,
            )
        )
        second = (judged.reads.intended - start_ns) // NS
        ends = writes.where(committed_of(writes)).end
        loads = rows_of(heard, "loads", len(LOAD_FIELDS))
        origin, reads_by, writes_by = origin_of(loads, ends, len(judged.reads), from_ns, to_ns)
        after = measured_from(plan)
        return Verdict(
            consistency=judged.consistency,
            origin=origin,
            checked=_counts(second),
            stale=_counts(second[judged.stale]),
            origin_reads={at + after: count for at, count in reads_by.items()},
            origin_writes={at + after: count for at, count in writes_by.items()},
        )

    def close(self) -> None:
        """See `Site.close`."""
        if self._stage is not None:
            self._stage.close()


def _counts(seconds: Numbers) -> dict[int, int]:
    values, counts = np.unique(seconds, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
