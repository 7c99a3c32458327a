"""Makes the probes that a search asks for: runs on one bench, judged window by window.

The machine (`search.py`) decides, this measures. A window is some seconds of a probe; one with a second that
the generator spoiled is no vote. After a probe that missed, the system rests until a light load is as fast
as it was before the first probe.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from loadgen.engine.crew import Progress, processors
from loadgen.histogram import Histogram
from loadgen.measures import OF_THE_RUN, Seconds, slices
from loadgen.objective import Kind, NotMeasured, Objective, kind_of, shown
from loadgen.plan import RunPlan
from loadgen.probing import LONG, Drain, End, Finding, Plan, Probe, Window
from loadgen.result import RunResult, config_hash
from loadgen.search import State, begin
from loadgen.searched import ProbeLine, SearchResult

LAG_SHARE = 0.25
"""Of the tightest latency that the objective bounds: a generator that is later than this spoils the window."""
LAG_LEAST_MS = 1.0
REST_S = 1.0
LIGHT = 0.1
"""Of the first rate: the load under which it is seen whether the system is at rest."""
LIGHT_LEAST = 20.0
"""Operations a second."""
LIGHT_S = 1.0
SLOWER = 2.0
"""Twice as slow as before, and more than a millisecond: not at rest."""
SLACK_MS = 1.0
NO_VOTES = (Window.INVALID, Window.DISTURBED)
OTHERS_MOST = 0.15
OTHERS_RESTS = 3.0
"""Times the rest that other work is given to end."""


class Runner(Protocol):
    """What makes a run: `engine.bench.Bench`."""

    def run(self, plan: RunPlan, tick: Callable[[Progress], None] = ...) -> RunResult:
        """See `Bench.run`."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a window is, and how long each probe is under load before its first one."""

    window_s: int = 3
    warmup_s: float = 1.0
    rest_s: float = REST_S
    others_most: float = OTHERS_MOST
    """Of all processors: a window in which what is no part of the run used more is no vote."""


