"""Requests of a trace, in columns, and its replay: the operations of a worker, as `Draws` would make them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cachelib.errors import CacheError, ConfigError
from loadgen.workloads.draws import Operations
from loadgen.workloads.sizes import Sizes


class BadTrace(CacheError):
    """A trace cannot be read: the message names file and line."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests, rising in time. `kind`: numbers of `OPERATIONS`. `key`: numbers from 0 on, below `keys`; `key_bytes`,
    `value_bytes` and `ttl_s` of each request, 0 where it tells none.
    """

    at_s: NDArray[np.float64]
    kind: Sizes
    key: Sizes
    key_bytes: Sizes
    value_bytes: Sizes
    ttl_s: Sizes
    keys: int

    def __len__(self) -> int:
        return len(self.at_s)

    def of_keys(self, column: Sizes, default: int) -> Sizes:
        """For each key the largest that a request of it tells, else the default."""
        found = np.zeros(self.keys, dtype=np.int64)
        np.maximum.at(found, self.key, column)
        return np.where(found > 0, found, default)


@dataclass(frozen=True, slots=True)
class Request:
    """One row of a trace."""

    at_s: float
    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    ttl_s: int
    times: int = 1
    """How many such requests the row stands for."""


def trace_of(requests: Iterable[Request]) -> Trace:
    """From requests in the order of time. Raises `BadTrace` where they are not."""
    times: list[float] = []
    rows: list[tuple[int, int, int, int, int]] = []
    number: dict[str, int] = {}
    for one in requests:
        if times and one.at_s < times[-1]:
            raise BadTrace(f"request {len(times) + 1} of the trace is before the one that it follows: sort it by time")
        key = number.setdefault(one.name, len(number))
        times += [one.at_s] * one.times
        rows += [(one.kind, key, one.key_bytes, one.value_bytes, one.ttl_s)] * one.times
    at_s = np.asarray(times, dtype=np.float64)
    kinds, keys, key_bytes, value_bytes, ttl_s = np.asarray(rows, dtype=np.int64).reshape(-1, 5).T
    since = at_s - (at_s[0] if len(at_s) else 0.0)
    return Trace(since, kinds, keys, key_bytes, value_bytes, ttl_s, len(number))


def replay(
    trace: Trace, *, factor: float | None = None, rate_per_s: float | None = None, worker: int = 0, workers: int = 1
) -> Operations:
    """One worker's part of the trace: at its own times divided by `factor` (2: twice as fast), or one request after the
    other at a fixed rate. Requests of one key are one worker's, so that their order is that of the trace.

    Timestamps of whole seconds (Twitter's and Meta's) say nothing of what is within one: its requests are spread
    evenly over it.
    """
    if (factor is not None and factor <= 0) or (rate_per_s is not None and rate_per_s <= 0):
        raise ConfigError("a replay needs a factor or a rate above 0")
    if rate_per_s is not None:
        at_s = np.arange(len(trace), dtype=np.float64) / rate_per_s
    else:
        at_s = spread(trace.at_s) / (factor or 1.0)
    own = np.flatnonzero(trace.key % workers == worker)
    return Operations(at_s[own], trace.kind[own], trace.key[own], np.arange(len(own) + 1))


def spread(at_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times, with those that share one whole second evenly spread over it; finer ones as they are."""
    if not len(at_s) or (at_s != np.floor(at_s)).any():
        return at_s
    seconds, first, counts = np.unique(at_s, return_index=True, return_counts=True)
    place = np.arange(len(at_s)) - np.repeat(first, counts)
    return np.repeat(seconds, counts) + (place + 0.5) / np.repeat(counts, counts)
