"""From the record of a run to the measures that an objective names: of all of it, or of some of its seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from loadgen.histogram import Histogram
from loadgen.objective import PLAIN, Measures
from loadgen.result import Operation, RunResult, Window

NEVER = float("inf")
"""The latency of operations of which none ended."""
OF_THE_RUN: Final = ("vis", "stale.age")
"""Distributions of which a second does not know its own: every window of a run has the same."""
NOTHING: Final = (0.0, 0)
"""A share of no samples: seconds in which nothing was answered measure it, badly; other clauses say why."""


def measures_of(result: RunResult, names: Iterable[str]) -> Measures:
    """The named measures over the seconds that count; what the run did not measure is left out."""
    return Seconds(result, [one for one in result.measured if not one.invalid]).measures(names)


def slices(result: RunResult, count: int) -> list[Seconds]:
    """The measured seconds in so many parts, as equal as whole seconds can be."""
    windows, parts = result.measured, []
    for number in range(count):
        part = windows[number * len(windows) // count : (number + 1) * len(windows) // count]
        parts.append(Seconds(result, part))
    return parts


class Seconds:
    """Some seconds of a run. What is known only of the whole run (visibility, ages, herds) is taken from it."""

    def __init__(self, result: RunResult, windows: Sequence[Window]) -> None:
        self._result = result
        self._windows = windows

    @property
    def invalid(self) -> str:
        """Why these seconds say nothing; empty: they count."""
        if not self._windows:
            return "no second was measured"
        return next((window.invalid for window in self._windows if window.invalid), "")

    @property
    def others_cores(self) -> float:
        """Processors that others used, on average."""
        return sum(window.others_cores for window in self._windows) / max(1, len(self._windows))

    def measures(self, names: Iterable[str]) -> Measures:
        """See `measures_of`."""
        values: dict[str, float] = {}
        samples: dict[str, int] = {}
        for name in names:
            for value, count in self._measure(name):
                values[name] = value
                if count is not None:
                    samples[name] = count
        return Measures(values, samples)

    def _measure(self, name: str) -> Iterator[tuple[float, int | None]]:
        """Its value, and of how many; nothing where it was not measured."""
        plain = self._plain(name)
        if plain is not None:
            yield plain
        if name in PLAIN:
            return
        of, place = _placed(name)
        found = self._durations(of)
        if found is None:
            return
        if not found.count:
            # Of operations that were offered and of which none ended, nobody knows the latency: it is not small.
            yield NEVER, 0
        elif place == "mean":
            yield found.mean_ms, found.count
        else:
            yield found.percentile_ms(100.0 if place == "max" else float(place[1:])), found.count

    def _plain(self, name: str) -> tuple[float, int | None] | None:
        windows, width = self._windows, max(1, len(self._windows))
        offered = sum(one.offered for one in windows)
        match name:
            case "offered":
                return offered / width, None
            case "achieved":
                return sum(one.ended for one in windows) / width, None
            case "errors":
                return _ratio(sum(one.errors for one in windows), offered) or NOTHING
            case "hit.ratio":
                served = sum(one.sources.get("hit", 0) + one.sources.get("local", 0) for one in windows)
                found = _ratio(served, sum(sum(one.sources.values()) for one in windows))
                return found or (NOTHING if self._result.sources else None)
        return self._of_oracle(name) or self._of_store(name)

    def _of_oracle(self, name: str) -> tuple[float, int | None] | None:
        found = self._result.consistency
        if found is None:
            return None
        match name:
            case "stale.ratio":
                found_stale = sum(one.stale for one in self._windows), sum(one.checked for one in self._windows)
                return _ratio(*found_stale) or NOTHING
            case "monotonic.violations":
                return float(found.backwards), None
            case "ryw.violations":
                return float(found.own_missed), None
            case "wrong.values":
                return float(found.wrong), None
            case "promises.broken":
                return float(sum(one.broken for one in found.levels) + found.wrong), None
        return None

    def _of_store(self, name: str) -> tuple[float, int | None] | None:
        found = self._result.origin
        if found is None:
            return None
        match name:
            case "origin.qps":
                return sum(one.origin_reads for one in self._windows) / max(1, len(self._windows)), None
            case "origin.amplification":
                return found.amplification, None
            case "herd.factor":
                return float(found.herd_total_max), None
        return None

    def _durations(self, of: str) -> Histogram | None:
        found = self._result.consistency
        match of:
            case "lag":
                return Histogram.sum_of(one.lag.histogram for one in self._windows)
            case "vis":
                seen = found.visibility if found else None
                if seen is None or not (seen.lag.histogram.count or seen.unseen):
                    return None
                # What nobody saw took at least as long as there was to see it; to leave it out would flatter.
                never = [self._result.seconds * 1e9] * seen.unseen
                return Histogram.sum_of((seen.lag.histogram, Histogram.of(never)))
            case "stale.age":
                if found is None:
                    return None
                ages = Histogram.sum_of(one.age.histogram for one in found.stale)
                # No stale read at all: none is older than anything.
                return ages if ages.count else Histogram.of([0])
        name, _, view = of.partition(".")
        parts = [operation for window in self._windows for operation in _operations(window, name)]
        if not any(part.offered for part in parts):
            return None
        return Histogram.sum_of((part.service if view else part.latency).histogram for part in parts)


def _operations(window: Window, name: str) -> Iterator[Operation]:
    if name == "all":
        yield from window.operations.values()
    elif name in window.operations:
        yield window.operations[name]


def _placed(name: str) -> tuple[str, str]:
    """What `get.service.p99.9` is of, and the place."""
    for place in (".mean", ".max"):
        if name.endswith(place):
            return name[: -len(place)], place[1:]
    at = name.rindex(".p")
    return name[:at], name[at + 1 :]


def _ratio(part: int, whole: int) -> tuple[float, int | None] | None:
    return (part / whole, whole) if whole else None
