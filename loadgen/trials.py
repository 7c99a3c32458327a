"""`loadgen consistency`: one run for each fault, and whether every promise held through it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from cachelib.errors import CacheError, ConfigError
from loadgen.engine.bench import Bench
from loadgen.engine.crew import Progress
from loadgen.engine.site import Advance
from loadgen.levels import promises_broken
from loadgen.mishaps import SLOW_ORIGIN_MS, Kind, Mishap
from loadgen.plan import RunPlan
from loadgen.result import RunResult
from loadgen.settle import Comparison
from loadgen.targets.library_site import LibrarySite

TRIALS_SCHEMA = "loadgen-consistency/1"
SETTLE_S = 30.0
FAULT_SHARE = 0.25
"""Of the load: how long a fault lasts."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One fault. `failures`: each promise that was broken, in a sentence; none: it held."""

    fault: str
    text: str
    failures: list[str]
    settled_s: float | None
    """After the load, until every key of the cache agreed with the store; None: some never did."""
    compared: int
    examples: list[str]
    run: RunResult


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    format: str = TRIALS_SCHEMA
    label: str
    backend: str
    trials: list[Trial]

    @property
    def failures(self) -> list[str]:
        """Of all."""
        return [f"{one.fault}: {failure}" for one in self.trials for failure in one.failures]


def attempt(
    plan: RunPlan,
    kind: Kind,
    tick: Callable[[Progress], None],
    said: Callable[[str], None],
    advance: Advance,
    settle_s: float = SETTLE_S,
) -> Trial:
    """One fault on a stage of its own. Raises `CacheError` where it could not be tried."""
    if plan.target.kind != "library":
        raise ConfigError(f"consistency is the library's: the target {plan.target.kind!r} promises none")
    target = plan.target
    if kind.name == "slow-store":
        target = msgspec.structs.replace(target, origin_ms=SLOW_ORIGIN_MS)
    # A late generator offers less; what it read is no less true.
    plan = msgspec.structs.replace(plan, target=target, label=kind.name, lag_p99_ms_max=1e6)
    with Bench(plan, advance) as bench:
        assert isinstance(bench.site, LibrarySite)
        stage = bench.site.stage
        missing = {"invalidator": stage.invalidator, "server": stage.server, "redis": stage.server}
        if kind.needs and missing[kind.needs] is None:
            raise ConfigError(f"{kind.name} breaks a {kind.needs} of our own: leave out --cache and --no-invalidator")
        mishap = Mishap(kind, stage, FAULT_SHARE * plan.seconds, said)
        run = bench.run(plan, tick, mishap)
        settled = Comparison(stage).settle(settle_s)
    if lost := [why for why in run.invalid if "lost" in why]:
        raise RunLost(f"{kind.name}: {lost[0]}")
    failures = failures_of(run)
    if settled.differing:
        failures.append(f"{len(settled.differing)} keys never agreed with the store after the load")
    return Trial(
        fault=kind.name,
        text=kind.text,
        failures=failures,
        settled_s=settled.seconds,
        compared=settled.compared,
        examples=list(settled.differing[:5]),
        run=run,
    )


class RunLost(CacheError):
    """A worker was lost: what it had read is not known."""


def failures_of(run: RunResult) -> list[str]:
    """The promises that a run broke; see `promises_broken`."""
    return ["nothing was judged"] if run.consistency is None else promises_broken(run)


def save_trials(path: Path, trials: Trials) -> None:
    """Write them as JSON. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(trials), indent=1) + b"\n")
