"""One target, set up once, and runs on it, one after the other: `with Bench(plan) as bench: bench.run(plan)`.

A later run may have another rate, length, seed or profile; workload and target are those of the bench.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from loadgen.engine.crew import Crew, Progress
from loadgen.engine.summary import (
    host,
    measured_seconds,
    sum_of,
    usage_of,
    versions,
    why_invalid,
    windows_of,
)
from loadgen.histogram import Histogram
from loadgen.plan import RunPlan, as_config
from loadgen.result import Latency, Mark, RunResult, Window, config_hash


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


class Bench:
    """See the module. A bench of `null` has nothing to set up."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan

    def __enter__(self) -> Self:
        return self

    def run(
        self, plan: RunPlan, tick: Callable[[Progress], None] = silent, director: Director | None = None
    ) -> RunResult:
        """One run; also one whose workers were lost has a record, which says that it is not valid.

        Raises:
            WorkerLost: a worker did not even start.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with Crew(plan) as crew:
            start_ns = crew.start()
            with (director or Nobody()).during(start_ns, start_ns + int(plan.length_s * 1e9)) as marks:
                lost = crew.wait(tick)
            return self._result(plan, started, crew, lost, marks)

    def _result(
        self, plan: RunPlan, started: str, crew: Crew, lost: Sequence[str], marks: Sequence[Mark]
    ) -> RunResult:
        heard = [member.heard for member in crew.members]
        windows = windows_of(plan, heard)
        counted = [window for window in windows if window.phase == "measured"]
        operations, config = sum_of(counted), as_config(plan)
        seconds = measured_seconds(plan)
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
            generator=[usage_of(plan, one) for one in heard],
            servers={},
            marks=list(marks),
            invalid=[*lost, *why_invalid(plan, windows)],
        )

    def close(self) -> None:
        """Stop what was started."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sources(windows: Sequence[Window]) -> dict[str, int]:
    sources: Counter[str] = Counter()
    for window in windows:
        sources.update(window.sources)
    return dict(sources)
