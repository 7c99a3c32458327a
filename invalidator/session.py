"""One connection's worth of a node: which start of the server answers, and how far it was told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from cachelib.backends.base import Backend, Batch
from cachelib.effects import Effect, coalesce
from cachelib.errors import CacheError, CacheUnavailable
from cachelib.layout import Layout
from cachelib.model import Answer, Name, Op
from invalidator.positions import Note, encode_note, encode_proof, note_names, proof_name
from invalidator.sources.base import Positions, merged
from invalidator.watermark import Proof
from invalidator.work import Work


def batch_for(layout: Layout, namespace: str, effects: Sequence[Effect]) -> list[tuple[Name, Op]]:
    """Each effect's operation on every name of its key: also on the coming one, while the layout changes."""
    prefixes: dict[str, tuple[bytes, ...]] = {}
    batch: list[tuple[Name, Op]] = []
    for effect in effects:
        entity = effect.entity.name
        if entity not in prefixes:
            prefixes[entity] = layout.prefixes(namespace, entity)
        op = effect.op()
        batch += [(prefix + effect.text, op) for prefix in prefixes[entity]]
    return batch


@dataclass(slots=True)
class Session:
    """What is known of a node since it was last connected to.

    `noted`: what its notes say. `begun_anew`: its notes, if any, say something else than where we
    began, so both places have to be written.
    """

    backend: Backend
    namespace: str
    consumer: str
    store: str
    instance: str
    positions: Positions
    proof: Proof
    turns: dict[str, int] = field(default_factory=dict)
    highest: int = 0
    begun_anew: bool = False
    noted: Positions = field(default_factory=dict)
    noted_at_s: float = float("-inf")

    def jump(self, positions: Positions) -> None:
        """Go on from there instead."""
        self.positions = positions
        self.highest = 0
        self.begun_anew = True

    def skip(self, works: Sequence[Work]) -> None:
        """Works without effects need no answer: the node is further all the same, once it is told so."""
        for work in works:
            self.positions = merged(self.positions, work.after)
            if work.watermark_us is not None:
                self.proof.watermark_us = max(self.proof.watermark_us or 0, work.watermark_us)

    def apply(self, works: Sequence[Work], layout: Layout, now_ms: int) -> list[Answer]:
        """Tell the node. Raises `CacheUnavailable`, after which nothing is known of what it did."""
        effects = coalesce(chain.from_iterable(work.effects for work in works))
        batch: Batch = batch_for(layout, self.namespace, effects)
        since = self.positions
        self.skip(works)
        self.highest = max([self.highest, *(work.highest for work in works)])
        settled = layout.next is None
        self.proof.learn(self.positions, None, settled=settled)
        results = self.backend.apply(batch, dict(self._notes(since, settled=settled)), now_ms)
        answers = [result for result in results if not isinstance(result, CacheError)]
        if len(answers) < len(results):
            raise next(result for result in results if isinstance(result, CacheError))
        self.noted = self.positions
        self.begun_anew = False
        return answers

    def _notes(self, since: Positions, *, settled: bool) -> Iterator[tuple[Name, bytes]]:
        for partition, upto in self.positions.items():
            names = note_names(self.namespace, self.consumer, partition)
            note = encode_note(Note(since.get(partition, ""), upto, self.highest, self.store, self.proof.watermark_us))
            turn = self.turns.get(partition, 0)
            self.turns[partition] = 1 - turn
            for name in names if self.begun_anew else names[turn : turn + 1]:
                yield name, note
        if self.proof.caught_up:
            claim_us = self.proof.claim_us(settled=settled)
            yield proof_name(self.namespace), encode_proof(self.instance, self.store, claim_us, len(self.positions))

    def check(self) -> None:
        """Raise `CacheUnavailable` where another start of the server answers: a backend reconnects by itself."""
        instance = self.backend.instance()
        if instance != self.instance:
            raise CacheUnavailable(f"the node was restarted or replaced: {self.instance} before, {instance} now")
