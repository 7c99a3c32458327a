"""The record of one run: what JSON files hold, and what comparisons and reports are made of.

Every figure that a person reads is here by name; every latency is also here as a histogram
(HdrHistogram's V2 encoding), so that runs, seconds and processes can be put together afterwards.
Times are seconds since the shared start unless a name says otherwise; `SCHEMA` names this shape,
and a change that old readers would misread gives it a new number.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from cachelib.errors import CacheError
from loadgen.histogram import Histogram

SCHEMA = "loadgen-result/1"


class NotAResult(CacheError):
    """A file does not hold the record of a run."""


class Latency(msgspec.Struct, frozen=True, omit_defaults=False):
    """Durations. `hdr` holds them all; the percentiles beside it are for readers of JSON."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0
    hdr: str = ""

    @classmethod
    def of(cls, histogram: Histogram) -> Latency:
        """From a histogram; an empty one has no encoding."""
        if not histogram.count:
            return cls()
        at = {percent: round(histogram.percentile_ms(percent), 6) for percent in (50, 90, 99, 99.9, 100)}
        places = (at[50], at[90], at[99], at[99.9], at[100])
        return cls(histogram.count, round(histogram.mean_ms, 6), *places, histogram.encode())

    @property
    def histogram(self) -> Histogram:
        """All durations, nanoseconds."""
        return Histogram.decode(self.hdr) if self.hdr else Histogram.empty()


class Operation(msgspec.Struct, frozen=True):
    """One kind of operation (get, multiget, set, delete, ...), over the measured seconds or one of them.

    `latency` counts from the intended start, `service` from the actual one; both of operations that
    did not fail. `offered` were meant to start, `achieved` ended without an error.
    """

    offered: int
    achieved: int
    errors: dict[str, int]
    """By the type of what was raised."""
    latency: Latency
    service: Latency


class Window(msgspec.Struct, frozen=True):
    """One second. An operation belongs to the second in which it was *meant to start*."""

    at_s: int
    phase: str
    """"warmup" or "measured"."""
    operations: dict[str, Operation]
    sources: dict[str, int]
    """Reads by where the value came from: hit, local, filled, joined, stale, store, miss."""
    lag: Latency
    """How late operations began by the generator's own fault: see `Lane.due_ns`."""
    invalid: str
    """Why this second says nothing, in a sentence; empty: it counts."""
    stale: int
    checked: int
    """Reads that the oracle judged; `stale`: those of them that it found stale."""
    origin_reads: int
    origin_writes: int
    generator_cores: float
    """Processor seconds of the workers in this second."""
    ended: int = 0
    """Operations that ended *in* this second without an error, whenever they were meant to start."""
    others_cores: float = 0.0
    """Processors that everything used that is no part of the run (also a server that it did not start)."""

    @property
    def offered(self) -> int:
        """Of all operations."""
        return sum(one.offered for one in self.operations.values())

    @property
    def achieved(self) -> int:
        """Of all operations."""
        return sum(one.achieved for one in self.operations.values())

    @property
    def errors(self) -> int:
        """Of all operations."""
        return sum(sum(one.errors.values()) for one in self.operations.values())


class Ratio(msgspec.Struct, frozen=True):
    """`part` of `whole`, with the 95 % interval (Wilson's) of the share: of none in n, about 0 to 3/n."""

    part: int
    whole: int
    share: float
    low: float
    high: float


class Stale(msgspec.Struct, frozen=True):
    """Reads of one level from one source, and how old the stale ones were."""

    level: str
    source: str
    ratio: Ratio
    age: Latency
    """At the start of the read, since the commit that made its value old."""
    behind_max: int
    """The most versions that a read was behind."""


class Nines(msgspec.Struct, frozen=True):
    """The share of writes without a stale read later than `within_s` after their commit.

    `nines` is -log10 of the share of late writes, and never more than `resolvable`, which is what
    the number of writes can show: none late in n says only that fewer than about 3/n were.
    """

    within_s: float
    writes: int
    late: int
    nines: float
    resolvable: float


class Visibility(msgspec.Struct, frozen=True):
    """From the end of a commit to the first read after which no read showed an older value."""

    lag: Latency
    unseen: int
    """Changes that no read had seen when the run ended."""
    poll_gap_ms: float
    """The resolution: the median time between two looks at one key."""


