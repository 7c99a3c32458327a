"""cachelib over a store, awaited in one event loop: many operations under way at a time.

One task for each operation, begun at its intended start; nothing but the loop itself can make it
late, which is then the generator's lag. Plain SQL behind the library runs in a thread beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from cachelib import AsyncCache, AsyncSession, CommitUnknown, StoreError, Unconfirmed
from cachelib.metrics import READS
from cachelib.stores import AsyncSqlStore
from cachelib.stores.base import AsyncLoader, Loaded
from loadgen.engine.lane import Outcome
from loadgen.engine.pace import Shift, keys_of, now_ns
from loadgen.plan import RunPlan
from loadgen.record import STAMP_BITS, WRONG, How, Result, Status
from loadgen.targets.library import OUTCOMES, Library, l1_of
from loadgen.targets.origin import note_loads
from loadgen.targets.reading import begun_row, shown_before, write_row
from loadgen.targets.stamped import Behind, Sql, result_of
from loadgen.workloads.draws import Operations
from loadgen.workloads.keyspace import KeySpace
from loadgen.workloads.workload import DELETE, INSERT, MULTIGET, RMW, SCAN, SET

NAP_S = 0.05
CANCEL_S = 10.0
"""For what is under way at the end to be rolled back."""
AT_ONCE = 64
"""Operations under way at a time, for each of the plan's threads: beyond it they wait, as for a pool."""
_heard: ContextVar[list[int]] = ContextVar("heard")
"""Of the operation that runs: where its read came from."""


