"""Probes as a search makes them: judged by windows, rested after a miss, kept in the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loadgen.engine.crew import Progress
from loadgen.histogram import Histogram
from loadgen.objective import NotMeasured, parse
from loadgen.page.report import page_of_search
from loadgen.plan import RunPlan, TargetPlan
from loadgen.probing import Plan
from loadgen.result import Latency, RunResult
from loadgen.searched import load_search, save_search
from loadgen.seek import Pace, Seeker, lag_allowed_ms
from loadgen.workloads.workload import workload_of
from tests.unit.loadgen_results import run, summed, window

PACE = Pace(window_s=1, warmup_s=1.0, rest_s=0.0)
OBJECTIVE = parse("all.p99<20ms & achieved>=0.95*offered")
PLAN = RunPlan(workload=workload_of("ycsb-a"))


class System:
    """Twice as slow at half its peak, and so on; over it, it does its peak and no more. Records as of a real bench."""

    def __init__(self, peak: float, restless: int = 0, spoil_above: float = float("inf")) -> None:
        self.peak = peak
        self.plans: list[RunPlan] = []
        self.restless = restless
        self.spoil_above = spoil_above

    def run(self, plan: RunPlan, tick: Callable[[Progress], None] = lambda _: None) -> RunResult:
        self.plans.append(plan)
        load = plan.rate / self.peak
        median_ms = 1.0 / (1 - load) if load < 0.99 else 500.0
        if len(self.plans) > 1 and plan.warmup_s == 0 and self.restless:
            self.restless -= 1
            median_ms = 400.0
        random = np.random.default_rng(plan.seed)
        rate = round(plan.rate)
        spoiled = "the generator began 9 ms late" if plan.rate > self.spoil_above else ""
        windows = [
            window(random, at_s, rate, median_ms, ended=min(rate, round(self.peak)), invalid=spoiled)
            for at_s in range(round(plan.seconds))
        ]
        names = sorted(windows[0].operations)
        template = run(seconds=1)
        return msgspec.structs.replace(
            template,
            windows=windows,
            seconds=plan.seconds,
            offered_per_s=float(rate),
            achieved_per_s=min(plan.rate, self.peak),
            operations={name: summed([one.operations[name] for one in windows]) for name in names},
        )


def seek(system: System, **plan: float) -> tuple[Seeker, list[str]]:
    said: list[str] = []
    search = Plan(start=100.0, ceiling=50_000.0, **plan)
    return Seeker(system, PLAN, OBJECTIVE, search, PACE, said.append, lambda _: None), said


def test_capacity_of_a_known_system_is_found_and_its_record_is_whole(tmp_path: Path) -> None:
    system = System(2000.0)
    seeker, said = seek(system)
    result = seeker.search()
    # p99 of reads is about 3.3 medians and one operation in twenty is three times as slow: 5 medians of 1 / (1 - load).
    assert result.found
    assert 0.68 * 2000 < result.rate < 0.82 * 2000
    assert result.above is not None
    assert result.rate < result.above <= 1.05 * result.rate
    assert result.binding == "all.p99<20ms"
    assert len(said) == len(result.probes)
    assert result.confirmed is not None
    assert result.confirmed.offered_per_s == pytest.approx(result.rate, abs=1)
    assert result.confirmed.seconds == 9
    assert result.refuted is not None
    save_search(tmp_path / "search.json", result)
    again = load_search(tmp_path / "search.json")
    assert again == result
    assert "gives way first" in page_of_search(again)


class Interrupted(System):
    """Ctrl-C in the middle of its nth run."""

    def __init__(self, peak: float, at: int) -> None:
        super().__init__(peak)
        self.at = at

    def run(self, plan: RunPlan, tick: Callable[[Progress], None] = lambda _: None) -> RunResult:
        if len(self.plans) + 1 == self.at:
            raise KeyboardInterrupt
        return super().run(plan, tick)


def test_interrupted_search_keeps_what_it_knows(tmp_path: Path) -> None:
    seeker, said = seek(Interrupted(2000.0, at=12))
    result = seeker.search()
    assert result.end == "interrupted"
    assert not result.found
    assert len(result.probes) == len(said) > 5
    assert "the capacity is not known" in result.says
    save_search(tmp_path / "search.json", result)
    assert "Interrupted" in page_of_search(load_search(tmp_path / "search.json"))


class Blind(System):
    """Its nth probe tells nothing of what readers saw."""

    def __init__(self, peak: float, at: int) -> None:
        super().__init__(peak)
        self.at = at

    def run(self, plan: RunPlan, tick: Callable[[Progress], None] = lambda _: None) -> RunResult:
        result = super().run(plan, tick)
        probes = sum(plan.warmup_s > 0 for plan in self.plans)
        return msgspec.structs.replace(result, consistency=None) if plan.warmup_s and probes == self.at else result


def test_probe_that_measured_less_than_those_before_it_is_no_vote_and_ends_nothing() -> None:
    said: list[str] = []
    objective, plan = parse("all.p99<20ms & vis.p99<1s"), Plan(start=100.0, ceiling=50_000.0)
    result = Seeker(Blind(2000.0, at=5), PLAN, objective, plan, PACE, said.append, lambda _: None).search()
    assert result.found
    assert sum("unlike the ones before it" in line for line in said) == 1
    with pytest.raises(NotMeasured):
        Seeker(Blind(2000.0, at=1), PLAN, objective, plan, PACE, said.append, lambda _: None).search()


def test_search_interrupted_before_its_first_probe_has_nothing_to_tell() -> None:
    seeker, _ = seek(Interrupted(2000.0, at=2))
    with pytest.raises(KeyboardInterrupt):
        seeker.search()


def test_no_probe_goes_beyond_the_limit_and_each_has_a_seed_of_its_own() -> None:
    system = System(1e9)
    seeker, _ = seek(system, share=0.01)
    result = seeker.search()
    assert result.end == "generator"
    assert max(plan.rate for plan in system.plans) <= 500 * (1 + 1e-9)
    probes = [plan.seed for plan in system.plans if plan.warmup_s]
    assert len(set(probes)) == len(probes)


def test_after_a_miss_the_system_is_given_time_to_rest() -> None:
    system = System(2000.0, restless=2)
    seeker, said = seek(system)
    assert seeker.search().found
    assert sum("not at rest" in line for line in said) == 2


def test_system_that_does_not_come_to_rest_ends_the_search() -> None:
    seeker, _ = seek(System(2000.0, restless=1000))
    result = seeker.search()
    assert result.end == "no recovery"
    assert "did not come back to rest" in result.says


def test_windows_that_the_generator_spoiled_are_no_votes() -> None:
    seeker, said = seek(System(1e9, spoil_above=900))
    result = seeker.search()
    assert result.end == "generator"
    assert 400 < result.rate <= 900
    assert any("invalid" in line and "9 ms late" in line for line in said)


class Shared(System):
    """Others have most of the machine in every fourth run, and then nothing is quick."""

    def run(self, plan: RunPlan, tick: Callable[[Progress], None] = lambda _: None) -> RunResult:
        busy = plan.warmup_s > 0 and len(self.plans) % 4 == 3
        found = super().run(msgspec.structs.replace(plan, rate=0.999 * self.peak) if busy else plan, tick)
        if not busy:
            return found
        # The generator is late as well, and it is not its fault.
        taken = [msgspec.structs.replace(one, others_cores=1000.0, invalid="late") for one in found.windows]
        return msgspec.structs.replace(found, windows=taken)


def test_windows_in_which_other_work_had_the_processors_are_no_votes() -> None:
    seeker, said = seek(Shared(2000.0))
    result, calm = seeker.search(), seek(System(2000.0))[0].search()
    assert result.rate == pytest.approx(calm.rate, rel=0.03)
    assert any("other work used 1000.0 processors" in line for line in said)
    assert [probe.others_cores for probe in result.probes if "disturbed" in probe.windows]


def test_work_of_servers_that_run_already_is_not_taken_for_that_of_others() -> None:
    target = TargetPlan(cache_url="redis://127.0.0.1:1")
    plan = msgspec.structs.replace(PLAN, target=target)
    search = Plan(start=800.0, ceiling=50_000.0, tolerance=0.5)
    result = Seeker(Shared(2000.0), plan, OBJECTIVE, search, PACE, lambda _: None, lambda _: None).search()
    assert not any("disturbed" in probe.windows for probe in result.probes)


def test_record_keeps_the_long_run_of_a_vote_that_went_on() -> None:
    class Spoiled(System):
        """Two windows of every long probe say nothing, so that it is asked once more for two."""

        def run(self, plan: RunPlan, tick: Callable[[Progress], None] = lambda _: None) -> RunResult:
            found = super().run(plan, tick)
            if plan.seconds < 9:
                return found
            late = [msgspec.structs.replace(one, invalid="late") if one.at_s < 2 else one for one in found.windows]
            return msgspec.structs.replace(found, windows=late)

    seeker, _ = seek(Spoiled(2000.0))
    result = seeker.search()
    assert result.confirmed is not None
    assert result.refuted is not None
    assert (result.confirmed.seconds, result.refuted.seconds) == (9, 9)
    assert [probe.seconds for probe in result.probes if probe.phase == "confirm"][:2] == [9, 2]


class Seen(System):
    """A handful of changes are watched in each run: `slow` says of which plans one of them took five seconds."""

    def __init__(self, slow: Callable[[System, RunPlan], bool]) -> None:
        super().__init__(2000.0)
        self._slow = slow

    def run(self, plan: RunPlan, tick: Callable[[Progress], None] = lambda _: None) -> RunResult:
        found = super().run(plan, tick)
        assert found.consistency is not None
        slowest_ms = 5000 if self._slow(self, plan) else 30
        lag = Latency.of(Histogram.of(np.asarray([20_000_000] * 11 + [slowest_ms * 1_000_000])))
        seen = msgspec.structs.replace(found.consistency.visibility, lag=lag)
        consistency = msgspec.structs.replace(found.consistency, visibility=seen)
        return msgspec.structs.replace(found, consistency=consistency)


def rate_of(system: System) -> tuple[float, str]:
    wanted = parse(f"{OBJECTIVE.text} & vis.p99<1s")
    seeker = Seeker(system, PLAN, wanted, Plan(start=100.0, ceiling=50_000.0), PACE, lambda _: None, lambda _: None)
    result = seeker.search()
    assert result.found
    return result.rate, result.binding


def test_one_slow_look_of_a_handful_is_not_believed_at_once() -> None:
    blips = Seen(lambda system, _: len(system.plans) in (4, 20))
    calm = Seen(lambda system, _: False)
    assert rate_of(blips)[0] == pytest.approx(rate_of(calm)[0], rel=0.05)


def test_changes_that_are_seen_late_above_a_rate_are_believed() -> None:
    rate, binding = rate_of(Seen(lambda _, plan: plan.rate > 700))
    assert 0.9 * 700 < rate <= 700
    assert binding == "vis.p99<1s"


def test_objective_that_the_target_cannot_tell_is_refused() -> None:
    search = Plan(start=100.0, ceiling=50_000.0)
    seeker = Seeker(System(500.0), PLAN, parse("scan.p99<1s"), search, PACE, lambda _: None, lambda _: None)
    with pytest.raises(NotMeasured, match=r"scan\.p99"):
        seeker.search()


def test_generator_may_be_late_by_a_share_of_the_tightest_bound() -> None:
    assert lag_allowed_ms(PLAN, parse("get.p99<40ms & all.p50<20ms & vis.p99<1ms")) == 5.0
    assert lag_allowed_ms(PLAN, parse("get.p99<1ms")) == 1.0
    assert lag_allowed_ms(PLAN, parse("errors<1%")) == PLAN.lag_p99_ms_max