class Seeker:
    """One search. `say` is told of every probe, `tick` of the progress within it."""

    def __init__(
        self,
        runner: Runner,
        plan: RunPlan,
        objective: Objective,
        search: Plan,
        pace: Pace,
        say: Callable[[str], None],
        tick: Callable[[Progress], None],
    ) -> None:
        self._runner = runner
        self._plan = msgspec.structs.replace(plan, lag_p99_ms_max=lag_allowed_ms(plan, objective))
        self._objective = objective
        self._search = search
        self._pace = pace
        self._say = say
        self._tick = tick
        self._probes: list[ProbeLine] = []
        self._runs: dict[str, RunResult] = {}
        """The last long run that held, and the last that missed of a rate that had not held."""
        self._undecided: list[RunResult] = []
        self._doubted = False
        """The probe under way was made again, see `_doubt`."""
        self._rest_p50_ms: float | None = None
        # A server that runs already is no process of ours: nobody could tell its work from that of others.
        ours = not (plan.target.cache_url or plan.target.store_url)
        self._others_most = pace.others_most if ours else float("inf")

    def search(self) -> SearchResult:
        """To the end, or until it is interrupted with a probe to tell of; without one `KeyboardInterrupt` goes on.

        Raises `NotMeasured` where the objective asks for what this target does not tell.
        """
        state = begin(self._search)
        light = self._light()
        self._rest_p50_ms = _p50_ms(light)
        while not isinstance(ask := state.ask, Finding):
            try:
                state = state.drained(self._drain(state)) if isinstance(ask, Drain) else self._probe(state, ask)
            except KeyboardInterrupt:
                if not self._probes:
                    raise
                state = replace(state, end=End.INTERRUPTED)
        return self._result(ask, light)

    # --- probes ------------------------------------------------------------------------------------

    def _probe(self, state: State, probe: Probe) -> State:
        pace = self._pace
        run = self._run(probe.rate, probe.windows * pace.window_s, pace.warmup_s)
        parts = slices(run, probe.windows)
        found = self._judged(parts)
        if lost := [why for why in run.invalid if "lost" in why]:
            found = [(Window.INVALID, lost[0])] * probe.windows
        counted = [part for part, (window, _) in zip(parts, found, strict=True) if window not in NO_VOTES]
        self._doubted = not self._doubted and self._doubt(counted)
        votes = [] if self._doubted else found
        after = state.probed([(window, clause if window is Window.MISSED else "") for window, clause in votes])
        decided = len(after.log) > len(state.log)
        verdict = after.log[-1].verdict.value if decided else "undecided"
        self._probes.append(_line(probe, run, found, verdict))
        if not self._doubted:
            self._undecided.append(run)
        if decided:
            # A vote that went on ended with a short run: the record keeps the long one.
            longest = max(self._undecided, key=lambda one: one.seconds)
            self._undecided = []
            if probe.phase in LONG and not (probe.phase == "again" and verdict == Window.MISSED.value):
                self._runs[verdict] = longest
        self._say(_told(self._probes[-1], [why for window, why in found if window in NO_VOTES]))
        if any(window is Window.DISTURBED for window, _ in votes):
            time.sleep(OTHERS_RESTS * pace.rest_s)
        return after

    def _judged(self, parts: Sequence[Seconds]) -> list[tuple[Window, str]]:
        try:
            return [self._judge(part) for part in parts]
        except NotMeasured as error:
            if not self._probes:  # the target never tells it
                raise
            return [(Window.INVALID, f"{error}, unlike the ones before it")] * len(parts)

    def _judge(self, part: Seconds) -> tuple[Window, str]:
        """How a window ended, and by which clause, or why it says nothing."""
        # First: where others had the processors a late generator is theirs, and says nothing of what it can do.
        if part.others_cores > self._others_most * processors():
            return Window.DISTURBED, f"other work used {part.others_cores:.1f} processors"
        if part.invalid:
            return Window.INVALID, part.invalid
        verdict = self._objective.judge(part.measures(self._objective.measures))
        return (Window.HELD, "") if verdict.holds else (Window.MISSED, verdict.binding)

    def _doubt(self, counted: Sequence[Seconds]) -> bool:
        """It was missed by nothing but the tail of a few samples that all windows share, as visibility seen by a
        handful of probes: one slow look is not three votes. The probe is made once more, and then it counts.
        """
        verdicts = [self._objective.judge(part.measures(self._objective.measures)) for part in counted]
        missed = [one for verdict in verdicts for one in verdict.clauses if not one.holds]
        return bool(missed) and all(one.measure.startswith(OF_THE_RUN) and not one.resolved for one in missed)

    def _drain(self, state: State) -> bool:
        if not state.log or (state.log[-1].verdict is Window.HELD and state.drains == 0):
            return True
        time.sleep(self._pace.rest_s)
        now, before = _p50_ms(self._light()), self._rest_p50_ms
        if now is None or before is None:
            return now is not None
        clean = now <= before * SLOWER + SLACK_MS
        if not clean:
            self._say(f"not at rest: under a light load the median is {now:.2f} ms, it was {before:.2f} ms")
        return clean

    def _light(self) -> RunResult:
        rate = max(LIGHT_LEAST, LIGHT * self._search.start)
        return self._run(min(rate, self._search.start), LIGHT_S, 0.0)

    def _run(self, rate: float, seconds: float, warmup_s: float) -> RunResult:
        seed = self._plan.seed + len(self._probes)  # other keys, or each probe would find the last one's in the cache
        plan = msgspec.structs.replace(self._plan, rate=rate, seconds=seconds, warmup_s=warmup_s, seed=seed)
        return self._runner.run(plan, self._tick)

    # --- the record ----------------------------------------------------------------------------------

    def _result(self, found: Finding, first: RunResult) -> SearchResult:
        config = {
            "plan": {name: value for name, value in first.config.items() if name not in ("rate", "seconds", "seed")},
            "search": msgspec.to_builtins(self._search),
            "pace": msgspec.to_builtins(self._pace),
            "objective": self._objective.text,
        }
        return SearchResult(
            label=f"Capacity: {first.label} on {self._plan.target.kind}",
            objective=self._objective.text,
            started=first.started,
            host=first.host,
            versions=first.versions,
            seed=self._plan.seed,
            config=config,
            config_hash=config_hash(config),
            end=found.end.value,
            says=sentence(found),
            rate=found.rate,
            above=found.above if found.above not in (float("inf"), found.rate) else None,
            binding=found.binding,
            low=found.low,
            high=found.high if found.high < float("inf") else None,
            ceiling=self._search.ceiling,
            share=self._search.share,
            probes=self._probes,
            confirmed=self._runs.get(Window.HELD.value),
            refuted=self._runs.get(Window.MISSED.value),
        )


