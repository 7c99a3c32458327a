"""`loadgen size` and `loadgen herd`: how large a cache to buy, and what leases are worth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from loadgen.cli.ending import MISSED, PASSED, one_sentence
from loadgen.cli.options import debug, plan_from, the_target, the_trace
from loadgen.herd import HerdPlan, HerdResult, herd
from loadgen.live import Watch, advance_of
from loadgen.memory import measure
from loadgen.page.herd import page_of_herd, rows
from loadgen.page.scale import plain, share, size
from loadgen.page.sizing import page_of_size
from loadgen.sizing import SizeResult, size_of

JSON = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the record.")
HTML = click.option("--html", "html_path", type=click.Path(path_type=Path), help="Where to write the report.")


@click.command("size")
@the_target
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), help="Its requests, instead of a workload's.")
@the_trace
@click.option("--rate", "-r", type=click.FloatRange(0, min_open=True), help="Operations a second.  [1000]")
@click.option("--requests", default=500_000, type=click.IntRange(1000), help="Drawn for the curve.", show_default=True)
@click.option("--items", default=10_000, type=click.IntRange(100), help="That are measured.", show_default=True)
@JSON
@HTML
@debug
def sizing(
    debug: bool, requests: int, items: int, json_path: Path | None, html_path: Path | None, **settings: Any
) -> None:
    """How many bytes an item of a workload costs on a real server, and how many reads each size of cache misses.

    The rate matters: the slower it is, the more items outlive their TTL before they are read again.
    """
    with one_sentence(debug):
        plan = plan_from(settings)
        console = Console()
        with Watch(console, "loadgen size") as watch:
            cost = measure(plan, items, advance_of(watch))
            watch.say(f"{cost.items:,} items cost {cost.each:,.0f} bytes each on {cost.backend}")
            result = size_of(plan, cost, requests)
        console.print(_table(result))
        _write(console, json_path, msgspec.json.format(msgspec.json.encode(result), indent=1).decode())
        _write(console, html_path, page_of_size(result))
        sys.exit(PASSED)


def _write(console: Console, path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        console.print(f"written: {path}", highlight=False, soft_wrap=True)


def _table(result: SizeResult) -> Table:
    table = Table(title=result.label, title_justify="left")
    for name in ("hits", "cache", "items", f"loads of the store at {plain(result.rate)}/s"):
        table.add_column(name, justify="right")
    for one in result.choices:
        table.add_row(share(round(one.hit_ratio, 4)), size(one.bytes), plain(one.items), f"{one.origin_per_s:,.0f}/s")
    parts = f"{result.item_bytes:,.0f} bytes an item: key {result.key_bytes:,.0f}, value {result.value_bytes:,.0f},"
    rest = f"{share(round(result.least_miss, 4))} of the reads miss whatever the size (first, absent, expired)"
    table.caption = f"{parts} overhead {result.overhead_bytes:,.0f}\n{rest}"
    table.caption_justify = "left"
    return table


@click.command("herd")
@click.option("--backend", type=click.Choice(["redis", "memcached"]), default="redis", show_default=True)
@click.option("--readers", default=40, help="Threads that read one key.", show_default=True)
@click.option("--caches", default=8, help="That they are spread over, as over processes.", show_default=True)
@click.option("--seconds", "-s", default=10.0, show_default=True)
@click.option("--lost", "lost_s", default=1.0, help="The key is invalidated every so many seconds.", show_default=True)
@click.option("--origin-ms", default=100.0, help="A load of the store takes so long.", show_default=True)
@click.option("--think-ms", default=5.0, help="Between two reads of a reader.", show_default=True)
@JSON
@HTML
@debug
def stampede(debug: bool, json_path: Path | None, html_path: Path | None, **settings: Any) -> None:
    """Many readers of one hot key that is lost again and again: with leases, and as without them.

    Exit code 1 where leases let through more than two loads for each loss.
    """
    with one_sentence(debug):
        console = Console()
        with Watch(console, "loadgen herd") as watch:
            result = herd(HerdPlan(**settings), watch.say)
        console.print(_both(result))
        _write(console, json_path, msgspec.json.format(msgspec.json.encode(result), indent=1).decode())
        _write(console, html_path, page_of_herd(result))
        verdict = f"{'PASSED' if result.held else 'FAILED'}: {result.fewer:.1f} times fewer loads with leases"
        console.print(verdict, style="bold", highlight=False, soft_wrap=True)
        sys.exit(PASSED if result.held else MISSED)


def _both(result: HerdResult) -> Table:
    table = Table(title=result.label, title_justify="left")
    for name in ("", "with leases", "without"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows(result.leases, result.without):
        table.add_row(*row)
    return table
