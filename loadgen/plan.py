"""What a run is asked to do: a workload at a rate, for a time, against a target, by so many processes.

It is read from and written as JSON, so that a record says what was run, and a worker on another
machine gets the same text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cachelib.errors import ConfigError
from loadgen.arrivals import FLAT, Gaps, NotNegative, Profile
from loadgen.pinning import NOWHERE, Pins
from loadgen.workloads.popularity import Share
from loadgen.workloads.workload import Workload

Count = Annotated[int, Meta(ge=1)]
THREADS_MAX = 256
PROCESSES_MAX = 256
OPERATIONS_MAX = 20_000_000
"""Of one worker: they are all drawn before the start, about 60 bytes each."""


class TargetPlan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is put under load.

    `null` answers at once, and shows what the generator itself can do; `library` is cachelib over a
    store; `wire` speaks the cache's own protocol.
    """

    kind: Literal["null", "library", "wire"] = "library"
    backend: Literal["redis", "memcached"] = "redis"
    """What is started where no `cache_url` is given."""
    cache_url: str = ""
    store_url: str = ""
    namespace: str = ""
    style: Literal["threads", "asyncio"] = "threads"
    """Of `library`."""
    threads: Annotated[int, Meta(ge=1, le=THREADS_MAX - 2)] = 1
    """Of each process, or of asyncio the most operations under way at a time (times 64)."""
    connections: Count = 4
    """Of each process, of `wire`."""
    fill: bool = True
    """A get of `wire` that finds nothing is followed by a set, as a look-aside cache does."""
    strong_share: Share = 0.0
    """Of the keys of `library` are read and written as Strong."""
    session_share: Share = 0.0
    """Of the keys are read and written by a session of each thread (of asyncio: of each process)."""
    bounded_share: Share = 0.0
    """Of the keys are read as Bounded; the other keys as Eventual."""
    bounded_ms: Annotated[float, Meta(ge=1)] = 1000.0
    """How old a bounded read may be."""
    l1_ms: NotNegative = 0.0
    """Eventual reads may be served for so long from a copy in the process; 0: there are no copies."""
    behind_share: Share = 0.0
    """Of the sets and deletes of keys that are not strong are plain SQL, behind the library."""
    probes_per_s: NotNegative = 0.0
    """Changes behind the library that are watched until they are seen, in each process."""
    origin_ms: NotNegative = 0.0
    """Every load of the store takes so much longer."""
    invalidator: bool = True

    def __post_init__(self) -> None:
        shares = self.strong_share + self.session_share + self.bounded_share
        if shares > 1 + 1e-9:
            raise ValueError(f"strong, session and bounded shares are together {shares:g}: a key has one level")


class Replay(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trace instead of drawn operations: at its own times divided by `factor`, or at a fixed rate."""

    path: str
    format: Literal["twitter", "meta"]
    factor: Annotated[float, Meta(gt=0)] = 1.0
    rate: Annotated[float, Meta(gt=0)] | None = None
    rows: Count | None = None
    """Read no more than so many."""


class RunPlan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module. Rates are over all processes together."""

    workload: Workload
    target: TargetPlan = TargetPlan()
    rate: Annotated[float, Meta(gt=0)] = 1000.0
    """Operations a second; of a closed loop only how many are drawn beforehand."""
    seconds: Annotated[float, Meta(gt=0)] = 10.0
    """Measured."""
    warmup_s: NotNegative = 2.0
    """Under load before that; its seconds are recorded, and count nowhere."""
    trace: Replay | None = None
    """Replayed in place of the workload, whose other settings then say nothing; `rate` does not either."""
    prefill: bool = True
    """Every key is in the cache before the load begins."""
    loop: Literal["open", "closed"] = "open"
    gaps: Gaps | None = None
    """None: the workload's."""
    profile: Profile = FLAT
    """How the rate changes; its times count from the start of the warm-up."""
    processes: Annotated[int, Meta(ge=1, le=PROCESSES_MAX)] = 1
    seed: Annotated[int, Meta(ge=0)] = 1
    """Of arrivals and of what is asked when."""
    data_seed: Annotated[int, Meta(ge=0)] = 1
    """Of the keys: sizes, lives, levels, and which are popular. Runs on one bench share it."""
    lag_p99_ms_max: Annotated[float, Meta(gt=0)] = 20.0
    """A second whose generator lag exceeds this at the 99th percentile says nothing."""
    invalid_share_max: Share = 0.1
    """Where more of the measured seconds say nothing, the run says nothing."""
    pins: Pins = NOWHERE
    """Of the processes that the run starts."""
    label: str = ""

    def __post_init__(self) -> None:
        if self.rate * self.length_s / self.processes > OPERATIONS_MAX:
            raise ValueError(
                f"{self.rate:g} a second for {self.length_s:g} s are more than {OPERATIONS_MAX:,} operations for each"
                f" of {self.processes} processes: use more of them, or run shorter"
            )

    @property
    def length_s(self) -> float:
        """With the warm-up."""
        return self.seconds + self.warmup_s

    @property
    def operations(self) -> float:
        """About how many will be offered, over all processes."""
        return self.rate * self.length_s


def as_config(plan: RunPlan) -> dict[str, Any]:
    """For the record."""
    config: dict[str, Any] = msgspec.to_builtins(plan)
    return config


def plan_of(config: dict[str, Any]) -> RunPlan:
    """From a record. Raises `ConfigError`."""
    try:
        return msgspec.convert(config, RunPlan)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the plan of a run: {error}") from error
