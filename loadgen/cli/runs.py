"""`loadgen run` and `loadgen consistency`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from loadgen.cli.ending import INVALID, MISSED, PASSED, one_sentence
from loadgen.cli.options import debug, plan_from, the_load, the_output, the_target
from loadgen.engine.bench import Bench
from loadgen.files import save
from loadgen.levels import promises_broken
from loadgen.live import Metrics, Watch, advance_of
from loadgen.measures import measures_of
from loadgen.mishaps import KINDS, kinds_of
from loadgen.objective import Kind, Objective, parse, shown
from loadgen.page.trials import HEAD, cells, page_of_trials
from loadgen.plan import RunPlan
from loadgen.result import RunResult
from loadgen.trials import Trials, attempt, save_trials

TRIAL = {"rate": 400.0, "seconds": 12.0, "warmup": 0.0, "keys": 500, "threads": 2, "processes": 2, "workload": "ycsb-b"}
TRIAL |= {"strong_share": 0.4, "session_share": 0.2, "bounded_share": 0.2, "behind_share": 0.5}
TRIAL |= {"probe_rate": 4.0, "origin_ms": 10.0}
"""What `consistency` runs unless told: few keys, much written, loads that take a while."""


@click.command("run")
@the_target
@the_load
@click.option("--objective", "-o", help="What must hold, as 'get.p99<5ms & errors<0.1%'.")
@the_output
@debug
def run(debug: bool, objective: str | None, metrics_port: int | None, **settings: Any) -> None:
    """Offer one load, and say how fast it was and whether what it returned was true.

    Exit codes: 0 the objective holds; 1 it was missed, or a promise broken; 2 usage; 3 the run says nothing.
    """
    with one_sentence(debug):
        wanted, plan = parse(objective) if objective else Objective(), plan_from(settings)
        console, ready = Console(), f"ready: {plan.rate:,.0f}/s for {plan.warmup_s:g} + {plan.seconds:g} s"
        result = offered(console, plan, "loadgen run", ready, metrics_port)
        sys.exit(told(console, result, wanted, settings))


def offered(console: Console, plan: RunPlan, title: str, ready: str, metrics_port: int | None) -> RunResult:
    """Set up what the plan stands on, and run it once, watched. `ready` is said when it begins."""
    with ExitStack() as stack:
        metrics = stack.enter_context(Metrics(metrics_port)) if metrics_port is not None else None
        watch = stack.enter_context(Watch(console, title, metrics))
        bench = stack.enter_context(Bench(plan, advance_of(watch)))
        watch.say(ready)
        return bench.run(plan, watch.tick)


def told(console: Console, result: RunResult, wanted: Objective, settings: dict[str, Any]) -> int:
    """The figures, the files and the verdict; the exit code."""
    console.print(summary(result))
    for path in save(result, settings["json_path"], settings["csv_path"], settings["html_path"]):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
    if result.invalid:
        console.print(f"INVALID: {'; '.join(result.invalid)}", style="bold", highlight=False, soft_wrap=True)
        return INVALID
    verdict = wanted.judge(measures_of(result, wanted.measures))
    for clause in verdict.clauses:
        console.print(f"  {clause.sentence()}", highlight=False, soft_wrap=True)
    failures = promises_broken(result) + ([] if verdict.holds else [f"{verdict.binding} was missed"])
    text = f"FAILED: {'; '.join(failures)}" if failures else "PASSED"
    console.print(text, style="bold", highlight=False, soft_wrap=True)
    return MISSED if failures else PASSED


def summary(result: RunResult) -> Table:
    """One line an operation, and what the oracle and the store say."""
    table = Table(title=result.label, title_justify="left", min_width=72)
    for name in ("", "done", "errors", "p50", "p99", "p99.9", "service p99"):
        table.add_column(name, justify="left" if not name else "right")
    for name, one in result.operations.items():
        times = (one.latency.p50_ms, one.latency.p99_ms, one.latency.p999_ms, one.service.p99_ms)
        errors = ", ".join(f"{kind} {count}" for kind, count in one.errors.items()) or "0"
        table.add_row(name, f"{one.achieved:,}", errors, *(shown(value, Kind.TIME) for value in times))
    lines = [f"offered {result.offered_per_s:,.0f}/s, done {result.achieved_per_s:,.0f}/s"]
    lines.append(f"generator late by {shown(result.lag.p99_ms, Kind.TIME)} at p99")
    if result.sources:
        lines.append(f"hits {result.hit_ratio:.2%}")
    if (origin := result.origin) is not None:
        lines.append(f"{origin.reads_per_s:,.0f} loads of the store a second for {origin.client_reads:,} reads")
    if (found := result.consistency) is not None:
        lines.append(f"{found.ratio.part:,} of {found.ratio.whole:,} reads stale")
        told = [f"{one.level} {one.reads:,}" for one in found.levels]
        lines.append(f"reads by level: {', '.join(told)}; {sum(one.broken for one in found.levels)} broke a promise")
        if found.visibility.lag.count:
            lines.append(f"99 % of changes seen within {shown(found.visibility.lag.p99_ms, Kind.TIME)}")
    table.caption, table.caption_justify = "\n".join(lines), "left"
    return table


@click.command("consistency")
@click.option("--fault", "faults", multiple=True, help=f"One of {', '.join(KINDS)}; more than once; all unless given.")
@the_target
@the_load
@click.option("--settle", default=30.0, help="Seconds after which every key has to agree with the store.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the record.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Where to write the report.")
@debug
def consistency(
    debug: bool,
    faults: tuple[str, ...],
    settle: float,
    json_path: Path | None,
    html_path: Path | None,
    **settings: Any,
) -> None:
    """Break invalidator, bus, cache or store under load, one run each, and judge every read.

    Exit codes: 0 every promise held; 1 one was broken; 2 usage; 3 a fault could not be tried.
    """
    with one_sentence(debug):
        given = {name: value for name, value in settings.items() if value is not None}
        plan = plan_from(settings | TRIAL | {k: v for k, v in given.items() if k != "workload" or _chosen("workload")})
        console, done = Console(), []
        for kind in kinds_of(faults, plan.target.backend):
            console.print(f"{kind.name}: {kind.text}", style="bold", highlight=False)
            with Watch(console, kind.name) as watch:
                done.append(attempt(plan, kind, watch.tick, watch.say, advance_of(watch), settle))
        trials = Trials(label=f"Consistency on {plan.target.backend}", backend=plan.target.backend, trials=done)
        _written(console, trials, json_path, html_path)
        sys.exit(MISSED if trials.failures else PASSED)


def _chosen(option: str) -> bool:
    """It was given on the command line, not taken from the default."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def table_of(trials: Trials) -> Table:
    """A line for each fault; its name is whole however narrow the terminal, as `--fault` takes it."""
    table = Table(title=trials.label, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for number, name in enumerate(HEAD):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=number == 0, overflow="fold")
    for one in trials.trials:
        table.add_row(*cells(one), style="bold" if one.failures else "")
    return table


def _written(console: Console, trials: Trials, json_path: Path | None, html_path: Path | None) -> None:
    console.print(table_of(trials))
    writers: list[tuple[Path | None, Callable[[Path], object]]] = [
        (json_path, lambda path: save_trials(path, trials)),
        (html_path, lambda path: path.write_text(page_of_trials(trials), encoding="utf-8")),
    ]
    for path, write in writers:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            console.print(f"written: {path}", highlight=False, soft_wrap=True)
    broken = trials.failures
    verdict = f"FAILED: {'; '.join(broken)}" if broken else f"PASSED: {len(trials.trials)} runs, no promise broken"
    console.print(verdict, style="bold", highlight=False, soft_wrap=True)