def sentence(found: Finding) -> str:
    """The end of a search, for people."""
    rate, above = f"{found.rate:,.0f}/s", f"{found.above:,.0f}/s"
    match found.end:
        case End.FOUND:
            return f"{rate} holds, twice over a long time; {above} does not: {found.binding} gives way first."
        case End.GENERATOR:
            return f"{rate} holds, and this generator may offer no more: use more processes or another machine."
        case End.NOTHING_HOLDS:
            return f"No rate holds the objective: {found.binding} is missed even when there is hardly any load."
        case End.NO_RECOVERY:
            return "The system did not come back to rest after a probe: what it does next would not be its own."
        case End.DISTURBED:
            return "Other work had the processors, probe after probe: search on a machine of its own, or allow more."
        case End.SPOILED:
            return "The generator was too late, probe after probe: use more processes, or a quieter machine."
        case End.UNSETTLED:
            return "The probes contradict each other: use longer windows, or a quieter machine."
        case End.INTERRUPTED:
            held = f"{rate} had held over a long time" if found.rate else "no rate had held over a long time yet"
            return f"Interrupted: {held}; the capacity is not known."


def lag_allowed_ms(plan: RunPlan, objective: Objective) -> float:
    """How late the generator may be: a share of the tightest latency that is bounded."""
    bounds = [
        clause.number
        for clause in objective.clauses
        if kind_of(clause.measure) is Kind.TIME and not re.match(r"vis|stale|lag", clause.measure) and clause.of is None
    ]
    return max(LAG_LEAST_MS, LAG_SHARE * min(bounds)) if bounds else plan.lag_p99_ms_max


def _p50_ms(run: RunResult) -> float | None:
    found = _merged(run)
    return found.percentile_ms(50) if found.count else None


def _merged(run: RunResult, *, service: bool = False) -> Histogram:
    return Histogram.sum_of((one.service if service else one.latency).histogram for one in run.operations.values())


def _line(probe: Probe, run: RunResult, found: list[tuple[Window, str]], verdict: str) -> ProbeLine:
    waited, served = _merged(run), _merged(run, service=True)
    seen = run.consistency.visibility.lag if run.consistency else None
    offered = sum(one.offered for one in run.operations.values())
    return ProbeLine(
        phase=probe.phase,
        rate=probe.rate,
        seconds=run.seconds,
        achieved=run.achieved_per_s,
        p50_ms=waited.percentile_ms(50),
        p99_ms=waited.percentile_ms(99),
        p999_ms=waited.percentile_ms(99.9),
        service_p99_ms=served.percentile_ms(99),
        lag_p99_ms=run.lag.p99_ms,
        others_cores=round(sum(one.others_cores for one in run.measured) / max(1, len(run.measured)), 3),
        hit_ratio=run.hit_ratio,
        errors=sum(run.errors.values()) / offered if offered else 0.0,
        origin_qps=run.origin.reads_per_s if run.origin else None,
        stale_ratio=run.consistency.ratio.share if run.consistency else None,
        visible_p99_ms=seen.p99_ms if seen and seen.count else None,
        windows=[window.value for window, _ in found],
        missed=dict(Counter(clause for window, clause in found if window is Window.MISSED)),
        verdict=verdict,
    )


def _told(line: ProbeLine, spoiled: list[str]) -> str:
    held = f"{line.windows.count('held')} of {len(line.windows)} windows held"
    missed = ", ".join(f"{clause} missed {times}" for clause, times in line.missed.items())
    reason = f" ({missed})" if missed else f" ({spoiled[0]})" if spoiled else ""
    p99, done = shown(line.p99_ms, Kind.TIME), shown(line.achieved, Kind.RATE)
    return f"{line.phase:<7} {line.rate:>9,.0f}/s: {line.verdict}, {held}{reason}; p99 {p99}, done {done}"
