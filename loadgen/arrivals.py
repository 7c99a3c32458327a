"""When operations are meant to start.

Open loop: the times are fixed beforehand, whatever the answers take, and latency counts from the
intended start: an operation that had to wait for a slow one before it was slow itself. Closed
loop: each starts when the one before has ended; its latency says nothing about waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np

from cachelib.errors import ConfigError
from cachelib.policy import one_of

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
