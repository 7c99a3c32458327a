"""`loadgen compare`, `loadgen report` and `loadgen presets`: of records and of what can be run."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from loadgen.cli.ending import MISSED, PASSED, one_sentence
from loadgen.cli.options import debug
from loadgen.compare import Change, compare
from loadgen.files import load_any, report_of
from loadgen.page.compared import HEAD, cells, page_of_comparison
from loadgen.result import NotAResult, RunResult
from loadgen.workloads.workload import presets, workload_of

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("compare")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option(
    "--tolerance", default=0.05, type=click.FloatRange(0), help="A smaller change is none.", show_default=True
)
@click.option("--seed", default=1, help="Of the bootstrap.", show_default=True)
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Where to write the report.")
@debug
def comparison(debug: bool, a: Path, b: Path, tolerance: float, seed: int, html_path: Path | None) -> None:
    """Did run B get worse than run A? Ratios of percentiles, each with a bootstrap interval of 95 %.

    A and B are records (--json) of runs or searches; of a search its confirmed run counts.
    Exit codes: 0 nothing got worse; 1 something did; 2 usage; 3 a run says nothing.
    """
    with one_sentence(debug):
        runs, console = (_run(a), _run(b)), Console()
        found = compare(*runs, tolerance=tolerance, seed=seed)
        table = Table(title=f"{b} against {a}", title_justify="left")
        for name in HEAD:
            table.add_column(name, justify="left" if name in ("figure", "") else "right")
        for one in found.figures:
            table.add_row(*cells(one), style="bold" if one.change is Change.WORSE else "")
        console.print(table)
        for note in found.notes:
            console.print(f"note: {note}", highlight=False, soft_wrap=True)
        if html_path is not None:
            html_path.parent.mkdir(parents=True, exist_ok=True)
            html_path.write_text(page_of_comparison(*runs, found, tolerance), encoding="utf-8")
            console.print(f"written: {html_path}", highlight=False, soft_wrap=True)
        names = ", ".join(one.name for one in found.regressions)
        verdict = f"FAILED: worse by more than {tolerance:.0%}: {names}" if names else "PASSED: nothing got worse"
        console.print(verdict, style="bold", highlight=False, soft_wrap=True)
        sys.exit(MISSED if names else PASSED)


def _run(path: Path) -> RunResult:
    found = load_any(path)
    if isinstance(found, RunResult):
        return found
    if found.confirmed is None:
        raise NotAResult(f"{path} is a search that confirmed no rate: it has no run to compare")
    return found.confirmed


@click.command("report")
@click.argument("record", type=FILE)
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Instead of the record's name with .html.")
@debug
def report(debug: bool, record: Path, html_path: Path | None) -> None:
    """Make the HTML report of a record that --json has written."""
    with one_sentence(debug):
        path = html_path or record.with_suffix(".html")
        page = report_of(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
        Console().print(f"written: {path}", highlight=False, soft_wrap=True)


@click.command("presets")
@click.argument("name", required=False)
@debug
def known(debug: bool, name: str | None) -> None:
    """List the workloads that come with the package; with a NAME what it consists of and where that is from."""
    with one_sentence(debug):
        console = Console()
        if name is None:
            table = Table(box=None, header_style="bold")
            for column in ("preset", "operations", "keys", "source"):
                table.add_column(column, overflow="fold")
            for one in map(workload_of, presets()):
                mix = ", ".join(f"{op} {share:.3g}" for op, share in one.mix.shares().items() if share)
                table.add_row(one.name, mix, f"{one.keys:,}", one.source)
            console.print(table)
            return
        console.print_json(msgspec.json.encode(workload_of(name)).decode())
