"""cachelib over a store, called from threads: what an application does.

A read is one `Cache.get` and nothing else of the library's. Where a value came from is heard from
the library's listener, which is silent for plain hits, so that they cost what they cost.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from threading import Thread, get_ident

import numpy as np

from cachelib import L1, Cache, Read
from cachelib.keys import Key
from cachelib.metrics import READS
from loadgen.engine.lane import Call, Lane, Outcome
from loadgen.engine.pace import Shift, now_ns
from loadgen.plan import RunPlan, TargetPlan
from loadgen.record import ABSENT, STAMP_BITS, WRONG, How, Result, Status
from loadgen.targets.base import lanes_of, run_threads
from loadgen.targets.items import Items
from loadgen.targets.origin import WatchedStore, number_of
from loadgen.targets.prober import Prober
from loadgen.targets.reading import begun_row, joined, read_rows, shown_before, write_row
from loadgen.targets.stamped import Behind, write_through
from loadgen.workloads.draws import Operations
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.workload import DELETE, INSERT, MULTIGET, OPERATIONS, RMW, SCAN, SET

OUTCOMES = {one.name.lower(): int(one) for one in Outcome}


class Library:
    """See `Target`. `thread`: the number of the first thread; the others', and the prober's, follow."""

    def __init__(
        self,
        plan: RunPlan,
        space: KeySpace,
        operations: Operations,
        thread: int,
        lanes: int | None = None,
        *,
        in_order: bool = True,
    ) -> None:
        target, self.items = plan.target, Items(plan, space)
        self.names, self.plan = space.names, plan
        self.subjects = self.items.subjects
        self.subject: list[int] = self.items.subject.tolist()
        self.entity = [self.subjects[number].entity for number in self.subject]
        self.heard: dict[int, list[int]] = {}
        """By thread, where its last read that was not a plain hit came from."""
        self.store = WatchedStore(target.store_url, target.origin_ms)
        entities = [subject.entity for subject in self.subjects]
        self.keeps_copies = target.l1_ms > 0
        self.cache = Cache(
            target.cache_url,
            store=self.store,
            entities=entities,
            namespace=target.namespace,
            listener=self._listen,
            l1=l1_of(target),
        )
        self.lanes: Sequence[Lane] = lanes_of(operations, lanes or target.threads, in_order=in_order)
        self.hands = [Hand(self, lane, thread + at) for at, lane in enumerate(self.lanes)]
        last = thread + len(self.lanes)
        self._prober = Prober(self, last, target.probes_per_s) if target.probes_per_s else None

    def _listen(self, metric: str, _entity: str, labels: Mapping[str, str]) -> None:
        if metric == READS:
            cell = self.heard.get(get_ident())
            if cell is not None:
                cell[0] = OUTCOMES.get(labels["source"], int(Outcome.OTHER))

    def run(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        """See `Target.run`."""
        prober = Thread(target=self._prober.run, args=(shift, start_ns, end_ns)) if self._prober else None
        if prober:
            prober.start()
        self.drive(shift, start_ns, end_ns, closed=closed)
        if prober:
            prober.join()

    def drive(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        """Every lane's operations."""
        run_threads(self.lanes, [hand.calls for hand in self.hands], shift, start_ns, end_ns, closed=closed)

    def logs(self) -> Mapping[str, bytes]:
        """See `Target.logs`."""
        subject = np.asarray(self.subject, dtype=np.int64)
        reads = [read_rows(hand.lane, subject, hand.thread) for hand in self.hands]
        writes = [hand.writes for hand in self.hands]
        several = joined([hand.reads for hand in self.hands])
        logs = {"reads": b"".join(reads) + several, "loads": self.store.log.tobytes()}
        if self._prober:
            logs["probes"] = self._prober.reads.tobytes()
            writes.append(self._prober.writes)
        return logs | {"writes": joined(writes)}

    def close(self) -> None:
        """See `Target.close`."""
        self.cache.close()
        self.store.close()


def l1_of(target: TargetPlan) -> L1 | None:
    """What a plan says of copies in the process."""
    return L1(ttl=target.l1_ms / 1000) if target.l1_ms else None