class AwaitedLibrary(Library):
    """See `Target`. The synchronous cache that it inherits serves the prober."""

    def __init__(self, plan: RunPlan, space: KeySpace, operations: Operations, thread: int) -> None:
        super().__init__(plan, space, operations, thread, lanes=1, in_order=False)
        self._lane = self.lanes[0]
        self._seq = 0

    def drive(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        """See `Library.drive`."""
        asyncio.run(self._main(shift, start_ns, end_ns, closed=closed))

    async def _main(self, shift: Shift, start_ns: int, end_ns: int, *, closed: bool) -> None:
        target, entities = self.plan.target, [subject.entity for subject in self.subjects]
        store = _Watched(target.store_url, self)
        with ThreadPoolExecutor(1) as behind:
            cache = AsyncCache(
                target.cache_url,
                store=store,
                entities=entities,
                namespace=target.namespace,
                listener=_listen,
                l1=l1_of(target),
            )
            try:
                await asyncio.sleep(max(0.0, (start_ns - now_ns()) / 1e9))
                await self._offer(Calls(self, cache, behind), shift, end_ns, closed=closed)
            finally:
                await cache.close()
                await store.close()

    async def _offer(self, calls: Calls, shift: Shift, end_ns: int, *, closed: bool) -> None:
        """Begin every operation when it is due; in a closed loop as many at a time as there are threads."""
        lane, tasks = self._lane, set[asyncio.Task[None]]()
        most = self.plan.target.threads * (1 if closed else AT_ONCE)
        at_ns, kinds, keys = lane.at_ns.tolist(), lane.operations.kind.tolist(), keys_of(lane, 0, len(lane.operations))
        for place, (at, kind, key) in enumerate(zip(at_ns, kinds, keys, strict=True)):
            while not closed and (left_ns := at - now_ns()) > 0 and now_ns() < shift.deadline_ns:
                await asyncio.sleep(min(left_ns / 1e9, NAP_S))
            if len(tasks) >= most:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if now_ns() >= (end_ns if closed else shift.deadline_ns):
                break
            task = asyncio.create_task(self._one(calls, place, kind, key))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, (shift.deadline_ns - now_ns()) / 1e9))
        await _end(tasks)

    async def _one(self, calls: Calls, place: int, kind: int, key: Any) -> None:
        lane = self._lane
        lane.start_ns[place] = now_ns()
        try:
            outcome = await calls.of(kind, place, key)
        except Exception as error:  # noqa: BLE001 - whatever a target raises is a finding, by its type
            outcome = lane.failed(error)
        lane.end_ns[place] = now_ns()
        lane.outcome[place] = outcome

    def next_seq(self) -> int:
        """Of this loop's writes."""
        self._seq += 1
        return self._seq


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what still runs, and wait for it: a connection that is closed under it may leave it waiting for ever."""
    left = set(tasks)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CANCEL_S)


class Calls:
    """What operations do, awaited."""

    def __init__(self, library: AwaitedLibrary, cache: AsyncCache, beside: ThreadPoolExecutor) -> None:
        self._library, self._beside = library, beside
        session = cache.session() if any(one.session for one in library.subjects) else None
        self._faces = [session if one.session and session else cache for one in library.subjects]
        self._hand, self._lane = library.hands[0], library.lanes[0]
        self._behind: Behind | None = None

    async def of(self, kind: int, place: int, key: Any) -> int:
        """One operation."""
        if kind in (MULTIGET, SCAN):
            return await self._many(place, key)
        if kind in (SET, INSERT, DELETE):
            return await self._write(key, gone=kind == DELETE)
        outcome = await self._get(place, key)
        return await self._write(key, gone=False) if kind == RMW else outcome

    async def _get(self, place: int, key: int) -> int:
        library, cell = self._library, [int(Outcome.HIT)]
        _heard.set(cell)
        name = library.names[key]
        value = await self._faces[library.subject[key]].get(library.entity[key], name)
        if value is not None:
            fits = value["name"] == name
            self._lane.stamp[place] = value["writer"] << STAMP_BITS | value["seq"] if fits else WRONG
            if library.keeps_copies and cell[0] == Outcome.HIT and shown_before(value):
                return Outcome.LOCAL
        return cell[0]

    async def _many(self, place: int, keys: list[int]) -> int:
        library, start_ns = self._library, now_ns()
        for subject, names in self._hand.by_subject(keys).items():
            answers = await self._faces[subject].read_many(library.subjects[subject].entity, names)
            self._hand.note_many(place, subject, answers, (start_ns, now_ns()))
        return Outcome.MANY

    async def _write(self, key: int, *, gone: bool) -> int:
        library, hand, seq = self._library, self._hand, self._library.next_seq()
        number = library.subject[key]
        subject, behind = library.subjects[number], hand.chooses_behind(number)
        named = {"key": library.names[key], "writer": hand.thread, "seq": seq, "payload": library.items.payload(key)}
        at, how, start_ns = (number, key, hand.thread << STAMP_BITS | seq), How(int(behind)), now_ns()
        try:
            if behind:
                loop = asyncio.get_running_loop()
                result = await loop.run_in_executor(self._beside, self._change, subject, named, gone)
            else:
                result = await _through(self._faces[number], Sql(subject), named, gone=gone)
        except BaseException:  # cancelled as well: nobody knows whether it was committed
            hand.writes.extend(begun_row(at, how, gone=gone, start_ns=start_ns))
            raise
        hand.writes.extend(write_row(at, how, gone=gone, result=result, times=(start_ns, now_ns())))
        return hand.outcome_of(result)

    def _change(self, subject: Any, named: Mapping[str, Any], gone: bool) -> Result:
        """In the thread beside, which keeps its connection."""
        self._behind = self._behind or Behind(self._library.plan.target.store_url)
        return self._behind.change(subject, named, gone=gone)


async def _through(face: AsyncCache | AsyncSession, sql: Sql, named: Mapping[str, Any], *, gone: bool) -> Result:
    """See `stamped.write_through`."""
    try:
        async with face.transaction() as tx:
            changed = (await tx.execute(sql.delete if gone else sql.update, named)).rowcount
            if not changed and not gone:
                changed = (await tx.execute(sql.insert, named)).rowcount
    except (Unconfirmed, CommitUnknown, StoreError) as error:
        return result_of(error)
    if not changed or tx.written is None:
        return Result(Status.NOTHING)
    return Result(Status.ACKNOWLEDGED, tx.written.version)


class _Watched(AsyncSqlStore):
    """Notes its loads where the synchronous store of the same worker does."""

    def __init__(self, url: str, library: Library) -> None:
        super().__init__(url)
        self._half_s, self._log = library.plan.target.origin_ms / 2000, library.store.log

    async def load(self, loader: AsyncLoader, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `WatchedStore.load`."""
        start_ns = now_ns()
        if self._half_s:
            await asyncio.sleep(self._half_s)
        loaded = await super().load(loader, keys, timeout_s=timeout_s)
        if self._half_s:
            await asyncio.sleep(self._half_s)
        note_loads(self._log, keys, start_ns, loaded)
        return loaded


def _listen(metric: str, _entity: str, labels: Mapping[str, str]) -> None:
    cell = _heard.get(None) if metric == READS else None
    if cell is not None:
        cell[0] = OUTCOMES.get(labels["source"], int(Outcome.OTHER))
