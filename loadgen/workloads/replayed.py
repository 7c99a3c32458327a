"""The keys of a trace, as a run needs them: named by number, as large as the trace says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from loadgen.workloads.keyspace import NAME_BYTES_MAX, KeySpace, named
from loadgen.workloads.sizes import Sizes
from loadgen.workloads.trace import Trace

VALUE_BYTES = 100
"""Of a key whose size no request tells."""
TTL_S = 86_400


@dataclass(frozen=True)
class TraceSpace(KeySpace):
    """All keys that the trace names exist before the run."""

    trace: Trace | None = None

    @property
    def _trace(self) -> Trace:
        assert self.trace is not None
        return self.trace

    @property
    def keys(self) -> int:
        """See `KeySpace.keys`."""
        return self._trace.keys

    @property
    def inserts(self) -> int:
        """See `KeySpace.inserts`."""
        return 0

    @property
    def absent(self) -> int:
        """See `KeySpace.absent`."""
        return 0

    @cached_property
    def value_bytes(self) -> Sizes:
        """See `KeySpace.value_bytes`."""
        return self._trace.of_keys(self._trace.value_bytes, VALUE_BYTES)

    @cached_property
    def ttl_s(self) -> Sizes:
        """See `KeySpace.ttl_s`."""
        return np.maximum(self._trace.of_keys(self._trace.ttl_s, TTL_S), 1)

    @cached_property
    def names(self) -> Sequence[str]:
        """See `KeySpace.names`: anonymised names say nothing but their length."""
        return named(np.minimum(self._trace.of_keys(self._trace.key_bytes, 16), NAME_BYTES_MAX))
