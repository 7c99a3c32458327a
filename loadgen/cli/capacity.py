"""`loadgen search` and `loadgen calibrate`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from loadgen.calibrate import SHARE, calibrate
from loadgen.cli.ending import INTERRUPTED, INVALID, MISSED, PASSED, one_sentence
from loadgen.cli.options import debug, plan_from, the_output, the_target
from loadgen.engine.bench import Bench
from loadgen.files import save
from loadgen.live import Metrics, Watch
from loadgen.objective import parse
from loadgen.probing import End, Plan
from loadgen.searched import SearchResult
from loadgen.seek import OTHERS_MOST, Pace, Seeker

STEP_DOWN = 0.4
"""Of the tolerance: the first step down where the confirmation misses."""
QUICK = 0.1
"""Whoever is content with this tolerance is served with fewer probes."""
START_SHARE = 0.01
"""Of the generator's limit: where a search starts unless told."""


@click.command("search")
@click.argument("objective")
@the_target
@click.option("--start", type=click.FloatRange(0, min_open=True), help="The first rate, operations a second.")
@click.option("--ceiling", type=click.FloatRange(0, min_open=True), help="Of the generator; measured otherwise.")
@click.option("--tolerance", default=0.05, help="How near the rate that is found is to one that misses.")
@click.option("--window", "window_s", default=3, type=click.IntRange(1), help="Seconds; a probe has 3 or more.")
@click.option("--warmup", default=1.0, type=click.FloatRange(0), help="Seconds before the first window of a probe.")
@click.option(
    "--others-max",
    default=OTHERS_MOST,
    type=click.FloatRange(0, 1),
    help="Of the processors, that other work may use; a window with more is no vote.",
    show_default=True,
)
@the_output
@debug
def search(debug: bool, objective: str, metrics_port: int | None, **settings: Any) -> None:
    """Find the highest rate at which OBJECTIVE holds, such as 'get.p99<5ms & errors<0.1%'.

    Ramps up, bisects, confirms over a longer time, shows that a little more does not hold, and that what was
    confirmed holds again. The record keeps every probe, also of a search that was interrupted. Exit codes: 0 a rate
    was found; 1 none holds; 2 usage; 3 the generator or its machine was the limit; 130 interrupted.
    """
    with one_sentence(debug):
        wanted, plan = parse(objective), plan_from({**settings, "warmup": None})
        console = Console()
        with ExitStack() as stack:
            metrics = stack.enter_context(Metrics(metrics_port)) if metrics_port is not None else None
            watch = stack.enter_context(Watch(console, "loadgen search", metrics))
            ceiling = settings["ceiling"]
            if ceiling is None:
                found = calibrate(plan, watch.tick, eased=False)
                watch.say(found.sentence())
                ceiling = found.ceiling
            start = settings["start"] or max(1.0, START_SHARE * SHARE * ceiling)
            tolerance = settings["tolerance"]
            near = {"tolerance": tolerance, "step_down": STEP_DOWN * tolerance}
            steps = Plan(start=start, ceiling=ceiling, share=SHARE, quick=tolerance >= QUICK, **near)
            pace = Pace(settings["window_s"], settings["warmup"], others_most=settings["others_max"])
            bench = stack.enter_context(Bench(plan))
            result = Seeker(bench, plan, wanted, steps, pace, watch.say, watch.tick).search()
        _say(console, result, save(result, settings["json_path"], settings["csv_path"], settings["html_path"]))
        sys.exit(code_of(result))


def code_of(result: SearchResult) -> int:
    """A rate was found, none holds, or the search says nothing."""
    codes = {End.FOUND.value: PASSED, End.NOTHING_HOLDS.value: MISSED, End.INTERRUPTED.value: INTERRUPTED}
    return codes.get(result.end, INVALID)


def _say(console: Console, result: SearchResult, written: list[Path]) -> None:
    for path in written:
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
    console.print(result.says, style="bold", highlight=False, soft_wrap=True)


@click.command("calibrate")
@the_target
@click.option("--seconds", "-s", type=click.FloatRange(1), default=3.0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the run below the ceiling.")
@debug
def calibration(debug: bool, json_path: Path | None, seconds: float, **settings: Any) -> None:
    """What this generator reaches by itself, on a target that does nothing, and how late it is at 70 % of that.

    Exit code 3 where even that is too late: then no figure of this machine can be trusted.
    """
    with one_sentence(debug):
        console = Console()
        with Watch(console, "loadgen calibrate") as watch:
            found = calibrate(plan_from(settings), watch.tick, seconds=seconds)
        assert found.at_share is not None
        if json_path is not None:
            save(msgspec.structs.replace(found.at_share, label="calibration"), json_path, None, None)
        console.print(found.sentence(), highlight=False, soft_wrap=True)
        for why in found.at_share.invalid:
            console.print(f"INVALID: {why}", highlight=False, soft_wrap=True)
        sys.exit(INVALID if found.at_share.invalid else PASSED)
