"""`loadgen replay` and `loadgen synthesize`: traces as load, and traces made of a workload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from cachelib.errors import ConfigError
from loadgen.cli.ending import one_sentence
from loadgen.cli.options import debug, plan_from, the_load, the_output, the_target, the_trace
from loadgen.cli.runs import offered, told
from loadgen.objective import Objective, parse
from loadgen.plan import RunPlan
from loadgen.workloads.formats import read_trace
from loadgen.workloads.synthesis import cluster_of, write_twitter
from loadgen.workloads.trace import replay
from loadgen.workloads.workload import workload_of

LEAST_S = 1.0


@click.command("replay")
@click.argument("trace", type=click.Path(path_type=Path, dir_okay=False))
@the_trace
@the_target
@the_load
@click.option("--objective", "-o", help="What must hold, as 'get.p99<5ms & errors<0.1%'.")
@the_output
@debug
def replayed(debug: bool, objective: str | None, metrics_port: int | None, **settings: Any) -> None:
    """Offer the requests of TRACE, in Twitter's or Meta's format, at its own times, faster, or at a fixed rate.

    All of it unless --seconds ends it; the first seconds (--warmup) are not measured. Exit codes as of run.
    """
    with one_sentence(debug):
        wanted = parse(objective) if objective else Objective()
        plan = as_long_as_it_lasts(plan_from(settings), given=settings["seconds"] is not None)
        console = Console()
        ready = f"ready: {plan.length_s:,.1f} s of the trace, {plan.rate:,.1f} requests a second on average"
        result = offered(console, plan, "loadgen replay", ready, metrics_port)
        sys.exit(told(console, result, wanted, settings))


def as_long_as_it_lasts(plan: RunPlan, *, given: bool) -> RunPlan:
    """With the length of its trace, unless one was given, and the rate that this is. Raises `BadTrace`."""
    assert plan.trace is not None
    trace = read_trace(Path(plan.trace.path), plan.trace.format, plan.trace.rows)
    if not len(trace):
        raise ConfigError(f"{plan.trace.path} holds no request")
    whole = replay(trace, factor=plan.trace.factor, rate_per_s=plan.trace.rate)
    # A hair more: the last request is meant to start within the run.
    lasts_s = float(whole.at_s[-1]) + 0.001
    seconds = plan.seconds if given else max(LEAST_S, lasts_s - plan.warmup_s)
    count = int((whole.at_s < seconds + plan.warmup_s).sum())
    rate = max(count / (seconds + plan.warmup_s), 0.001)
    label = plan.label or f"replay of {Path(plan.trace.path).name}"
    return msgspec.structs.replace(plan, seconds=seconds, rate=rate, label=label)


@click.command("synthesize")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--workload", "-w", default="tw-c14", help="A preset, or a TOML file.", show_default=True)
@click.option("--statistics", type=click.Path(path_type=Path), help="Twitter's table of clusters, instead.")
@click.option("--cluster", type=int, help="Of that table.")
@click.option("--keys", type=click.IntRange(1), help="Instead of the workload's.")
@click.option("--requests", default=100_000, type=click.IntRange(1), show_default=True)
@click.option("--rate", default=1000.0, type=click.FloatRange(0, min_open=True), show_default=True)
@click.option("--seed", default=1, show_default=True)
@debug
def synthesized(
    debug: bool,
    out: Path,
    workload: str,
    statistics: Path | None,
    cluster: int | None,
    keys: int | None,
    requests: int,
    rate: float,
    seed: int,
) -> None:
    """Write a trace in Twitter's format, of a workload or of a cluster's published statistics."""
    with one_sentence(debug):
        if (statistics is None) != (cluster is None):
            raise ConfigError("--statistics names the table and --cluster the line of it: give both, or neither")
        chosen = cluster_of(statistics, cluster) if statistics and cluster else workload_of(workload)
        if keys is not None:
            chosen = msgspec.structs.replace(chosen, keys=keys)
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = write_twitter(out, chosen, requests=requests, rate_per_s=rate, seed=seed)
        Console().print(f"written: {out}, {rows:,} requests", highlight=False, soft_wrap=True)
