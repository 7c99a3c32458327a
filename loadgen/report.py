"""What people read of a run: lines while it goes on, a table at the end, and the JSON beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadgen.judge import Figures
from loadgen.record import Source
from loadgen.runner import Progress

LINE_EVERY_S = 5.0
RATE_OVER_S = 2.0
OTHERS = [one for one in Source if one is not Source.HIT]


class Watch:
    """A table that changes in place on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console, title: str, seconds: float) -> None:
        self._console = console
        self._title = title
        self._seconds = seconds
        self._began = time.monotonic()
        self._last: tuple[float, int] = (self._began, 0)
        self._line_at = self._began + LINE_EVERY_S
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._notes: list[str] = []

    def __enter__(self) -> Watch:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, note: str) -> None:
        """Something happened."""
        at_s = time.monotonic() - self._began
        self._notes.append(f"{at_s:5.1f} s  {note}")
        if self._live is None:
            self._console.print(f"{at_s:5.1f} s  {note}", highlight=False, soft_wrap=True)

    def tick(self, progress: Progress) -> None:
        """The counts so far."""
        now = time.monotonic()
        then, before = self._last
        rate = (progress.reads - before) / max(now - then, 1e-9)
        if self._live is not None:
            if now - then > RATE_OVER_S:
                self._last = now, progress.reads
            self._live.update(self._table(progress, rate))
        elif now >= self._line_at:
            self._last, self._line_at = (now, progress.reads), now + LINE_EVERY_S
            self._console.print(f"{now - self._began:5.1f} s  {_line(progress, rate)}", highlight=False, soft_wrap=True)

    def _table(self, progress: Progress, rate: float) -> Table:
        table = Table(title=self._title, title_justify="left", min_width=60)
        table.add_column("so far")
        table.add_column("", justify="right")
        counts: Iterable[tuple[str, Any]] = (
            ("reads", f"{progress.reads:,}  ({rate:,.0f}/s)"),
            ("hits", f"{progress.hit_ratio:.2%}"),
            *((one.name.lower(), f"{progress.by_source[one]:,}") for one in OTHERS if progress.by_source[one]),
            ("writes", ", ".join(f"{role} {count:,}" for role, count in progress.writes.items() if count)),
            ("loads of the store", f"{progress.counters['store_loads']:,}"),
            ("errors", ", ".join(f"{name} {count}" for name, count in progress.errors.items()) or "none"),
        )
        for name, value in counts:
            table.add_row(name, str(value))
        table.caption = "\n".join(self._notes[-5:])
        table.caption_justify = "left"
        return table


def _line(progress: Progress, rate: float) -> str:
    errors = ", ".join(f"{name} {count}" for name, count in progress.errors.items()) or "none"
    return (
        f"{progress.reads:,} reads ({rate:,.0f}/s), {progress.hit_ratio:.2%} hits,"
        f" {progress.counters['store_loads']:,} loads, {progress.writes.total():,} writes, errors: {errors}"
    )


def show(console: Console, title: str, figures: Figures) -> None:
    """The summary, and the verdict as its last lines."""
    table = Table(title=title, title_justify="left", min_width=72)
    table.add_column("measure")
    table.add_column("", justify="right")
    for name, value in rows(figures):
        table.add_row(name, value)
    console.print(table)
    for line in figures.examples:
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print(verdict(figures), style="bold", highlight=False, soft_wrap=True)


def verdict(figures: Figures) -> str:
    """One line."""
    if figures.failures:
        return "FAILED: " + "; ".join(figures.failures)
    return (
        f"PASSED: {figures.strong_reads:,} strong reads, none stale; {figures.eventual_stale_ratio:.3%} of the eventual"
        f" reads were behind; afterwards all of {figures.compared_keys:,} keys agree with the store"
    )


def rows(figures: Figures) -> list[tuple[str, str]]:
    """Each measure with its unit, for the table and for the page."""
    one = figures
    without = f"{one.loads_without_leases:,}"
    if one.loads_without_leases > one.store_loads > 0:
        without += f"  ({one.loads_without_leases / one.store_loads:.2f} times as many)"
    return [
        ("backend", one.backend),
        ("reads", f"{one.reads:,}  ({one.reads_per_s:,.0f}/s)"),
        ("hits", f"{one.hit_ratio:.2%}"),
        ("latency p50 / p99 from the intended start", f"{one.p50_ms:.2f} / {one.p99_ms:.2f} ms"),
        ("latency p50 / p99 from the actual start", f"{one.service_p50_ms:.2f} / {one.service_p99_ms:.2f} ms"),
        ("writes (of them behind the library)", f"{one.writes:,}  ({one.writes_behind:,})"),
        ("loads of the store", f"{one.store_loads:,}"),
        ("loads without leases", without),
        ("strong reads, hits among them", f"{one.strong_reads:,}  ({one.strong_hit_ratio:.2%})"),
        ("strong reads that were stale / went backwards", f"{one.strong_stale:,} / {one.strong_backwards:,}"),
        ("eventual reads that were stale", f"{one.eventual_stale:,}  ({one.eventual_stale_ratio:.3%})"),
        ("their age p50 / max", f"{_ms(one.eventual_stale_age_p50_ms)} / {_ms(one.eventual_stale_age_max_ms)}"),
        ("visible after p50 / p99", f"{_ms(one.visible_p50_ms)} / {_ms(one.visible_p99_ms)}"),
        ("  probes, looked at every", f"{one.visible_probes:,}  ({one.poll_gap_ms:.1f} ms)"),
        ("outages of the invalidator, caught up after", f"{one.outages}  ({_seconds(one.catchup_s)})"),
        ("wrong values / lost writes", f"{one.wrong_values} / {one.lost_writes}"),
        ("keys compared at the end (cached)", f"{one.compared_keys:,}  ({one.cached_keys:,})"),
        (
            "settled",
            f"after {_seconds(one.settled_s)}" if one.settled else f"never: {one.differing_keys:,} keys differ",
        ),
        ("errors", ", ".join(f"{name} {count}" for name, count in one.errors.items()) or "none"),
    ]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def save(path: Path, document: dict[str, Any]) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, default=str) + "\n")
