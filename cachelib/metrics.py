"""Every counter of the library, its name and its meaning, once.

Counting must cost next to nothing on a hit: a counter is an `itertools.count`, whose step is
one C call and atomic under the GIL. `PrometheusCollector` and callbacks read from here.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from threading import Lock
from types import MappingProxyType
from typing import Any, TypeAlias

READS = "leasecache_reads_total"
EVENTS = "leasecache_events_total"
LOADS = "leasecache_loads_total"
WRITES = "leasecache_writes_total"
COMPARED = "leasecache_compared_total"
MISMATCHES = "leasecache_mismatches_total"
READ_SECONDS = "leasecache_read_seconds"
LOAD_SECONDS = "leasecache_load_seconds"

HELP: Mapping[str, str] = MappingProxyType(
    {
        READS: "Reads by where their value came from: hit, local, filled, joined, stale, store, error.",
        EVENTS: "What happened on the way, by event; see EVENT_HELP.",
        LOADS: "Keys that the store was asked for: found, absent or failed.",
        WRITES: "Keys whose change this process told the cache: confirmed or unconfirmed.",
        COMPARED: "Hits held against the store afterwards, by the level of the read; see Cache(compare=…).",
        MISMATCHES: "Those of them where the cache still served what the store no longer had, by level.",
        READ_SECONDS: "Duration of reads in seconds; hits are sampled, one of 16; local ones are not timed.",
        LOAD_SECONDS: "Duration of one ask of the store (one or many keys) in seconds.",
    }
)

EVENT_HELP: Mapping[str, str] = MappingProxyType(
    {
        "miss": "a read found nothing to serve at first look",
        "wait": "a reader paused because another holds the lease",
        "wait_gave_up": "a reader waited as long as its policy allows and asked the store itself",
        "fill_refused": "a load could not be stored: something newer was known, or the lease was lost",
        "fill_failed": "the node did not answer a fill",
        "undecodable": "an item of a smaller codec tag, or damaged; it was voided and refilled",
        "later_codec": "an item of a newer program was left alone; the store was asked",
        "too_large": "a value is too large to be kept",
        "replica": "a replica answered a read by the hit path; with ?replicas=eventual",
        "unreachable": "a node did not answer; the policy decided what happens",
        "server_changed": "another start of the server was met during a read, and the store was asked instead",
        "layout_unread": "the layout could not be read from the store; the old one stays for a moment",
        "layout_changed": "a different layout was taken up",
        "repeated_step": "a write's cache step was repeated because the layout had changed meanwhile",
        "epoch": "this process gave an entity a new epoch",
        "invalidated": "a key was revoked by hand",
        "claim_failed": "a key could not be claimed before a commit; the write then only puts over what is cached",
        "bulk": "a transaction changed too many rows (or truncated a table) and cost its entities a new epoch",
        "commit_unknown": "the store did not say how a commit ended; its keys were revoked",
    }
)

_LABELS = {
    **{READS: "source", EVENTS: "event", LOADS: "outcome", WRITES: "outcome"},
    **{COMPARED: "level", MISMATCHES: "level"},
}
HIT_SAMPLE = 15
"""A hit's duration is counted where its number has none of these bits: one of 16."""

BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Listener: TypeAlias = Callable[[str, str, Mapping[str, str]], None]
"""Called with a metric's name, the entity's name and the labels, for each step but plain hits."""


_guard = Lock()
"""One for all that counts here: it is held for less than a microsecond."""


def _after_fork() -> None:
    """Another thread may have held it at the fork; in the child nobody would give it back."""
    global _guard  # noqa: PLW0603 - the old one cannot be used again
    _guard = Lock()


os.register_at_fork(after_in_child=_after_fork)


class Counter:
    """A number that only rises; `step()` adds one."""

    __slots__ = ("_count", "numbers", "step")

    def __init__(self) -> None:
        self._count = count()
        self.step = self._count.__next__
        self.numbers: Iterator[int] = self._count
        """`next` of it is `step`."""

    def steps(self, times: int) -> None:
        """`step` so many times."""
        deque(islice(self._count, times), maxlen=0)  # consumed in C

    @property
    def value(self) -> int:
        """How many steps so far."""
        return int(repr(self._count)[6:-1])  # "count(5)": the one way to look that takes no step


class Histogram:
    """Counts by bucket and their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        with _guard:
            self.counts[bisect_left(BUCKETS_S, seconds)] += 1
            self.total_s += seconds


class Tally:
    """The counters of one entity."""

    def __init__(self, entity: str, listener: Listener | None) -> None:
        self.entity = entity
        self.hits = Counter()
        self.hit = self.hits.step
        self.locals = Counter()
        self.read_seconds = Histogram()
        self.load_seconds = Histogram()
        self._listener = listener
        self.counters: dict[tuple[str, str, str], Counter] = {
            (READS, "source", "hit"): self.hits,
            (READS, "source", "local"): self.locals,
        }

    def add(self, metric: str, label: str, value: str, times: int = 1) -> None:
        """Count `times` steps of a metric with one label."""
        at = metric, label, value
        counter = self.counters.get(at)
        if counter is None:
            with _guard:
                counter = self.counters.setdefault(at, Counter())
        if times == 1:
            counter.step()
        else:
            counter.steps(times)
        if self._listener is not None:
            self._listener(metric, self.entity, {label: value})

    def note(self, event: str) -> None:
        """Count one event of `EVENT_HELP`."""
        self.add(EVENTS, "event", event)


class Metrics:
    """All counters of one cache.

    `listener` is a plain callback, for other systems than Prometheus; it must not raise.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._tallies: dict[str, Tally] = {}

    def tally(self, entity: str) -> Tally:
        """The counters of an entity, made when first asked for."""
        with _guard:
            return self._tallies.setdefault(entity, Tally(entity, self._listener))

    def values(self) -> dict[tuple[str, str, str], int]:
        """Every counter that ever moved: (metric, entity, label's value) to its value."""
        return {
            (metric, tally.entity, value): counter.value
            for tally in list(self._tallies.values())
            for (metric, _, value), counter in list(tally.counters.items())
        }

    def collect(self) -> Iterator[Any]:
        """For `prometheus_client`: `REGISTRY.register(cache.metrics)`."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        tallies = list(self._tallies.values())
        for metric, label in _LABELS.items():
            family = CounterMetricFamily(metric.removesuffix("_total"), HELP[metric], labels=["entity", label])
            for tally in tallies:
                for (name, _, value), counter in list(tally.counters.items()):
                    if name == metric:
                        family.add_metric([tally.entity, value], counter.value)
            yield family
        for metric, attribute in ((READ_SECONDS, "read_seconds"), (LOAD_SECONDS, "load_seconds")):
            histogram = HistogramMetricFamily(metric, HELP[metric], labels=["entity"])
            for tally in tallies:
                seconds: Histogram = getattr(tally, attribute)
                histogram.add_metric([tally.entity], _cumulative(seconds.counts), seconds.total_s)
            yield histogram


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    total, rows = 0, []
    for bound, number in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
        total += number
        rows.append((bound, float(total)))
    return rows
