"""When operations are meant to start.

Open loop: the times are fixed beforehand, whatever the answers take, and latency counts from the
intended start: an operation that had to wait for a slow one before it was slow itself. Closed
loop: each starts when the one before has ended; its latency says nothing about waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal, TypeAlias

import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from cachelib.errors import ConfigError
from cachelib.policy import one_of
from loadgen.workloads.sizes import gpareto

Arrivals: TypeAlias = Literal["poisson", "constant", "closed"]
KINDS: tuple[Arrivals, ...] = ("poisson", "constant", "closed")
CHUNK = 4096
CLOSED = -1
"""Stands for "now" in a schedule."""


def schedule(kind: str, rate_per_s: float, start_ns: int, random: np.random.Generator) -> Iterator[int]:
    """Intended starts on the monotonic clock, nanoseconds, for ever; `CLOSED` each time in a closed loop."""
    one_of("arrivals", kind, KINDS)
    if kind == "closed":
        while True:
            yield CLOSED
    if rate_per_s <= 0:
        raise ConfigError(f"a rate of {rate_per_s} per second never comes: give one above 0, or arrivals closed")
    mean_ns = 1e9 / rate_per_s
    # Threads of one constant rate start at different moments, or they would come in bursts.
    at = float(start_ns) + (random.random() * mean_ns if kind == "constant" else 0.0)
    while True:
        gaps = random.exponential(mean_ns, CHUNK) if kind == "poisson" else np.full(CHUNK, mean_ns)
        times = at + np.cumsum(gaps)
        yield from times.astype(np.int64).tolist()
        at = float(times[-1])


# --- all of a worker's starts at once -------------------------------------------------------------

NotNegative: TypeAlias = Annotated[float, Meta(ge=0)]
Seconds: TypeAlias = NDArray[np.float64]
GRID_S = 0.005
"""A changing rate is taken as constant for so long."""
AHEAD = 1.05


class Poisson(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="poisson"):
    """Independent users: exponential gaps."""


class Constant(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="constant"):
    """Even gaps, also over all workers together."""


class GeneralisedPareto(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gpareto"):
    """Gaps as in `fb-etc`: burstier than Poisson. Only the shape counts, the scale follows from the rate."""

    shape: Annotated[float, Meta(ge=0, lt=1)] = 0.154971


Gaps: TypeAlias = Poisson | Constant | GeneralisedPareto


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """How the rate changes: points of a time in seconds and a factor of the rate. `steps`: the factor holds until the
    next point; else it runs straight to it. Before the first and after the last point the nearest one holds.
    """

    points: list[tuple[NotNegative, NotNegative]] = field(default_factory=lambda: [(0.0, 1.0)])
    steps: bool = False

    def __post_init__(self) -> None:
        times = [at for at, _ in self.points]
        if not times or times != sorted(times):
            raise ValueError("points of a profile must rise in time, and there must be one")

    def factors(self, at_s: Seconds) -> Seconds:
        """The factor at each time."""
        times, factors = np.asarray(self.points, dtype=np.float64).T
        if self.steps:
            place = np.clip(np.searchsorted(times, at_s, side="right") - 1, 0, len(times) - 1)
            held: Seconds = factors[place]
            return held
        between: Seconds = np.interp(at_s, times, factors)
        return between


FLAT = Profile()


class Starts:
    """When one worker of several is to start each of its operations.

    Arrivals come at rate 1 on a clock of their own that runs faster where the rate is higher. Poisson
    and constant arrivals are thinned exactly (a part of a Poisson stream is one); of others each
    worker draws all and takes its turn, so together they are what was asked however many there are.
    """

    def __init__(
        self, gaps: Gaps, profile: Profile, rate_per_s: float, seconds: float, *, seed: int, worker: int, workers: int
    ) -> None:
        if rate_per_s <= 0:
            raise ConfigError(f"a rate of {rate_per_s} per second never comes: give one above 0")
        self._gaps, self._worker, self._workers = gaps, worker, workers
        dealt = isinstance(gaps, GeneralisedPareto)
        self._random = np.random.default_rng([seed, 0 if dealt else worker + 1, 1])
        # Half a grid step on: where the factor jumps, each small interval lies on one side of it.
        self._grid = np.arange(0.0, seconds + GRID_S, GRID_S)
        factors = profile.factors(self._grid[:-1] + GRID_S / 2)
        self._counts = rate_per_s * np.concatenate(([0.0], np.cumsum(factors * GRID_S)))
        self._end = float(np.interp(seconds, self._grid, self._counts))

    def all(self) -> Seconds:
        """Seconds since the shared start, rising, before the end."""
        times = self._own()
        starts: Seconds = np.interp(times[times < self._end], self._counts, self._grid)
        return starts

    def _own(self) -> Seconds:
        """On the arrivals' own clock."""
        match self._gaps:
            case Constant():
                return np.arange(self._worker, self._end, self._workers, dtype=np.float64) + 0.5
            case Poisson():
                return _renewals(lambda count: self._random.exponential(self._workers, count), self._end, self._workers)
            case GeneralisedPareto(shape=shape):
                every = _renewals(lambda count: gpareto(self._random, count, 1 - shape, shape), self._end, 1)
                return every[self._worker :: self._workers]


def _renewals(gaps: Callable[[int], Seconds], end: float, mean: float) -> Seconds:
    """Sums of gaps, beyond the end."""
    parts, at = [], 0.0
    while at <= end:
        part = at + np.cumsum(gaps(max(64, int((end - at) / mean * AHEAD) + 1)))
        parts.append(part)
        at = float(part[-1])
    return np.concatenate(parts)
