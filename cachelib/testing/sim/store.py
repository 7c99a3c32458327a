"""A store with rows, locks, versions and a change log. A commit shows in its log before others can read it.

The table `rows` has the columns id, grp and tag. A transaction draws a row's version under the row's
lock and keeps the lock until the commit can be read, as PostgreSQL does; so versions rise in commit
order for each row, and say nothing across rows. What happens between two pauses is one moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cachelib.errors import LayoutConflict, LogGap, StoreError
from cachelib.layout import encode_layout, first_layout
from cachelib.model import RowChange
from cachelib.stores.base import Loaded, LogBatch, LogEntry, Snapshot
from cachelib.testing.sim.history import Truth
from cachelib.testing.sim.loop import Loop, Process, Signal, pause
from cachelib.testing.sim.transaction import Held, Reading, Transaction, shown


@dataclass(frozen=True, slots=True)
class Weather:
    """How the store behaves; times in microseconds, the slow ones being the most that happens."""

    versions: bool = True
    slow: float = 0.0
    """This share of its answers is slow."""
    slow_us: int = 50_000
    hidden_us: int = 0
    """A commit stands in the log up to so long before it can be read."""
    lag_us: int = 0
    """Loads ask a replica that is so far behind."""


def _nobody_asks() -> None:
    pass


def row_key(number: int) -> str:
    """The key of a row, as histories name it."""
    return f"row:{number}"


def list_key(group: int) -> str:
    """The key of a group's list."""
    return f"list:{group}"


