"""The options that commands share, and the plan of a run that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from cachelib.errors import ConfigError
from loadgen.pinning import NOWHERE, Pins, pins_of
from loadgen.plan import RunPlan, TargetPlan
from loadgen.workloads.workload import workload_of

F = TypeVar("F", bound=Callable[..., Any])

TARGET = {
    "target": "kind",
    "backend": "backend",
    "cache": "cache_url",
    "store": "store_url",
    "namespace": "namespace",
    "style": "style",
    "threads": "threads",
    "connections": "connections",
    "strong_share": "strong_share",
    "session_share": "session_share",
    "bounded_share": "bounded_share",
    "bounded_ms": "bounded_ms",
    "l1_ms": "l1_ms",
    "behind_share": "behind_share",
    "probe_rate": "probes_per_s",
    "origin_ms": "origin_ms",
    "invalidator": "invalidator",
}
"""Options and the settings of `TargetPlan` that they are."""
RUN = {"rate": "rate", "seconds": "seconds", "warmup": "warmup_s", "processes": "processes", "seed": "seed"}
RUN |= {"loop": "loop", "label": "label", "lag_max_ms": "lag_p99_ms_max", "prefill": "prefill"}


def gathered(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options as one decorator, in this order."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


the_target = gathered(
    click.option("--workload", "-w", default="ycsb-b", help="A preset, or a TOML file.", show_default=True),
    click.option("--keys", type=click.IntRange(1), help="Instead of the workload's."),
    click.option("--target", type=click.Choice(["library", "wire", "null"]), default="library", show_default=True),
    click.option("--backend", type=click.Choice(["redis", "memcached"]), help="Started for the run.  [redis]"),
    click.option("--cache", metavar="URL", help="A running cache server instead."),
    click.option("--store", metavar="URL", help="A running store instead of a SQLite file."),
    click.option("--namespace", help="Of the cache's keys; one for each run otherwise."),
    click.option("--style", type=click.Choice(["threads", "asyncio"]), help="Of library.  [threads]"),
    click.option("--threads", type=click.IntRange(1), help="Of each process.  [1]"),
    click.option("--connections", type=click.IntRange(1), help="Of each process, of wire.  [4]"),
    click.option("--processes", "-p", type=click.IntRange(1), help="Of the generator.  [1]"),
    click.option("--strong-share", type=click.FloatRange(0, 1), help="Of the keys, read as Strong.  [0]"),
    click.option("--session-share", type=click.FloatRange(0, 1), help="Of the keys, by a session a thread.  [0]"),
    click.option("--bounded-share", type=click.FloatRange(0, 1), help="Of the keys, read as Bounded.  [0]"),
    click.option("--bounded-ms", type=click.FloatRange(1), help="How old those may be.  [1000]"),
    click.option("--l1-ms", type=click.FloatRange(0), help="Copies in the process live so long; 0: none.  [0]"),
    click.option("--behind-share", type=click.FloatRange(0, 1), help="Of the writes, behind the library.  [0]"),
    click.option("--probe-rate", type=click.FloatRange(0), help="Changes a second that are watched.  [0]"),
    click.option("--origin-ms", type=click.FloatRange(0), help="Added to every load of the store.  [0]"),
    click.option("--invalidator/--no-invalidator", default=None, help="Start the invalidator.  [yes]"),
    click.option("--prefill/--no-prefill", default=None, help="Every key is cached before.  [yes]"),
    click.option(
        "--pin", multiple=True, metavar="ROLE=CPUS", help="Processors for generator, cache or invalidator: cache=0,2-3."
    ),
    click.option("--seed", type=click.IntRange(0), help="[1]"),
    click.option("--label", help="What the record is called."),
)
the_load = gathered(
    click.option("--rate", "-r", type=click.FloatRange(0, min_open=True), help="Operations a second.  [1000]"),
    click.option("--seconds", "-s", type=click.FloatRange(0, min_open=True), help="Measured.  [10]"),
    click.option("--warmup", type=click.FloatRange(0), help="Seconds under load before that.  [2]"),
    click.option("--loop", type=click.Choice(["open", "closed"]), help="[open]"),
    click.option("--lag-max-ms", type=click.FloatRange(0, min_open=True), help="A later generator spoils a second."),
)
the_output = gathered(
    click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write the record."),
    click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Where to write it a line a second."),
    click.option("--html", "html_path", type=click.Path(path_type=Path), help="Where to write the report."),
    click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics while it runs."),
)
the_trace = gathered(
    click.option("--format", "form", type=click.Choice(["twitter", "meta"]), default="twitter", show_default=True),
    click.option("--factor", type=click.FloatRange(0, min_open=True), help="So much faster than it was.  [1]"),
    click.option("--at-rate", type=click.FloatRange(0, min_open=True), help="Requests a second, instead of its times."),
    click.option("--rows", type=click.IntRange(1), help="Read no more than so many."),
)
debug = click.option("--debug", is_flag=True, help="Show a traceback where something fails.")


def plan_from(settings: Mapping[str, Any]) -> RunPlan:
    """Of what was given on the command line; the rest is the plan's own. Raises `ConfigError`."""
    given = {name: value for name, value in settings.items() if value is not None}
    workload = workload_of(given["workload"])
    if "keys" in given:
        workload = msgspec.structs.replace(workload, keys=given["keys"])
    target = {setting: given[option] for option, setting in TARGET.items() if option in given}
    run: dict[str, Any] = {setting: given[option] for option, setting in RUN.items() if option in given}
    if "trace" in given:
        named = (("format", "form"), ("factor", "factor"), ("rate", "at_rate"), ("rows", "rows"))
        run["trace"] = {"path": str(given["trace"])} | {to: given[option] for to, option in named if option in given}
    try:
        # Converted, not built: only so are types and bounds looked at.
        plan = msgspec.convert({"workload": msgspec.to_builtins(workload), "target": target} | run, RunPlan)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the settings of the run: {error}") from error
    return msgspec.structs.replace(plan, pins=_pins(given.get("pin", ()), plan.target))


def _pins(texts: Sequence[str], target: TargetPlan) -> Pins:
    """Only what the run starts can be pinned by it."""
    pins = pins_of(texts) if texts else NOWHERE
    if pins.cache and (target.cache_url or target.kind == "null"):
        raise ConfigError(f"--pin cache=…: this run starts no cache ({target.cache_url or target.kind}): use taskset")
    if pins.invalidator and (target.kind != "library" or not target.invalidator):
        raise ConfigError(f"--pin invalidator=…: this run of {target.kind!r} starts no invalidator")
    return pins
