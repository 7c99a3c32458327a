"""Durations counted in HdrHistogram's buckets: three significant digits from 1 ns to an hour.

The buckets are those of HdrHistogram (Gil Tene), so a histogram here and one of the `hdrhistogram`
package are the same numbers; only the counting is done by numpy, a second's worth at a time,
because one call a value costs more than a cached read. Immutable: sums make new ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import ArrayLike, NDArray

Numbers: TypeAlias = NDArray[np.int64]

LOWEST_NS = 1
HIGHEST_NS = 3_600_000_000_000
DIGITS = 3
SUB_BITS = 11
"""Buckets of one doubling: 2 ** 11 tell 1000 from 1001, as three digits ask."""
HALF = 1 << (SUB_BITS - 1)
NS_PER_MS = 1e6


def _index_of(values_ns: Numbers) -> Numbers:
    """The place of each duration in HdrHistogram's array of counts."""
    # frexp's exponent is the length in bits, exactly, below 2 ** 53: HIGHEST_NS is below 2 ** 42.
    bits = np.frexp((values_ns | (2 * HALF - 1)).astype(np.float64))[1].astype(np.int64)
    bucket = bits - SUB_BITS
    place: Numbers = (bucket + 1) * HALF + (values_ns >> bucket) - HALF
    return place


def _lowest_of(index: Numbers) -> Numbers:
    """The smallest duration that is counted at each place."""
    bucket = np.maximum(index // HALF - 1, 0)
    lowest: Numbers = (index - bucket * HALF) << bucket
    return lowest


def _highest_of(index: Numbers) -> Numbers:
    """The largest one."""
    bucket = np.maximum(index // HALF - 1, 0)
    highest: Numbers = _lowest_of(index) + (np.int64(1) << bucket) - 1
    return highest


PLACES = int(_index_of(np.asarray([HIGHEST_NS]))[0]) + 1
_EMPTY = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """`index`: the places that hold anything, rising; `counts`: how much each."""

    index: Numbers
    counts: Numbers

    @classmethod
    def empty(cls) -> Self:
        """Nothing was counted."""
        return cls(_EMPTY, _EMPTY)

    @classmethod
    def of(cls, values_ns: ArrayLike) -> Self:
        """Count durations, nanoseconds. Those out of range count as the nearest in it."""
        values = np.clip(np.asarray(values_ns, dtype=np.int64), 0, HIGHEST_NS)
        return cls._dense(np.bincount(_index_of(values), minlength=0).astype(np.int64))

    @classmethod
    def sum_of(cls, histograms: Iterable[Histogram]) -> Self:
        """All of them as if counted together."""
        total = np.zeros(PLACES, dtype=np.int64)
        for one in histograms:
            total[one.index] += one.counts
        return cls._dense(total)

    @classmethod
    def _dense(cls, counts: Numbers) -> Self:
        index = np.flatnonzero(counts)
        return cls(index, counts[index])

    @classmethod
    def decode(cls, text: str) -> Self:
        """From HdrHistogram's own encoding (V2, compressed, base64). Raises what `hdrh` raises of other text."""
        return cls.of_hdr(HdrHistogram.decode(text))

    @classmethod
    def of_hdr(cls, histogram: Any) -> Self:
        """From one of the `hdrhistogram` package with the same range and digits.

        Raises:
            ValueError: its buckets are others.
        """
        if (histogram.sub_bucket_count, histogram.unit_magnitude) != (2 * HALF, 0):
            raise ValueError(
                f"the histogram has {histogram.significant_figures} digits from {histogram.lowest_trackable_value}:"
                f" this reads {DIGITS} digits from {LOWEST_NS} ns"
            )
        counts = np.frombuffer(histogram.counts, dtype=np.int64)[:PLACES]
        return cls._dense(counts)

    def hdr(self) -> Any:
        """The same as a `hdrh.histogram.HdrHistogram`."""
        histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
        if len(self.index):
            np.frombuffer(histogram.counts, dtype=np.int64)[self.index] = self.counts
            histogram.set_internal_tacking_values(int(self.index[0]), int(self.index[-1]), self.count)
        return histogram

    def encode(self) -> str:
        """HdrHistogram's own encoding: what other tools of its family read."""
        text = self.hdr().encode()
        return text.decode() if isinstance(text, bytes) else str(text)

    # --- reading --------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many durations."""
        return int(self.counts.sum())

    def percentile_ns(self, percent: float) -> int:
        """What this percentage does not exceed: the highest of a bucket, for 0 % its lowest."""
        if not len(self.index):
            return 0
        if percent <= 0:
            return int(_lowest_of(self.index[0]))
        # Rounded up, as HdrHistogram in Java does; the Python package rounds to the nearest, which for few values
        # is one too low. A hair less: 99 % of 100 is the 99th, whatever the product's last bit says.
        wanted = max(1, int(np.ceil(percent / 100 * self.count - 1e-9)))
        at = int(np.searchsorted(np.cumsum(self.counts), wanted))
        return int(_highest_of(self.index[min(at, len(self.index) - 1)]))

    def percentile_ms(self, percent: float) -> float:
        """The same in milliseconds."""
        return self.percentile_ns(percent) / NS_PER_MS

    def share_above(self, limit_ns: int) -> float:
        """The share of durations in buckets that lie wholly above the limit; 0 of nothing."""
        above = int(self.counts[_lowest_of(self.index) > limit_ns].sum())
        return above / self.count if len(self.index) else 0.0

    @property
    def mean_ms(self) -> float:
        """Of the buckets' middles; 0 of nothing."""
        if not len(self.index):
            return 0.0
        middles = (_lowest_of(self.index) + _highest_of(self.index)) / 2
        return float((middles * self.counts).sum() / self.count / NS_PER_MS)

    @property
    def max_ms(self) -> float:
        """The highest of its bucket; 0 of nothing."""
        return self.percentile_ms(100)