class Hand:
    """One thread's calls. Keys of the level `SESSION` are read and written by a session of its own."""

    def __init__(self, library: Library, lane: Lane, thread: int) -> None:
        self.lane, self.thread = lane, thread
        self.reads, self.writes = array("q"), array("q")
        """Of reads of several keys; of writes."""
        self._library = library
        self._random = np.random.default_rng([library.plan.seed, thread, 5])
        self._behind: Behind | None = None
        session = library.cache.session() if any(one.session for one in library.subjects) else None
        self._faces = [session if one.session and session else library.cache for one in library.subjects]
        self._cell: list[int] = []
        self._seq = 0
        get = self._getter()
        of: dict[int, Call] = {MULTIGET: self.many, SCAN: self.many, SET: self.set, INSERT: self.set}
        of |= {RMW: self._modifier(get), DELETE: self.delete}
        self.calls: list[Call] = [of.get(kind, get) for kind in range(len(OPERATIONS))]

    def _getter(self) -> Call:
        """A get. Its names are a closure's, because looking them up would cost as much as they do."""
        library, stamps, cell, hit = self._library, self.lane.stamp, self._cell, int(Outcome.HIT)
        names, entities, subject, copies = library.names, library.entity, library.subject, library.keeps_copies
        reads = [face.get for face in self._faces]

        def get(place: int, key: int) -> int:
            if not cell:
                self._begin()
            cell[0] = hit  # a plain hit says nothing: what a batch or a failed read left there is not its own
            name = names[key]
            value = reads[subject[key]](entities[key], name)
            if value is not None:
                stamps[place] = value["writer"] << STAMP_BITS | value["seq"] if value["name"] == name else WRONG
            outcome = cell[0]
            if copies and outcome == hit and value is not None and shown_before(value):
                return Outcome.LOCAL
            return outcome

        return get

    def _begin(self) -> None:
        """In the thread itself: by its identity the listener finds where to tell it."""
        self._cell.append(int(Outcome.HIT))
        self._library.heard[get_ident()] = self._cell

    def many(self, place: int, keys: list[int]) -> int:
        """One call for each entity that the keys are of."""
        library, start_ns = self._library, now_ns()
        for subject, names in self.by_subject(keys).items():
            answers = self._faces[subject].read_many(library.subjects[subject].entity, names)
            self.note_many(place, subject, answers, (start_ns, now_ns()))
        return Outcome.MANY

    def by_subject(self, keys: Sequence[int]) -> dict[int, list[str]]:
        """The names of keys, by their subject's number."""
        found: dict[int, list[str]] = {}
        for key in keys:
            found.setdefault(self._library.subject[key], []).append(self._library.names[key])
        return found

    def note_many(self, place: int, subject: int, answers: Mapping[Key, Read], times: tuple[int, int]) -> None:
        """What a call for several keys of one subject returned."""
        second, at_ns = int(self.lane.operations.at_s[place]), int(self.lane.at_ns[place])
        for name, answer in answers.items():
            source = OUTCOMES.get(answer.source, int(Outcome.OTHER))
            self.lane.sources[second, source] += 1
            stamp = ABSENT if not answer.found else answer.value["writer"] << STAMP_BITS | answer.value["seq"]
            row = (subject, number_of(str(name)), at_ns, *times, answer.version, stamp, source)
            self.reads.extend((*row, self.thread))

    def _modifier(self, get: Call) -> Call:
        def read_modify_write(place: int, key: int) -> int:
            get(place, key)
            return self.set(place, key)

        return read_modify_write

    def set(self, _place: int, key: int) -> int:
        """Change the row, or insert it where it is not there."""
        return self._write(key, gone=False)

    def delete(self, _place: int, key: int) -> int:
        """Delete the row."""
        return self._write(key, gone=True)

    def _write(self, key: int, *, gone: bool) -> int:
        library = self._library
        number = library.subject[key]
        subject, behind = library.subjects[number], self.chooses_behind(number)
        self._seq += 1
        named = {
            "key": library.names[key],
            "writer": self.thread,
            "seq": self._seq,
            "payload": library.items.payload(key),
        }
        at, how, start_ns = (number, key, self.thread << STAMP_BITS | self._seq), How(int(behind)), now_ns()
        try:
            if behind:
                self._behind = self._behind or Behind(library.plan.target.store_url)
                result = self._behind.change(subject, named, gone=gone)
            else:
                result = write_through(self._faces[number], subject, named, gone=gone)
        except Exception as error:
            self.writes.extend(begun_row(at, how, gone=gone, start_ns=start_ns))
            raise error from None
        self.writes.extend(write_row(at, how, gone=gone, result=result, times=(start_ns, now_ns())))
        return self.outcome_of(result)

    def chooses_behind(self, number: int) -> bool:
        """Whether a write of this subject goes behind the library, by the plan's share."""
        share = self._library.plan.target.behind_share
        return self._library.subjects[number].behind and share > 0 and self._random.random() < share

    def outcome_of(self, result: Result) -> int:
        """How the operation of this write ended."""
        if result.error is not None:
            return self.lane.failed(result.error)
        return Outcome.WRITTEN if result.status in (Status.ACKNOWLEDGED, Status.NOTHING) else Outcome.OTHER