class SimStore:
    """An `AsyncStore`, and what a `ChangeLog` knows. See the module."""

    def __init__(self, loop: Loop, truth: Truth, weather: Weather, rows: Mapping[int, Held], groups: int) -> None:
        self.loop = loop
        self.truth = truth
        self.weather = weather
        self.rows = dict(rows)
        self.version = max((row.version for row in rows.values()), default=0)
        self.next_tx = 1
        self.running: set[int] = set()
        self.log: list[LogEntry] = []
        self.purged = 0
        self.ahead: list[RowChange] = []
        """What a reader of the write-ahead log has seen: commits, perhaps not yet readable."""
        self.unseen: dict[int, int] = {}
        """Transactions that stand in `ahead` and cannot be read yet, and where they begin in it."""
        self.shown: dict[int, int] = {}
        """Transactions that can be read, and since when."""
        self.news = Signal()
        self.recorded: Callable[[], None] = _nobody_asks
        """Called when a commit has come to stand in `ahead`."""
        self.document: bytes | None = encode_layout(first_layout())
        self.consumers: dict[str, str] = {}
        self.who = "store-1"
        self.down = False
        self.cut: dict[str, int] = {}
        """Programs that do not reach it, until when."""
        self.slow_loads: dict[str, tuple[int, int]] = {}
        """Programs whose next load takes so much longer, microseconds: from its clock to its snapshot, and after."""
        self.groups = range(groups)
        self.locks: dict[int, Transaction] = {}
        self.unlocked = Signal()
        self.past: list[tuple[int, dict[int, Held]]] = [(loop.now_us, dict(rows))]
        for number in rows:
            truth.commit(row_key(number), self.state(number), loop.now_us)
        for group in self.groups:
            truth.commit(list_key(group), self.members(group), loop.now_us)

    # --- what it holds -----------------------------------------------------------------------

    def state(self, number: int) -> tuple[int, int] | None:
        """What a read of the row gives: its group and its tag."""
        row = self.rows.get(number)
        return None if row is None else (row.grp, row.tag)

    def members(self, group: int) -> tuple[tuple[int, int], ...] | None:
        """What a read of the group's list gives: ids and tags; None for an empty one."""
        found = sorted((number, row.tag) for number, row in self.rows.items() if row.grp == group)
        return tuple(found) or None

    def seen_from(self, lag_us: int) -> dict[int, Held]:
        """The rows as they could be read so long ago."""
        if not lag_us:
            return self.rows
        since_us = self.loop.now_us - lag_us
        return next((rows for at_us, rows in reversed(self.past) if at_us <= since_us), self.past[0][1])

    def become(self, rows: dict[int, Held]) -> list[tuple[str, int]]:
        """From now on these can be read. Returns the keys that are another now, and their places in the order."""
        before, self.rows = self.rows, rows
        self.past.append((self.loop.now_us, dict(rows)))
        changed = [number for number in sorted({*before, *rows}) if before.get(number) != rows.get(number)]
        places = [(row_key(number), self.state(number)) for number in changed]
        for group in self.groups:
            members: Any = self.members(group)
            if members != self.truth.last(list_key(group)):
                places.append((list_key(group), members))
        return [(key, self.truth.commit(key, state, self.loop.now_us)) for key, state in places]

    def ask(self) -> None:
        """Raise `StoreError` where it does not answer."""
        if self.down:
            raise StoreError("the store is down")
        if self.cut and self.cut.get(self.loop.current.process.name, 0) > self.loop.now_us:
            raise StoreError("the store cannot be reached")

    async def travel(self) -> None:
        """The way to the store, or back."""
        random = self.loop.current.random
        slow = self.weather.slow and random.random() < self.weather.slow
        await pause(50 + int((self.weather.slow_us if slow else 850) * random.random()))
        self.ask()

    # --- `AsyncStore` ------------------------------------------------------------------------

    async def identity(self) -> str:
        """See `Store.identity`."""
        await self.travel()
        return self.who

    async def now_us(self) -> int:
        """See `Store.now_us`."""
        await self.travel()
        now_us = self.loop.now_us
        await self.travel()
        return now_us

    async def load(self, loader: Any, keys: Sequence[Any], *, timeout_s: float | None = None) -> Loaded:
        """See `Store.load`."""
        task = self.loop.current
        task.loads += 1
        await self.travel()
        as_of_us = self.loop.now_us
        early_us, late_us = self.slow_loads.pop(task.process.name, (0, 0))
        # `now()` is of the transaction's begin, the snapshot comes later.
        await pause(early_us + int(300 * task.random.random()))
        rows = await loader(Reading(self, self.weather.lag_us), keys)
        if self.loop.story is not None:
            self.loop.say(task.process.name, f"loads {list(keys)}: {shown(rows)}")
        if late_us:
            await pause(late_us)
        await self.travel()
        return Loaded(rows, as_of_us)

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[Transaction]:
        """See `Store.transaction`."""
        await self.travel()
        tx = Transaction(self, self.loop.current.process)
        try:
            yield tx
        finally:
            if not tx.recorded:
                tx.end()

    async def read_layout(self) -> bytes | None:
        """See `Store.read_layout`."""
        await self.travel()
        document = self.document
        await self.travel()
        return document

    async def write_layout(self, document: bytes, expected: bytes | None) -> None:
        """See `Store.write_layout`."""
        await self.travel()
        if self.document != expected:
            raise LayoutConflict("changed")
        self.document = document
        self.loop.say(self.loop.current.process.name, f"publishes the layout {document.decode()[:200]}")
        await self.travel()

    async def close(self) -> None:
        """See `Store.close`."""

    # --- the change log, by SELECT -----------------------------------------------------------

    def position(self, number: int) -> str:
        """A position behind so many entries."""
        return str(number).zfill(12)

    def entries(self, after: str, limit: int) -> LogBatch:
        """See `ChangeLog.poll_changes`."""
        since = int(after or 0)
        if since < self.purged or since > len(self.log):
            raise LogGap(f"nothing follows {after!r}")
        found = tuple(self.log[since : since + limit])
        done = since + len(found) == len(self.log)
        return LogBatch(found, self.position(since + len(found)), self.loop.now_us if done else None)

    def snapshot(self) -> Snapshot:
        """Which transactions can be read by whoever begins now."""
        running = self.running | set(self.unseen)
        return Snapshot(min(running, default=self.next_tx), self.next_tx, frozenset(running))

    def forget(self, process: Process) -> None:
        """A client is gone: what it had not committed is rolled back."""
        for tx in [tx for tx in self.locks.values() if tx.process is process and not tx.recorded]:
            tx.end()
