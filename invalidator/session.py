"""One connection's worth of a node: which start of the server answers, and how far it was told."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from cachelib.backends.base import Backend, Batch
from cachelib.effects import Effect, coalesce
from cachelib.errors import CacheError, CacheFull, CacheUnavailable
from cachelib.layout import Layout
from cachelib.model import Answer, Name, Op, Put
from cachelib.proof import ProofNote, encode_proof, proof_name
from cachelib.slots import slot_of
from invalidator.positions import Note, encode_note, found, note_names
from invalidator.refreshes import Refreshes
from invalidator.sources.base import Positions, merged, of_now
from invalidator.watermark import Proof
from invalidator.work import Work


def batch_for(
    layout: Layout,
    namespace: str,
    effects: Sequence[Effect],
    node: str = "",
    chosen: Callable[[Put], Put] | None = None,
) -> list[tuple[Name, Op]]:
    """Each effect's operation on every name that its key has here, while the layout changes also the coming one.

    A node of a pool is told of the slots that it has or is about to have. `node`: as the layout calls it. `chosen`:
    see `Refreshes.chosen`; without it nothing is written through, whatever after-images there are.
    """
    prefixes: dict[tuple[str, int], tuple[bytes, ...]] = {}
    batch: list[tuple[Name, Op]] = []
    pooled = layout.pooled
    for effect in effects:
        at = effect.entity.name, slot_of(effect.text) if pooled else 0
        if at not in prefixes:
            prefixes[at] = layout.prefixes_on(node, namespace, *at)
        if prefixes[at]:
            put = effect.refresh(random.random) if chosen is not None else None
            op: Op = effect.op() if put is None or chosen is None else chosen(put)
            batch += [(prefix + effect.text, op) for prefix in prefixes[at]]
    return batch


@dataclass(slots=True)
class Others:
    """The partitions that other members read. How far the node is in those, the notes of those members on it say.

    `all_known`: there are no partitions but ours and these.
    """

    partitions: Sequence[str]
    all_known: Callable[[], bool]
    positions: Positions = field(default_factory=dict)
    watermarks_us: Mapping[str, int] = field(default_factory=dict)

    def look(self, session: Session) -> None:
        """Read their notes. Raises `CacheUnavailable`."""
        if not self.partitions:
            return
        names = [name for at in self.partitions for name in note_names(session.namespace, session.consumer, at)]
        notes = found(self.partitions, session.backend.read_notes(names))
        ours = notes.stores <= {session.store}
        self.positions = of_now(notes.positions, session.proof.target) if ours else {}
        self.watermarks_us = {at: us for at, us in notes.watermarks_us.items() if at in self.positions}

    def watermark_us(self, ours_us: int | None) -> int | None:
        """Up to when every commit is applied here, by them and by us; None where one of them does not say."""
        theirs = [self.watermarks_us.get(at) for at in self.partitions]
        known = [one for one in (ours_us, *theirs) if one is not None]
        return min(known) if len(known) == 1 + len(self.partitions) else None


@dataclass(slots=True)
class Session:
    """What is known of a node since it was last connected to.

    `noted`: from where the next note leads on. `confirmed`: what the notes surely say. `begun_anew`:
    they say, if anything, something else than where we began, so there has to be a new one. `written`: the notes as
    they should be there.
    """

    backend: Backend
    node: str
    """What the layout calls it."""
    namespace: str
    consumer: str
    store: str
    instance: str
    positions: Positions
    proof: Proof
    entities: Callable[[], frozenset[str]] = frozenset
    """Whose changes are told here: what is proven is proven of these."""
    refreshes: Refreshes = field(default_factory=lambda: Refreshes(0, time.monotonic))
    others: Others = field(default_factory=lambda: Others([], lambda: True))
    turns: dict[str, int] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    """By partition, the mark of its last note."""
    highest: int = 0
    watermark_us: int | None = None
    """Up to when every commit in the partitions read here is applied here."""
    begun_anew: bool = False
    noted: Positions = field(default_factory=dict)
    confirmed: Positions = field(default_factory=dict)
    checked_at_s: float = float("-inf")
    written: dict[Name, bytes] = field(default_factory=dict)

    @property
    def half_noted(self) -> bool:
        """One of two notes is there, and nobody believes it alone."""
        return not all(name in self.written for partition in self.positions for name in self._names(partition))

    def _names(self, partition: str) -> tuple[Name, Name]:
        return note_names(self.namespace, self.consumer, partition)

    def jump(self, positions: Positions) -> None:
        """Go on from there instead."""
        self.positions = self.noted = positions
        self.marks.clear()
        self.highest = 0
        self.begun_anew = True

    def skip(self, works: Sequence[Work]) -> None:
        """Works without effects need no answer: the node is further all the same, once it is told so."""
        for work in works:
            self.positions = merged(self.positions, work.after)
            if work.watermark_us is not None:
                self.watermark_us = max(self.watermark_us or 0, work.watermark_us)

    def apply(self, works: Sequence[Work], layout: Layout, now_ms: int) -> list[Answer]:
        """Tell the node. Raises `CacheUnavailable`, after which nothing is known of what it did.

        Raises `CacheFull` where it was told, and has no room for its position.
        """
        effects = coalesce(chain.from_iterable(work.effects for work in works))
        batch: Batch = batch_for(layout, self.namespace, effects, self.node, self.refreshes.chosen)
        self.refreshes.look(self.backend, (name for name, _ in batch))
        self.skip(works)
        self.highest = max([self.highest, *(work.highest for work in works)])
        settled = layout.next is None
        applied = merged(self.positions, self.others.positions)
        self.proof.learn(applied, self.others.watermark_us(self.watermark_us), settled=settled)
        notes = dict(self._notes(self.noted, _told(works)))
        try:
            results = self.backend.apply(batch, notes | self._proof(settled=settled), now_ms)
        except CacheFull:
            # The operations were answered; only there is no room for the position. So the node goes on
            # being told, and has to be told again what came since its notes if it is lost.
            self.written, self.noted = {}, self.positions
            raise
        answers = [result for result in results if not isinstance(result, CacheError)]
        if len(answers) < len(results):
            raise next(result for result in results if isinstance(result, CacheError))
        self.refreshes.answered(batch, answers, now_ms)
        self.written |= notes
        self.noted, self.begun_anew = self.positions, False
        return answers

    def verify(self) -> None:
        """Raise `CacheUnavailable` unless the node still has both notes. To be called before the next are written.

        A backend reconnects by itself. If the server came back with old data in between, the note
        that was not just written is an older one. Read again now, the two do not join; after another
        write they would.
        """
        written = self.written
        if written and self.backend.read_notes(list(written)) != list(written.values()):
            raise CacheUnavailable("the node lost its position: it was restarted, or evicts")
        if written:
            self.confirmed = self.positions

    def check_instance(self) -> None:
        """Raise `CacheUnavailable` where another start of the server answers."""
        instance = self.backend.instance()
        if instance != self.instance:
            raise CacheUnavailable(f"the node was restarted or replaced: {self.instance} before, {instance} now")

    def _notes(self, since: Positions, told: frozenset[str] | None) -> Iterator[tuple[Name, bytes]]:
        """`told`: the partitions of which the batch tells something; None for all."""
        for partition, upto in self.positions.items():
            names = self._names(partition)
            silent = told is not None and partition not in told
            if silent and self._says_so_already(since.get(partition), upto, names):
                continue
            mark, before = secrets.token_hex(4), self.marks.get(partition, "")
            self.marks[partition] = mark
            note = Note(since.get(partition, ""), upto, self.highest, self.store, self.watermark_us, mark, before)
            raw = encode_note(note)
            turn = self.turns.get(partition, 0)
            self.turns[partition] = 1 - turn
            yield names[turn], raw

    def _says_so_already(self, since: str | None, upto: str, names: Sequence[Name]) -> bool:
        """A partition that stands still needs no new note; and if another member has it by now, no old one from us."""
        still = since == upto and self.watermark_us is None and not self.begun_anew
        return still and all(name in self.written for name in names)

    def _proof(self, *, settled: bool) -> dict[Name, bytes]:
        if not (self.proof.caught_up and self.others.all_known()):
            return {}
        claim_us = self.proof.claim_us(settled=settled)
        note = ProofNote(self.instance, self.store, claim_us, len(self.proof.target), self.entities())
        return {proof_name(self.namespace): encode_proof(note)}


def _told(works: Sequence[Work]) -> frozenset[str] | None:
    """The partitions of which these tell something, done or not; None where one does not say which."""
    found: set[str] = set()
    for work in works:
        if work.effects:
            leads_to = work.told if work.told is not None else work.after
            some = [at for at, upto in leads_to.items() if work.before.get(at) != upto]
            if not some:
                return None
            found.update(some)
    return frozenset(found)
