"""One cache node, asked as a client asks: only GET, which changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cachelib.backends.base import Backend
from cachelib.errors import CacheError
from cachelib.model import Name
from cachelib.proof import ProofNote, decode_proof, proof_name
from invalidator.logs import Log
from invalidator.positions import found, note_names
from invalidator.sources.base import Positions, log_of
from invalidator.verifier.checks import Check

_REST_S = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """How far the invalidator had told a node. `proof` None: nothing is proven."""

    positions: Positions
    proof: ProofNote | None

    def of(self, check: Check) -> bool:
        """Whether that includes the change, or whatever the store showed at the time that the check is about."""
        if check.place is None:
            proof = self.proof
            if proof is None or proof.watermark_us is None or check.entity.name not in proof.entities:
                return False
            return proof.watermark_us >= check.shown_us > 0
        reached = self.positions.get(check.place[0], "")
        return reached >= check.place[1] and log_of(reached) == log_of(check.place[1])


class Probe:
    """A node that does not answer is left alone for a moment: the others must not wait for it."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        namespace: str,
        consumer: str,
        log: Log,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.error = ""
        self._backend = backend
        self._namespace = namespace
        self._consumer = consumer
        self._log = log
        self._clock_s = clock_s
        self._rests_until_s = 0.0

    def ask(self, names: Sequence[Name], partitions: Collection[str]) -> tuple[list[bytes | None], Told] | None:
        """The items of these names, and how far the node had been told before they were read; None: no answer.

        In this order, or a change that was applied in between would count as told too early.
        """
        if self._clock_s() < self._rests_until_s:
            return None
        try:
            told = self._told(sorted(partitions))
            raws = self._backend.get_many(names)
        except CacheError as error:
            self._failed(error)
            return None
        if self.error:
            self._log.info("the node answers again", node=self.name)
            self.error = ""
        return raws, told

    def close(self) -> None:
        """Close the connections."""
        self._backend.close()

    def _told(self, partitions: Sequence[str]) -> Told:
        notes = [note for at in partitions for note in note_names(self._namespace, self._consumer, at)]
        proof, *raw = self._backend.read_notes([proof_name(self._namespace), *notes])
        return Told(found(partitions, raw).positions, decode_proof(proof))

    def _failed(self, error: CacheError) -> None:
        self._rests_until_s = self._clock_s() + _REST_S
        if not self.error:
            self._log.warning("the node does not answer", node=self.name, error=str(error))
        self.error = str(error)
