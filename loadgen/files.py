"""The files that a run or a search leaves: JSON, CSV, HTML."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from loadgen.herd import HERD_SCHEMA, HerdResult
from loadgen.page.herd import page_of_herd
from loadgen.page.report import page_of_run, page_of_search
from loadgen.page.sizing import page_of_size
from loadgen.page.trials import page_of_trials
from loadgen.result import SCHEMA, NotAResult, RunResult, Window, load_result, save_result
from loadgen.searched import SEARCH_SCHEMA, SearchResult, load_search, save_search
from loadgen.sizing import SIZE_SCHEMA, SizeResult
from loadgen.trials import TRIALS_SCHEMA, Trials

COLUMNS = (
    *("at_s", "phase", "invalid", "offered", "achieved", "ended", "errors", "p50_ms", "p99_ms", "max_ms"),
    *("service_p99_ms", "lag_p99_ms", "hits", "reads", "stale", "checked", "origin_reads", "origin_writes"),
    "generator_cores",
)
PROBE_COLUMNS = (
    *("phase", "rate", "seconds", "achieved", "p50_ms", "p99_ms", "p999_ms", "service_p99_ms", "lag_p99_ms"),
    *("hit_ratio", "errors", "origin_qps", "stale_ratio", "visible_p99_ms", "windows", "missed", "verdict"),
)


def save(
    result: RunResult | SearchResult, json_path: Path | None, csv_path: Path | None, html_path: Path | None
) -> list[Path]:
    """What was asked for; the files that were written. Raises `OSError`."""
    for path in filter(None, (json_path, csv_path, html_path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if json_path is not None:
        save_search(json_path, result) if isinstance(result, SearchResult) else save_result(json_path, result)
    if csv_path is not None:
        with csv_path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows(rows_of(result))
    if html_path is not None:
        html_path.write_text(page_of(result), encoding="utf-8")
    return [path for path in (json_path, csv_path, html_path) if path is not None]


def load_any(path: Path) -> RunResult | SearchResult:
    """The record of a run or of a search. Raises `NotAResult`, or `OSError`."""
    kind = _format_of(path)
    if kind == SEARCH_SCHEMA:
        return load_search(path)
    if kind == SCHEMA:
        return load_result(path)
    raise NotAResult(f"{path} is {kind!r}: this program reads {SCHEMA!r} and {SEARCH_SCHEMA!r}")


def report_of(path: Path) -> str:
    """The page of any record. Raises `NotAResult`, or `OSError`."""
    kind = _format_of(path)
    if kind not in PAGES:
        return page_of(load_any(path))
    record, page = PAGES[kind]
    try:
        return page(msgspec.json.decode(path.read_bytes(), type=record))
    except msgspec.MsgspecError as error:
        raise NotAResult(f"{path} is a damaged record of {kind!r}: {error}") from error


PAGES: dict[str, tuple[type[Any], Callable[[Any], str]]] = {
    HERD_SCHEMA: (HerdResult, page_of_herd),
    SIZE_SCHEMA: (SizeResult, page_of_size),
    TRIALS_SCHEMA: (Trials, page_of_trials),
}
"""Of the commands beside `run` and `search`."""


def _format_of(path: Path) -> str:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Format).format
    except msgspec.MsgspecError as error:
        raise NotAResult(f"{path} is not a record: {error}. Write one with --json") from error


class _Format(msgspec.Struct):
    format: str


def page_of(result: RunResult | SearchResult) -> str:
    """Its report."""
    return page_of_search(result) if isinstance(result, SearchResult) else page_of_run(result)


def rows_of(result: RunResult | SearchResult) -> Iterator[tuple[Any, ...]]:
    """Names, then a row for each second of a run, or for each probe of a search."""
    if isinstance(result, SearchResult):
        yield PROBE_COLUMNS
        for probe in result.probes:
            found = msgspec.to_builtins(probe)
            found["windows"] = " ".join(probe.windows)
            found["missed"] = "; ".join(f"{clause} {times}" for clause, times in probe.missed.items())
            yield tuple(found[name] for name in PROBE_COLUMNS)
        return
    yield COLUMNS
    for window in result.windows:
        yield _row(window)


def _row(window: Window) -> tuple[Any, ...]:
    from loadgen.page.charts import merged

    operations = list(window.operations.values())
    waited, served = merged(operations), merged(operations, service=True)
    return (
        *(window.at_s, window.phase, window.invalid, window.offered, window.achieved, window.ended, window.errors),
        *(waited.percentile_ms(50), waited.percentile_ms(99), waited.max_ms, served.percentile_ms(99)),
        window.lag.p99_ms,
        window.sources.get("hit", 0) + window.sources.get("local", 0),
        sum(window.sources.values()),
        *(window.stale, window.checked, window.origin_reads, window.origin_writes, window.generator_cores),
    )
