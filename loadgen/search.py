"""The highest rate at which an objective holds: a machine without clock, chance or world.

It asks for probes and is told how they ended; `loadgen.seek` makes them. The order of its questions:

    ramp     times `growth` from `start` until a rate misses, or down by it until one holds
    bisect   between the highest rate that held and the lowest that missed, until they are `near` each other
    confirm  the rate that is left, at `confirm_times` the length; where it misses, steps down of 2, 4, 8 … %
    climb    the lowest that missed, or what was confirmed and half the tolerance more: that must miss, else up again
    again    what was confirmed, after all of that: it must hold in two long probes in a row, else steps down of 2 %

so a rate is found when it holds over a long time, holds again later, *and* a rate above does not; between the two the
system is at its knee, where each probe ends as chance will. Before each probe the
system is drained: above its capacity a probe leaves a backlog, and the next one would measure that.
A short probe is `windows` windows long, the majority counts, and a split one goes on to `windows_most`.
Of a long one two thirds must hold, of one above what was confirmed more (`CLEAR`), and of the last two of what is
found together `clear`: the highest of many rates at the knee would be the luckiest. Windows that the generator
itself spoiled are no votes, nor are those in which other work had the processors, nor what misses right after them.
What nobody saw disturb it can only make a probe worse, never better: a rate that was refuted is asked again, until
it has missed in two long probes more than it held in, or holds after all. All votes of all probes say between which
rates the capacity lies (`evidence.py`); where that reaches above the refuted rate, other probes contradict it, and
it is asked once more.

No probe is above `share` of the generator's own ceiling: there the generator would be measured.
Ideas: mutilate's bisection and step down; guidellm's and hazelcast-simulator's confirmation and drains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadgen.evidence import between
from loadgen.probing import (
    CLEAR,
    HOLDS,
    LONG,
    LONG_SHARE,
    MISSES,
    NEAR,
    NEVER,
    SPOILED_STEP,
    Ask,
    Drain,
    End,
    Finding,
    Phase,
    Plan,
    Probe,
    Probed,
    Window,
    without_aftermath,
)


@dataclass(frozen=True, slots=True)
class State:
    """Where a search stands; each answer gives the next state. `ask` says what it wants to know."""

    plan: Plan
    phase: Phase = "ramp"
    rate: float = 0.0
    low: float = 0.0
    """The highest rate that held, of short probes."""
    high: float = NEVER
    confirmed: float = 0.0
    refuted: float = NEVER
    """Of long probes."""
    step: float = 0.0
    at_rest: bool = False
    drains: int = 0
    votes: tuple[tuple[Window, str], ...] = ()
    spoiled: int = 0
    disturbed: int = 0
    asked_again: int = 0
    """Times that a refuted rate was."""
    lowered: int = 0
    """Times that a rate held once and not again."""
    ending: End = End.FOUND
    """How the search ends once its rate has held again."""
    log: tuple[Probed, ...] = ()
    end: End | None = None
    missed_by: tuple[tuple[float, str], ...] = ()
    """Rate and clause of every window that missed in a probe that missed."""

    @property
    def ask(self) -> Ask:
        """The next question."""
        if self.end is not None:
            above = self.refuted if self.refuted < NEVER else self.high
            return Finding(self.end, self.confirmed, max(above, self.confirmed), self._binding(), *self._between())
        if not self.at_rest:
            return Drain()
        return Probe(self.rate, self._windows_wanted(), self.phase)

    def drained(self, clean: bool) -> State:
        """The system is at rest, or it is not after all the time that a drain gets."""
        if clean:
            return replace(self, at_rest=True, drains=0)
        if self.drains + 1 >= self.plan.drains_most:
            return replace(self, end=End.NO_RECOVERY)
        return replace(self, drains=self.drains + 1)

    def probed(self, windows: Sequence[tuple[Window, str]]) -> State:
        """How each window of the probe ended, with the clause that missed it."""
        windows = without_aftermath(windows)
        valid = tuple(one for one in windows if one[0] in (Window.HELD, Window.MISSED))
        disturbed = self.disturbed + sum(1 for one, _ in windows if one is Window.DISTURBED)
        spoiled = self.spoiled + sum(1 for one, _ in windows if one is Window.INVALID)
        state = replace(self, votes=self.votes + valid, spoiled=spoiled, disturbed=disturbed, at_rest=False)
        if not valid:
            if disturbed >= self.plan.disturbed_most * self._least():
                return state._logged(Window.DISTURBED)._over(End.DISTURBED)
            tries = spoiled >= self.plan.spoiled_most * self._least()
            return state._logged(Window.INVALID)._spoiled() if tries else state
        verdict = state._verdict()
        return state if verdict is None else state._logged(verdict)._decided(verdict)

    # --- votes ---------------------------------------------------------------------------------

    @property
    def _long(self) -> bool:
        return self.phase in LONG

    def _least(self) -> int:
        return self.plan.windows * (self.plan.confirm_times if self._long else 1)

    def _windows_wanted(self) -> int:
        # A split vote goes on by two windows, that it may get a majority of two.
        return max(self._least() - len(self.votes), 2 if self.votes else 0)

    def _count(self, kind: Window) -> int:
        return sum(1 for window, _ in self.votes if window is kind)

    def _verdict(self) -> Window | None:
        held, missed = self._count(Window.HELD), self._count(Window.MISSED)
        if self._long:
            if len(self.votes) < self._least():
                return None
            share = CLEAR if self.phase == "climb" else LONG_SHARE
            return Window.HELD if held >= share * len(self.votes) else Window.MISSED
        if len(self.votes) < self._least():
            return None
        if abs(held - missed) < 2 and len(self.votes) < self.plan.windows_most:
            return None
        return Window.HELD if held > missed else Window.MISSED

    def _logged(self, verdict: Window) -> State:
        clauses = Counter(clause for window, clause in self.votes if window is Window.MISSED)
        binding = clauses.most_common(1)[0][0] if clauses else ""
        line = Probed(
            self.phase,
            self.rate,
            self._count(Window.HELD),
            self._count(Window.MISSED),
            self.spoiled + self.disturbed,
            binding,
            verdict,
        )
        missed_by = self.missed_by
        missed_by += tuple((self.rate, clause) for clause in clauses.elements()) if verdict is Window.MISSED else ()
        return replace(self, log=(*self.log, line), votes=(), spoiled=0, disturbed=0, missed_by=missed_by)

    def _binding(self) -> str:
        """What was missed most often by the lowest rates that missed: there the first clause gives way."""
        lowest = self.refuted if self.refuted < NEVER else min((rate for rate, _ in self.missed_by), default=0.0)
        near = lowest * (1 + 2 * self.plan.tolerance)
        clauses = Counter(clause for rate, clause in self.missed_by if self.confirmed < rate <= near)
        return clauses.most_common(1)[0][0] if clauses else ""

    # --- where to go next ----------------------------------------------------------------------

    def _decided(self, verdict: Window) -> State:
        if len(self.log) >= self.plan.probes_most:
            return self._over(End.UNSETTLED)
        held = verdict is Window.HELD
        if self._long:
            return self._after_long(held)
        if held:
            state = replace(self, low=max(self.low, self.rate))
        else:
            state = replace(self, high=min(self.high, self.rate))
        return state._after_short()

    def _after_short(self) -> State:
        plan = self.plan
        if self.low == 0:
            lower = self.rate / plan.growth
            return self._over(End.NOTHING_HOLDS) if lower < plan.lowest else self._to("ramp", lower)
        if self.high == NEVER:
            if self.low >= plan.limit * (1 - NEAR):
                return self._to("confirm", self.low)
            return self._to("ramp", min(self.low * plan.growth, plan.limit))
        if self.high > self.low * (1 + plan.near + NEAR):
            return self._to("bisect", (self.low * self.high) ** 0.5)
        return self._to("confirm", self.low)

    def _after_long(self, held: bool) -> State:
        if self.phase == "again":
            return self._after_again(held)
        good, bad = self._looks(self.rate)
        # It held after it had missed: where both are as many, one more decides.
        return self if held and good == bad else self._settled(held)

    def _looks(self, rate: float) -> tuple[int, int]:
        """How many long probes of a rate held, and how many missed."""
        found = [one.verdict for one in self._longs(rate)]
        return found.count(Window.HELD), found.count(Window.MISSED)

    def _settled(self, held: bool) -> State:
        plan = self.plan
        if held:
            state = replace(self, confirmed=self.rate)
            step = self.step * 2 if self.phase == "climb" else plan.tolerance / 2
        else:
            state = replace(self, refuted=self.rate)
            step = self.step * 2 if self.phase == "confirm" and self.step else plan.step_down
        if state.confirmed == 0:
            lower = self.rate * (1 - min(step, 0.5))
            state = replace(state, step=step)
            return state._over(End.NOTHING_HOLDS) if lower < plan.lowest else state._to("confirm", lower)
        if state.refuted <= state.confirmed * (1 + plan.near + NEAR):
            return state._agreed()
        if state.refuted < NEVER:  # a long step either way: what lies between
            return replace(state, step=0.0)._to("climb", (state.confirmed * state.refuted) ** 0.5)
        if state.confirmed >= plan.limit * (1 - NEAR):
            return state._once_more(End.GENERATOR)
        # What missed in a short probe is the likeliest to miss.
        near = state.confirmed < state.high <= state.confirmed * (1 + step + NEAR)
        higher = state.high if near else state.confirmed * (1 + step)
        return replace(state, step=step)._to("climb", min(higher, plan.limit))

    def _agreed(self) -> State:
        """The end is near, unless the rate that was refuted has to be asked again; see the module."""
        good, bad = self._looks(self.refuted)
        contradicted = self._between()[1] > self.refuted * (1 + NEAR) and not (self.plan.quick and self.asked_again)
        sure = bad - good >= MISSES and not contradicted
        if sure or self.asked_again >= self.plan.again_most:
            return self._once_more(End.FOUND)
        state = replace(self, asked_again=self.asked_again + 1, refuted=NEVER, step=self.plan.tolerance / 4)
        return state._to("climb", self.refuted)

    # --- what was confirmed has to hold again --------------------------------------------------

    def _once_more(self, end: End) -> State:
        state, last = replace(self, ending=end), self._longs(self.confirmed)[-HOLDS:]
        if len(last) < HOLDS or any(one.verdict is not Window.HELD for one in last):
            return state._to("again", self.confirmed)
        held, missed = sum(one.held for one in last), sum(one.missed for one in last)
        return state._over(end) if held >= self.plan.clear * (held + missed) else state._lower()

    def _longs(self, rate: float) -> list[Probed]:
        return [one for one in self.log if one.rate == rate and one.phase in LONG]

    def _after_again(self, held: bool) -> State:
        if held:
            return replace(self, confirmed=self.rate)._once_more(self.ending)
        missed = self._looks(self.rate)[1]
        # Once may be other work that nobody saw: what holds twice in a row after it is as good.
        return self if missed < MISSES else self._lower()

    def _lower(self) -> State:
        """A rate that held once and not again: the next one below it, so many times, until one holds in a row."""
        lower = self.rate * (1 - self.plan.step_down)
        # What held for long already has to hold once more only.
        known = [one.rate for one in self.log if one.phase in LONG and lower <= one.rate < self.rate]
        state = replace(self, confirmed=0.0, lowered=self.lowered + 1)
        if state.lowered > self.plan.lower_most or lower < self.plan.lowest:
            return state._over(End.UNSETTLED)
        return state._to(
            "again", max((rate for rate in known if self._longs(rate)[-1].verdict is Window.HELD), default=lower)
        )

    def _between(self) -> tuple[float, float]:
        weight = 1 / self.plan.windows  # windows of one short probe share its luck: together they are one vote
        return between((one.rate, one.held * weight, one.missed * weight) for one in self.log)

    def _spoiled(self) -> State:
        """With this target the generator reaches less than its ceiling: what held below is all that can be known."""
        if self.phase == "again":
            return replace(self, ending=End.GENERATOR)._lower()
        if self.confirmed:
            return self._once_more(End.GENERATOR)
        lower = self.rate * SPOILED_STEP if self._long else self.low
        if lower < self.plan.lowest or len(self.log) >= self.plan.probes_most:
            return self._over(End.SPOILED)
        plan = replace(self.plan, ceiling=lower / self.plan.share, start=min(self.plan.start, lower))
        return replace(self, plan=plan)._to("confirm", lower)

    def _to(self, phase: Phase, rate: float) -> State:
        return replace(self, phase=phase, rate=rate)

    def _over(self, end: End) -> State:
        return replace(self, end=end)


def begin(plan: Plan) -> State:
    """The first state."""
    return State(plan, rate=plan.start)
