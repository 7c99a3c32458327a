"""The bytes of a key's value: text that does not compress, so that an item is as large as the workload says."""

from __future__ import annotations

import base64

import numpy as np

from loadgen.workloads.keyspace import KeySpace

POOL_BYTES = 1 << 20
STEP = 4099
"""Values of neighbouring keys begin at different places of the pool."""


class Values:
    """Slices of one pool."""

    def __init__(self, space: KeySpace) -> None:
        self._sizes: list[int] = space.value_bytes.tolist()
        self._pool = base64.b64encode(np.random.default_rng(3).bytes(POOL_BYTES))

    def of(self, key: int) -> bytes:
        """A key's value, of its size."""
        size, pool = self._sizes[key], self._pool
        if size > len(pool):
            return (pool * (size // len(pool) + 1))[:size]
        at = key * STEP % max(1, len(pool) - size)
        return pool[at : at + size]
