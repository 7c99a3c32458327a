"""What the commands do: set the stage, run the load, judge it, say what was found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from cachelib.errors import ConfigError
from loadgen.faults import Killer, OneOutage
from loadgen.judge import INVALID, OBJECTIVE_FAILED, Figures
from loadgen.page.checked import checked, save_page
from loadgen.report import Watch, save, show
from loadgen.scenario import Load, run
from loadgen.stage import Stage, StageSettings

ACHIEVED_LEAST = 0.9
"""A run that offered less than this share of its rate has measured the generator."""
OUTAGE_S = 4.0
ORIGIN_MS = 10.0
"""What the demonstration adds to each load of the store: a file is nearer than most databases are."""
KILL_ORIGIN_MS = 20.0
KILL_KEYS = 300
STRONG_HITS_LEAST = 0.8
BROKEN_SETTLE_S = 4.0


def plain_run(settings: Mapping[str, Any], json_path: Path | None, html_path: Path | None) -> int:
    """`loadgen check`; the exit code."""
    load = Load(
        **{name: settings[name] for name in ("seconds", "readers", "read_rate", "arrivals", "target", "seed")},
        **{
            name: settings[name]
            for name in ("write_rate", "behind_rate", "evict_rate", "probers", "strong_share", "origin_ms")
        },
        reader_threads=settings["threads"],
        exponent=settings["zipf"],
    )
    stage_settings = StageSettings(
        "rows", settings["backend"], settings["cache"], settings["invalidator"], keys=settings["keys"]
    )
    console = Console()
    with Stage(stage_settings) as stage, Watch(console, "loadgen check", load.seconds) as watch:
        done = checked("Readers and writers, checked read by read", run(stage, load, watch.tick, watch.say))
    figures = done.figures
    show(console, "loadgen check", figures)
    if json_path is not None:
        save(json_path, figures.as_dict() | {"load": _plain(load)})
    save_page(html_path, f"loadgen check on {figures.backend}, {load.seconds:g} s", [done], figures.failures)
    return _exit_code(console, figures, load)


def _exit_code(console: Console, figures: Figures, load: Load) -> int:
    offered = load.read_rate * load.seconds
    if load.arrivals != "closed" and figures.reads < ACHIEVED_LEAST * offered and not figures.failures:
        console.print(
            f"INVALID: {figures.reads:,} of {offered:,.0f} reads were made: offer less, or use more processes"
        )
        return INVALID
    return figures.exit_code


# --- the demonstration ---------------------------------------------------------------------------


def demonstration(
    backend: str,
    seconds: float,
    broken: str,
    json_path: Path,
    html_path: Path | None = None,
    stage_of: Callable[[StageSettings], Stage] = Stage,
    what: str = "a SQLite file of airports",
) -> int:
    """`make demo`; the exit code. `stage_of` may bring another store and another way to the invalidator."""
    if broken not in ("", "invalidator"):
        raise ConfigError(f"DEMO_BREAK is {broken!r}: it takes 'invalidator', or nothing")
    console, began = Console(), time.monotonic()
    load = Load(
        seconds=seconds,
        readers=3,
        read_rate=2000.0,
        write_rate=20.0,
        behind_rate=12.0,
        probers=2,
        probe_rate=6.0,
        gone_share=0.02,
        strong_share=0.3,
        settle_within_s=BROKEN_SETTLE_S if broken else 15.0,
        origin_ms=ORIGIN_MS,
        warm=True,
    )
    console.print(f"Setting up: {what}, {backend}, the invalidator, and a warm cache.", highlight=False)
    with stage_of(StageSettings("airports", backend, invalidator=not broken)) as stage:
        rows = sum(map(len, stage.keys))
        console.print(f"{rows:,} rows are in the store ({time.monotonic() - began:.1f} s).", highlight=False)
        with Watch(console, f"demo on {backend}", seconds) as watch:
            if broken:
                watch.say("DEMO_BREAK: the invalidator is not started, and nothing tells the cache of plain SQL")
            director = None if broken else OneOutage(stage, watch.say, min(OUTAGE_S, seconds / 6))
            done = checked("The load", run(stage, load, watch.tick, watch.say, director))
    figures, title = done.figures, f"demo on {backend}, {seconds:g} s"
    show(console, title, figures)
    save_page(html_path, title, [done], figures.failures)
    save(json_path, figures.as_dict() | {"broken": broken or None, "load": _plain(load), "processors": os.cpu_count()})
    files = json_path if html_path is None else f"{json_path}, and drawn in {html_path}"
    console.print(f"All figures are in {files}; loadgen/README.md says how each is defined.", highlight=False)
    return figures.exit_code


# --- the kill test -------------------------------------------------------------------------------


def kill_test(backend: str, seconds: float, seed: int, json_path: Path | None, html_path: Path | None) -> int:
    """`loadgen faults`; the exit code. First the same load without faults, for the share of strong hits."""
    console = Console()
    # Few keys, many writes, slow loads and keys that get lost: what has to happen at the same time to go wrong does.
    wild = Load(
        seconds=seconds,
        read_rate=800.0,
        writers=2,
        writer_threads=1,
        write_rate=50.0,
        evict_rate=15.0,
        probers=1,
        strong_share=0.6,
        origin_ms=KILL_ORIGIN_MS,
        settle_within_s=30.0,
        seed=seed,
        warm=True,
    )
    calm = replace(wild, seconds=max(3.0, min(20.0, seconds / 6)))
    with (
        Stage(StageSettings("rows", backend, keys=KILL_KEYS)) as stage,
        Watch(console, f"calm on {backend}", calm.seconds) as watch,
    ):
        quiet = checked("Without faults", run(stage, calm, watch.tick, watch.say))
    before = quiet.figures
    show(console, f"without faults on {backend}, {calm.seconds:g} s", before)
    with (
        Stage(StageSettings("rows", backend, keys=KILL_KEYS)) as stage,
        Watch(console, f"faults on {backend}", seconds) as watch,
    ):
        killer = Killer(stage, watch.say, seed, every_s=(0.5, min(4.0, seconds / 8)))
        broken = checked("With faults", run(stage, wild, watch.tick, watch.say, killer))
    after = broken.figures
    show(console, f"with faults on {backend}, {seconds:g} s", after)
    kills = ", ".join(f"{name} {count}" for name, count in sorted(killer.kills.items())) or "none"
    console.print(f"kills: {kills}", highlight=False)
    failures = [*(f"without faults: {one}" for one in before.failures), *after.failures]
    if before.strong_hit_ratio < STRONG_HITS_LEAST:
        failures.append(f"without faults only {before.strong_hit_ratio:.1%} of the strong reads were hits")
    if json_path is not None:
        save(
            json_path,
            {"calm": before.as_dict(), "faults": after.as_dict(), "kills": killer.kills, "failures": failures},
        )
    save_page(html_path, f"loadgen faults on {backend}, {seconds:g} s, seed {seed}", [quiet, broken], failures)
    verdict = (
        "FAILED: " + "; ".join(failures) if failures else f"PASSED: {killer.kills.total()} kills, no promise broken"
    )
    console.print(verdict, style="bold", highlight=False, soft_wrap=True)
    return OBJECTIVE_FAILED if failures else 0


def _plain(load: Load) -> dict[str, Any]:
    return {name: getattr(load, name) for name in Load.__slots__}
