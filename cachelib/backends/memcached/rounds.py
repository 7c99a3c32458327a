"""THE ROUNDS: read with CAS, `item.apply`, write with CAS, for a batch of names in a pipeline.

Memcached cannot run the rules, so the client does, and the CAS id proves that nothing came in
between. Who loses that race reads again; who loses it too often gives way (I14). Written once,
for both faces: see `links.py`.

What keeps a write from landing on an item that it was not computed from, as an order of events:
read here, CAS id 7 · the server restarts, ids begin again · somebody else's item gets id 7 ·
a write of id 7 would land on it. So a write goes over the connection of its read, which does
not survive the restart, and is never sent again over another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cachelib.backends.memcached import wire
from cachelib.backends.memcached.links import Counts, Link
from cachelib.backends.memcached.settings import Settings
from cachelib.backends.memcached.wire import Found, Wrote
from cachelib.envelope import HEADER_BYTES, decode, encode
from cachelib.errors import CacheError, DecodeError, ProtocolError
from cachelib.item import apply
from cachelib.model import (
    Answer,
    Claim,
    Claimed,
    Fill,
    Get,
    Held,
    Item,
    LeaseLost,
    Name,
    NoOp,
    Op,
    Put,
    RaiseFloor,
    Release,
    Revoke,
    Revoked,
)

HELD_RETRY_MS = 5
"""When a read that lost every race may ask again."""


@dataclass(slots=True, eq=False)
class Task:
    """One operation of a batch, on its way to its result."""

    name: Name
    op: Op
    result: Answer | CacheError | None = None
    found: Found | None = None
    item: Item | None = None
    answer: Answer | None = None
    """What the result is once `write` has landed."""
    write: bytes = b""
    sent: bool = False
    """A write is on its way and unanswered: whether it took effect is not known."""

    @property
    def voids(self) -> bool:
        """It takes freshness away. Where that cannot be written, to delete the item does as well: an eviction."""
        return isinstance(self.op, Put | RaiseFloor | Revoke)

    @property
    def repeatable(self) -> bool:
        """Applied twice it leaves and answers what it would once, near enough for those who ask it."""
        return isinstance(self.op, RaiseFloor | Revoke)


class Rounds:
    """Brings tasks to their results, over one link."""

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self._settings = settings
        self._counts = counts

    async def run(self, link: Link, tasks: Sequence[Task], now_ms: int) -> None:
        """Read, apply, write; the losers again; who lost too often gives way. Raises what the link raises."""
        left = list(tasks)
        for _ in range(self._settings.cas_tries):
            await _read(link, left)
            for task in left:
                self._decide(task, now_ms)
            left = await self._write(link, [task for task in left if task.result is None])
            if not left:
                return
        await self._give_way(link, left)

    # --- apply -------------------------------------------------------------------------------

    def _decide(self, task: Task, now_ms: int) -> None:
        """Find what has to be written, or the result where nothing has."""
        item = task.item = self._readable(task)
        state, answer = apply(item, task.op, now_ms)
        if state is not None and HEADER_BYTES + len(state.content.payload) > self._settings.item_bytes_max:
            self._counts.add(Wrote.TOO_LARGE.value)
            state, answer = _without_content(task, state, answer, now_ms)
        cas = task.found.cas if task.found is not None else None
        if state is None and cas is not None and task.voids:
            # Bytes that we cannot read may be an item to a program of a later format, and fresh to it.
            task.write, task.answer = wire.delete_request(task.name, cas), answer
        elif state is None or state is item or state == item:
            task.result = answer
        else:
            ttl_s = wire.ttl_seconds(state.expires_ms - now_ms)
            task.write, task.answer = wire.write_request(task.name, encode(state), ttl_s, cas), answer

    def _readable(self, task: Task) -> Item | None:
        if task.found is None:
            return None
        try:
            return decode(task.found.raw)
        except DecodeError:  # I12
            self._counts.add("undecodable")
            return None

    # --- write -------------------------------------------------------------------------------

    async def _write(self, link: Link, tasks: list[Task]) -> list[Task]:
        """Write; the tasks that lost the race are left."""
        lost: list[Task] = []
        refused: list[Task] = []
        for task, what in await _send(link, tasks):
            if what is Wrote.DONE:
                task.result = task.answer
            else:
                self._counts.add(what.value)
                (lost if what is Wrote.LOST else refused).append(task)
        await self._delete(link, [task for task in refused if task.voids])
        for task in refused:
            if not task.voids:
                task.result = _as_refused(task)
        return lost

    async def _give_way(self, link: Link, tasks: list[Task]) -> None:
        """Others were faster in every round (I14)."""
        for task in tasks:
            self._counts.add("gave_way")
            if not task.voids:
                task.result = _as_beaten(task)
        await self._delete(link, [task for task in tasks if task.voids])

    async def _delete(self, link: Link, tasks: list[Task]) -> None:
        """Leave nothing that could be fresh."""
        for task in tasks:
            task.write = wire.delete_request(task.name)
        for task, what in await _send(link, tasks):
            if what not in (Wrote.DONE, Wrote.LOST):
                raise ProtocolError(f"memcached refused to delete {task.name!r}; the connection was dropped")
            task.result = Revoked()


async def _read(link: Link, tasks: list[Task]) -> None:
    request = b"".join([wire.read_request(task.name) for task in tasks])
    for task, reply in zip(tasks, await link.roundtrip(request, len(tasks)), strict=True):
        task.found = wire.found(reply, task.name)


async def _send(link: Link, tasks: list[Task]) -> list[tuple[Task, Wrote]]:
    if not tasks:
        return []
    for task in tasks:
        task.sent = True
    replies = await link.roundtrip(b"".join([task.write for task in tasks]), len(tasks))
    wrote = [(task, wire.wrote(reply, task.name)) for task, reply in zip(tasks, replies, strict=True)]
    for task in tasks:
        task.sent = False
        task.write = b""
    return wrote


def _without_content(task: Task, state: Item, answer: Answer, now_ms: int) -> tuple[Item | None, Answer]:
    """The content is too large: the reader's lease is of no more use, the writer's floor is."""
    if isinstance(task.op, Fill):
        return apply(task.item, Release(task.op.token), now_ms)[0], LeaseLost()
    if isinstance(task.op, Put):
        return apply(task.item, RaiseFloor(task.op.version, task.op.change, task.op.stale_ttl_ms), now_ms)
    return state, answer  # it was stored by somebody with another limit; the server's counts


def _as_refused(task: Task) -> Answer | None:
    """What a task that voids nothing is told when the server had no room for its write."""
    match task.op:
        case Fill():
            return LeaseLost()
        case Release():
            return NoOp()
        case _:
            return task.answer  # the caller may load, though nothing keeps others from it


def _as_beaten(task: Task) -> Answer:
    """What a task that voids nothing is told when others were faster in every round."""
    match task.op:
        case Get():
            return Held(HELD_RETRY_MS, task.item or Item())
        case Fill():
            return LeaseLost()
        case Claim():
            return Claimed()  # and lost at once: its put will find another lease, and raise the floor
        case _:
            return NoOp()
