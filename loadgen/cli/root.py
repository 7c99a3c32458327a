"""`loadgen search | compare | report | …`: the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from loadgen.cli.cache import sizing, stampede
from loadgen.cli.capacity import calibration, search
from loadgen.cli.ending import one_sentence
from loadgen.cli.hdr import histograms
from loadgen.cli.options import debug
from loadgen.cli.records import comparison, known, report
from loadgen.cli.runs import consistency, run
from loadgen.cli.traces import replayed, synthesized

BACKENDS = click.Choice(["redis", "memcached"])
FILE = click.Path(path_type=Path)
FIGURES = click.option("--json", "json_path", type=FILE, help="Where to write the figures.")
HTML = click.option("--html", "html_path", type=FILE, help="Where to write the report.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """Offers load to a cache and its store, and measures latency and staleness.

    Exit codes: 0 passed, 1 an objective was missed, 2 usage, 3 the run is not valid.
    """


@cli.command("check")
@click.option("--backend", type=BACKENDS, default="redis", help="The cache server to start.", show_default=True)
@click.option("--cache", metavar="URL", help="A running cache server instead.")
@click.option("--invalidator/--no-invalidator", default=True, help="Start the invalidator.", show_default=True)
@click.option("--target", default="library", help="library, or forgetful: a cache that hears of nothing.")
@click.option("--seconds", default=10.0, show_default=True)
@click.option("--keys", default=1000, help="Rows of each table.", show_default=True)
@click.option("--zipf", default=0.99, help="Exponent of the popularity; 0 for uniform.", show_default=True)
@click.option("--readers", default=2, help="Reader processes.", show_default=True)
@click.option("--threads", default=2, help="Threads of each reader process.", show_default=True)
@click.option("--read-rate", default=1000.0, help="Reads a second, all threads together.", show_default=True)
@click.option("--arrivals", default="poisson", help="poisson, constant or closed.", show_default=True)
@click.option("--write-rate", default=20.0, help="Writes a second through the library.", show_default=True)
@click.option("--behind-rate", default=10.0, help="Writes a second behind its back.", show_default=True)
@click.option("--evict-rate", default=0.0, help="Keys a second that the cache is made to lose.", show_default=True)
@click.option("--probers", default=1, help="Processes that time how soon a change is seen.", show_default=True)
@click.option("--strong-share", default=0.4, help="Of reads and writes, on the strong table.", show_default=True)
@click.option("--origin-ms", default=0.0, help="Added to every load of the store.", show_default=True)
@click.option("--seed", default=1, show_default=True)
@FIGURES
@HTML
@debug
def check(debug: bool, json_path: Path | None, html_path: Path | None, **settings: Any) -> None:
    """Readers and writers on two tables of plain rows, checked read by read."""
    from loadgen.commands import plain_run

    with one_sentence(debug):
        sys.exit(plain_run(settings, json_path, html_path))


@cli.command()
@click.option("--backend", type=BACKENDS, envvar="DEMO_BACKEND", default="redis", show_default=True)
@click.option("--seconds", envvar="DEMO_SECONDS", default=35.0, help="Of load.", show_default=True)
@click.option("--break", "broken", envvar="DEMO_BREAK", default="", help="invalidator: it is never started.")
@click.option("--json", "json_path", type=FILE, default=Path("build/demo.json"), show_default=True)
@click.option("--html", "html_path", type=FILE, default=Path("build/demo.html"), show_default=True)
@debug
def demo(backend: str, seconds: float, broken: str, json_path: Path, html_path: Path, debug: bool) -> None:
    """28 000 airports behind a real cache; half-way the invalidator is killed."""
    from loadgen.commands import demonstration

    with one_sentence(debug):
        sys.exit(demonstration(backend, seconds, broken, json_path, html_path))


@cli.command()
@click.option("--backend", type=BACKENDS, default="redis", show_default=True)
@click.option("--seconds", default=120.0, help="Of faults.", show_default=True)
@click.option("--seed", default=1, help="Of load and faults.", show_default=True)
@FIGURES
@HTML
@debug
def faults(
    backend: str, seconds: float, seed: int, json_path: Path | None, html_path: Path | None, debug: bool
) -> None:
    """Kill -9 of invalidator, cache server and writers at random moments, under load."""
    from loadgen.commands import kill_test

    with one_sentence(debug):
        sys.exit(kill_test(backend, seconds, seed, json_path, html_path))


for _command in (run, replayed, search, consistency, stampede, sizing):
    cli.add_command(_command)
for _command in (calibration, comparison, report, known, synthesized):
    cli.add_command(_command)

cli.add_command(histograms)
