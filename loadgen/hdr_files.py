"""HdrHistogram's own files, for its plotters and other tools: `.hgrm` (percentiles), `.hlog` (an interval a second).

Several records of one configuration go into one `.hgrm`: histograms add up, percentiles do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hdrh.log import HistogramLogWriter

from loadgen.histogram import NS_PER_MS, Histogram
from loadgen.result import NotAResult, Operation, RunResult

VIEWS = ("latency", "service")
TICKS = 5
"""Percentiles that a `.hgrm` has for each halving of the distance to 100 %."""


def export_hdr(results: Sequence[RunResult], folder: Path) -> list[Path]:
    """Write `OPERATION.VIEW.hgrm` of all records together, and `OPERATION.VIEW.hlog` of each second where there is one
    record. The files that were written.

    Raises:
        NotAResult: the records are of different configurations, and their sum would mean nothing.
    """
    if len({result.config_hash for result in results}) > 1:
        raise NotAResult("records of different configurations do not add up: compare them instead (loadgen compare)")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in dict.fromkeys(name for result in results for name in result.operations):
        for view in VIEWS:
            merged = Histogram.sum_of(
                _of(result.operations[name], view) for result in results if name in result.operations
            )
            written.append(_hgrm(folder / f"{name}.{view}.hgrm", merged))
            if len(results) == 1:
                written.append(_hlog(folder / f"{name}.{view}.hlog", results[0], name, view))
    return written


def _of(operation: Operation, view: str) -> Histogram:
    return (operation.latency if view == "latency" else operation.service).histogram


def _hgrm(path: Path, histogram: Histogram) -> Path:
    """Values in milliseconds."""
    with path.open("wb") as file:
        histogram.hdr().output_percentile_distribution(file, NS_PER_MS, TICKS)
    return path


def _hlog(path: Path, result: RunResult, name: str, view: str) -> Path:
    """Measured seconds; times since the run's start, values in nanoseconds (`maxValueUnitRatio` of milliseconds)."""
    with path.open("w", encoding="ascii") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_comment(f"[{result.label}: {name}, {view}, {result.target}, seed {result.seed}]")
        # By hand: the package's own way to write this line takes its milliseconds for seconds.
        began = datetime.fromisoformat(result.started)
        file.write(f"#[StartTime: {began.timestamp():f} (seconds since epoch), {began.isoformat(' ')}]\n")
        writer.output_legend()
        for window in result.measured:
            if name in window.operations:
                histogram = _of(window.operations[name], view).hdr()
                histogram.set_start_time_stamp(window.at_s * 1000)
                histogram.set_end_time_stamp((window.at_s + 1) * 1000)
                writer.output_interval_histogram(histogram, max_value_unit_ratio=NS_PER_MS)
    return path
