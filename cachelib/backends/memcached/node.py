"""One memcached node over its links: the operations of `Backend`, written once for both faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

from cachelib.backends.base import Batch, ConnectionLost, Results
from cachelib.backends.memcached import wire
from cachelib.backends.memcached.links import Counts, Link, Links, ask
from cachelib.backends.memcached.replies import Reply
from cachelib.backends.memcached.rounds import Rounds, Task
from cachelib.backends.memcached.settings import Settings
from cachelib.backends.memcached.wire import Wrote
from cachelib.errors import BadKey, CacheError, CacheFull, CacheUnavailable
from cachelib.model import Answer, Name, Op

LinkT = TypeVar("LinkT", bound=Link)
T = TypeVar("T")

NO_NOTES: Mapping[Name, bytes] = MappingProxyType({})


class Node(Generic[LinkT]):
    """See `Backend` for what each does."""

    def __init__(self, links: Links[LinkT], settings: Settings, counts: Counts) -> None:
        self._links = links
        self._counts = counts
        self._rounds = Rounds(settings, counts)
        self._pipeline_max = settings.pipeline_max

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Backend.get_many`. More than `pipeline_max` names take several round trips."""
        wire.check_names(names)
        values: list[bytes | None] = []
        for some in _pages(names, self._pipeline_max):
            values += await self._values(some)
        return values

    async def _values(self, names: Sequence[Name]) -> list[bytes | None]:
        def read(replies: list[Reply]) -> list[bytes | None]:
            return [wire.value(reply, name) for reply, name in zip(replies, names, strict=True)]

        request = wire.values_request(names)
        return await ask(self._links, self._counts, request, len(names), read)

    async def instance(self) -> str:
        """See `Backend.instance`."""
        return await ask(self._links, self._counts, wire.STATS_REQUEST, 1, lambda replies: wire.instance(replies[0]))

    async def empty(self) -> bool:
        """See `base.Tells`."""
        return await ask(self._links, self._counts, wire.STATS_REQUEST, 1, lambda replies: wire.is_empty(replies[0]))

    # --- operations --------------------------------------------------------------------------

    async def execute(self, name: Name, op: Op, now_ms: int) -> Answer:
        """See `Backend.execute`."""
        wire.check_name(name)
        task = Task(name, op)
        await self._run([task], now_ms)
        (result,) = _results([task])
        if isinstance(result, CacheError):
            raise result
        return result

    async def execute_many(self, batch: Batch, now_ms: int) -> Results:
        """See `Backend.execute_many`."""
        tasks = [_task(name, op) for name, op in batch]
        for some in _pages([task for task in tasks if task.result is None], self._pipeline_max):
            if not await self._run(some, now_ms):
                break
        return _results(tasks)

    async def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        """See `Backend.apply`."""
        if not notes:
            return await self.execute_many(batch, now_ms)
        for name in notes:
            wire.check_name(name)
        tasks = [_task(name, op) for name, op in batch]
        try:
            # I11: all on one connection, and none that took another's place: a server that restarts
            # in the middle must not be told that it knows the beginning.
            await self._on_one_link(tasks, now_ms, notes)
        except CacheUnavailable as error:
            if not _unanswered(tasks):
                raise
            _fail(tasks, error)
        return _results(tasks)

    async def _run(self, tasks: Sequence[Task], now_ms: int) -> bool:
        """Bring all to a result. False: the node fails, and more need not be tried."""
        try:
            await self._on_one_link(tasks, now_ms)
            return True
        except ConnectionLost as lost:
            # What may have taken effect is repeated only where that does no harm.
            _fail([task for task in tasks if task.sent and not task.repeatable], lost)
        except CacheUnavailable as error:
            _fail(tasks, error)
            return False
        if not _unanswered(tasks):
            return True
        self._counts.add("reconnected")
        try:
            await self._on_one_link(tasks, now_ms, fresh=True)  # I14: by reading again
            return True
        except CacheUnavailable as error:
            _fail(tasks, error)
            return False

    async def _on_one_link(
        self, tasks: Sequence[Task], now_ms: int, notes: Mapping[Name, bytes] = NO_NOTES, *, fresh: bool = False
    ) -> None:
        link = await self._links.take(fresh=fresh)
        try:
            for some in _pages(_unanswered(tasks), self._pipeline_max):
                await self._rounds.run(link, some, now_ms)
            if notes and not any(isinstance(task.result, CacheError) for task in tasks):
                await _keep(link, notes)
        except BaseException as error:  # a cancelled call, too, leaves replies behind
            self._links.drop(link, error)
            raise
        self._links.give_back(link)


async def _keep(link: Link, notes: Mapping[Name, bytes]) -> None:
    request = b"".join([wire.note_request(name, raw) for name, raw in notes.items()])
    for name, reply in zip(notes, await link.roundtrip(request, len(notes)), strict=True):
        what = wire.wrote(reply, name)
        if what is not Wrote.DONE:
            raise CacheFull(f"memcached did not keep the note {name!r} ({what.value}): give it more memory")


def _task(name: Name, op: Op) -> Task:
    try:
        wire.check_name(name)
    except BadKey as error:
        return Task(name, op, result=error)
    return Task(name, op)


def _unanswered(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.result is None]


def _fail(tasks: Sequence[Task], error: CacheUnavailable) -> None:
    for task in _unanswered(tasks):
        task.result = error


def _results(tasks: Sequence[Task]) -> Results:
    unavailable = CacheUnavailable("not tried: the node failed for the names before this one")
    return [unavailable if task.result is None else task.result for task in tasks]


def _pages(all_of: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (all_of[at : at + size] for at in range(0, len(all_of), size))
