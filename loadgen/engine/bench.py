"""One target, set up once, and runs on it, one after the other: `with Bench(plan) as bench: bench.run(plan)`.

A later run may have another rate, length, seed or profile; workload and target are those of the bench.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from math import ceil
from types import TracebackType
from typing import Protocol, Self

from msgspec.structs import replace

from loadgen.engine.crew import Crew, Heard, Progress
from loadgen.engine.site import Advance, Nowhere, Site, Verdict
from loadgen.engine.summary import (
    host,
    measured_from,
    measured_seconds,
    sum_of,
    usage_of,
    versions,
    why_invalid,
    windows_of,
)
from loadgen.engine.usage import Others, Sampler
from loadgen.histogram import Histogram
from loadgen.plan import RunPlan, as_config
from loadgen.result import Latency, Mark, RunResult, Usage, Window, config_hash
from loadgen.targets.wire_site import WireSite


class Director(Protocol):
    """Who breaks things while the load runs."""

    def during(self, start_ns: int, end_ns: int) -> AbstractContextManager[Sequence[Mark]]:
        """Act until the block is left; what was done is in the marks by then."""


class Nobody:
    """Breaks nothing."""

    @contextmanager
    def during(self, start_ns: int, end_ns: int) -> Iterator[Sequence[Mark]]:
        """See `Director.during`."""
        yield []


def silent(_: object) -> None:
    """For nobody who watches."""


def unheard(_what: str, _done: int, _of: int) -> None:
    """For nobody who waits."""


class Bench:
    """See the module.

    Args:
        plan: workload and target of all its runs.
        advance: told of the set-up: what, how much of it is done, how much there is.
    """

    def __init__(self, plan: RunPlan, advance: Advance = unheard) -> None:
        self.site = site_of(plan)
        self._advance = advance
        self._runs = 0

    def __enter__(self) -> Self:
        self.site.open(self._advance)
        return self

    def run(
        self, plan: RunPlan, tick: Callable[[Progress], None] = silent, director: Director | None = None
    ) -> RunResult:
        """One run; also one whose workers were lost has a record, which says that it is not valid.

        Raises:
            WorkerLost: a worker did not even start.
            ServerFailed: a server has ended by itself.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.site.begin()
        with Crew(replace(plan, target=self.site.target), self._runs) as crew:
            self._runs += 1
            servers = self.site.pids()
            sampler = Sampler(servers)
            others = Others([os.getpid(), *servers.values(), *(member.pid for member in crew.members)])

            def watched(progress: Progress) -> None:
                sampler.sample(progress.at_s)
                others.sample(progress.at_s)
                tick(progress)

            start_ns = crew.start()
            others.sample(crew.progress().at_s)
            with (director or Nobody()).during(start_ns, start_ns + int(plan.length_s * 1e9)) as marks:
                lost = crew.wait(watched)
            heard = [member.heard for member in crew.members]
        verdict = self.site.verdict(plan, heard, start_ns)
        usage, cores = sampler.usage(measured_from(plan), plan.length_s), others.by_second(ceil(plan.length_s))
        return _result(plan, started, heard, verdict, servers=usage, others=cores, marks=marks, lost=lost)

    def close(self) -> None:
        """Stop what was started."""
        self.site.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def site_of(plan: RunPlan) -> Site:
    """What the plan's target stands on, not set up yet."""
    match plan.target.kind:
        case "library":
            from loadgen.targets.library_site import LibrarySite  # the other targets need no SQL

            return LibrarySite(plan)
        case "wire":
            return WireSite(plan)
        case "null":
            return Nowhere(plan)


def _result(
    plan: RunPlan,
    started: str,
    heard: Sequence[Heard],
    verdict: Verdict,
    *,
    servers: dict[str, Usage],
    others: Sequence[float],
    marks: Sequence[Mark],
    lost: Sequence[str],
) -> RunResult:
    windows = [_judged(window, verdict, others[window.at_s]) for window in windows_of(plan, heard)]
    counted = [window for window in windows if window.phase == "measured"]
    operations, config, seconds = sum_of(counted), as_config(plan), measured_seconds(plan)
    errors: Counter[str] = Counter()
    for operation in operations.values():
        errors.update(operation.errors)
    return RunResult(
        label=plan.label or plan.workload.name,
        started=started,
        host=host(),
        versions=versions(),
        seed=plan.seed,
        config=config,
        config_hash=config_hash(config),
        target=plan.target.kind,
        processes=plan.processes,
        seconds=seconds,
        warmup_s=plan.length_s - seconds,
        offered_per_s=round(sum(window.offered for window in counted) / seconds, 3),
        achieved_per_s=round(sum(window.ended for window in counted) / seconds, 3),
        operations=operations,
        sources=_sources(counted),
        errors=dict(errors),
        lag=Latency.of(Histogram.sum_of(window.lag.histogram for window in counted)),
        windows=windows,
        consistency=verdict.consistency,
        origin=verdict.origin,
        generator=[usage_of(plan, one) for one in heard],
        servers=servers,
        marks=list(marks),
        invalid=[*lost, *why_invalid(plan, windows, sum(one.ready.offered for one in heard if one.ready))],
    )


def _judged(window: Window, verdict: Verdict, others_cores: float) -> Window:
    """With what the site and the machine know of this second."""
    return replace(
        window,
        checked=verdict.checked.get(window.at_s, 0),
        stale=verdict.stale.get(window.at_s, 0),
        origin_reads=verdict.origin_reads.get(window.at_s, 0),
        origin_writes=verdict.origin_writes.get(window.at_s, 0),
        others_cores=others_cores,
    )


def _sources(windows: Sequence[Window]) -> dict[str, int]:
    sources: Counter[str] = Counter()
    for window in windows:
        sources.update(window.sources)
    return dict(sources)