class LevelFound(msgspec.Struct, frozen=True):
    """Reads of one level: `broken` counts what it promises never to show, `beyond` what was older than the bound."""

    level: str
    reads: int
    stale: int
    backwards: int
    own_missed: int
    beyond: int
    broken: int = 0


class Consistency(msgspec.Struct, frozen=True):
    """What the oracle found in the measured seconds."""

    ratio: Ratio
    """Stale reads of all reads that were checked."""
    stale: list[Stale]
    nines: list[Nines]
    visibility: Visibility
    backwards: int
    """Monotonic reads: a thread read something older than it had read before."""
    own_missed: int
    """Read your writes: a thread read something older than it had itself written."""
    wrong: int
    """Values of other keys, or that nobody wrote."""
    levels: list[LevelFound] = []


class Origin(msgspec.Struct, frozen=True):
    """The store's load, and what the cache spares it; over the measured seconds."""

    reads: int
    writes: int
    reads_per_s: float
    reads_per_s_max: float
    """The worst second."""
    client_reads: int
    needed: int
    """Distinct pairs of a key and a version (or absence) that had to be loaded at least once."""
    amplification: float
    """`reads / needed`: 1 is ideal, 0 where nothing was needed."""
    herd_total_max: int
    """The most loads of one key at one version."""
    herd_at_once_max: int
    """The most loads of one key at one version that ran at the same time."""


class Usage(msgspec.Struct, frozen=True):
    """What a process cost over the measured seconds. `cores`: processor seconds a second."""

    pid: int
    cores: float
    rss_mb_max: float


class Host(msgspec.Struct, frozen=True):
    """Where it ran."""

    name: str
    system: str
    processors: int
    memory_mb: int


class Mark(msgspec.Struct, frozen=True):
    """Something happened: a fault, or its end. `kind` is one word, `text` is for people."""

    at_s: float
    kind: str
    text: str


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `invalid`: the reasons why it says nothing, in sentences; none: it is valid."""

    format: str = SCHEMA
    label: str
    started: str
    """ISO 8601, UTC."""
    host: Host
    versions: dict[str, str]
    seed: int
    config: dict[str, Any]
    """The plan as it was run; `config_hash` is over it without seed and label."""
    config_hash: str
    target: str
    processes: int
    seconds: float
    """Measured, without the warm-up."""
    warmup_s: float
    offered_per_s: float
    achieved_per_s: float
    """Of those that ended within the measured seconds: above capacity it is the capacity."""
    operations: dict[str, Operation]
    sources: dict[str, int]
    errors: dict[str, int]
    lag: Latency
    windows: list[Window]
    consistency: Consistency | None = None
    origin: Origin | None = None
    """None: the target has no store; nor an oracle, of `consistency`."""
    generator: list[Usage]
    servers: dict[str, Usage]
    marks: list[Mark] = []
    invalid: list[str] = []

    @property
    def measured(self) -> list[Window]:
        """The seconds that count, valid or not."""
        return [window for window in self.windows if window.phase == "measured"]

    @property
    def hit_ratio(self) -> float:
        """Reads that the cache served (hit or local) of all that were answered; 0 of none."""
        total = sum(self.sources.values())
        return (self.sources.get("hit", 0) + self.sources.get("local", 0)) / total if total else 0.0


def save_result(path: Path, result: RunResult) -> None:
    """Write it as JSON. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load_result(path: Path) -> RunResult:
    """Raises `NotAResult`, or `OSError`."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=RunResult)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise NotAResult(f"{path} is not the record of a run: {error}. Write one with --json") from error
    if result.format != SCHEMA:
        raise NotAResult(f"{path} is {result.format!r}, this program reads {SCHEMA!r}: make it again")
    return result


def schema() -> dict[str, Any]:
    """The JSON Schema of the record."""
    return msgspec.json.schema(RunResult)


def config_hash(config: dict[str, Any]) -> str:
    """Of what was asked, without seed and label: two runs with one hash may be compared."""
    asked = {name: value for name, value in config.items() if name not in ("seed", "label")}
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:16]
