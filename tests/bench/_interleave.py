"""Cases side by side: short slices in random order, so that what the machine does meanwhile hits all alike.

A case's figure is its best slice-median over all rounds: the cost of the code, not of the neighbours.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

SLICE_S = 0.008
CPU_CALLS = 50
BUILD = Path("build/bench")


@dataclass(frozen=True)
class Case:
    """One thing to measure. `against`: the case whose rate this one's is divided by."""

    name: str
    call: Callable[[], object]
    against: str | None = None
    target: str | None = None
    met: Callable[[float], bool] | None = None
    per_call: int = 1
    """How many operations one call stands for."""


@dataclass(frozen=True)
class Row:
    """One line of the table and of build/bench/NAME.json."""

    case: str
    value: float
    unit: str
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None


def pin(cpu: int) -> None:
    """Run this process (and the servers that it starts afterwards) on one core: the clean measure of CPU cost."""
    os.sched_setaffinity(0, {cpu})


def measure(cases: Sequence[Case], *, seconds: float = 10.0) -> dict[str, float]:
    """Microseconds per operation of each case."""
    medians: dict[str, list[float]] = {case.name: [] for case in cases}
    for case in cases:
        case.call()  # connections, scripts, first look at the layout
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for case in random.sample(cases, len(cases)):
            medians[case.name].append(_slice(case.call) / case.per_call)
    # The calmest quarter: the machine is shared, and a stolen slice says nothing about the code.
    return {name: statistics.median(sorted(found)[: max(1, len(found) // 4)]) for name, found in medians.items()}


def measure_cpu(cases: Sequence[Case], servers: Sequence[int], *, seconds: float = 10.0) -> dict[str, float]:
    """Microseconds of CPU per operation of each case, ours and the servers' (process ids) together.

    What others do on the machine does not count into it, only what they do to its caches.
    """
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    for case in cases:
        case.call()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for case in random.sample(cases, len(cases)):
            began = time.process_time_ns() + _cpu_ns(servers)
            for _ in range(CPU_CALLS):
                case.call()
            spent = time.process_time_ns() + _cpu_ns(servers) - began
            found[case.name].append(spent / 1000 / CPU_CALLS / case.per_call)
    return {name: statistics.median(sorted(spent)[: max(1, len(spent) // 4)]) for name, spent in found.items()}


def _cpu_ns(pids: Sequence[int]) -> int:
    """What all threads of these processes have run so far, by the scheduler's own count."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def _slice(call: Callable[[], object]) -> float:
    times = []
    clock, ends = time.perf_counter, time.perf_counter() + SLICE_S
    while True:
        began = clock()
        call()
        ended = clock()
        times.append(ended - began)
        if ended >= ends:
            return statistics.median(times) * 1e6


def rows_of(cases: Sequence[Case], found: dict[str, float]) -> list[Row]:
    """Rates relative to what each case is measured against: above 1 is faster than that."""
    rows = []
    for case in cases:
        ratio = found[case.against] / found[case.name] if case.against else None
        met = case.met(ratio) if case.met and ratio is not None else None
        rows.append(Row(case.name, round(found[case.name], 2), "us/op", ratio and round(ratio, 3), case.target, met))
    return rows


def report(name: str, title: str, rows: Sequence[Row]) -> None:
    """Print the table and write build/bench/NAME.json."""
    table = Table(title=title)
    for heading in ("case", "value", "unit", "ratio", "target", "met"):
        table.add_column(heading, justify="left" if heading in ("case", "target") else "right")
    for row in rows:
        met = "" if row.met is None else ("yes" if row.met else "NO")
        table.add_row(
            row.case, f"{row.value:g}", row.unit, "" if row.ratio is None else f"{row.ratio:.2f}", row.target or "", met
        )
    Console(width=130).print(table)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
