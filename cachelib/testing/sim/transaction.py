"""Transactions of the simulated store: one statement's snapshot to read, and one that writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cachelib.errors import CommitUnknown, StoreError
from cachelib.model import ChangeOp, Row, RowChange
from cachelib.stores.base import LogEntry
from cachelib.testing.sim.loop import Process, Signal, pause, until

if TYPE_CHECKING:
    from cachelib.testing.sim.store import SimStore

TABLE = "rows"
LOCK_WAIT_US = 2_000_000
"""Who waits so long for a row's lock gives up: it may be a circle."""


class Held(NamedTuple):
    """A row. `tag` names the write that made it; no two are the same."""

    grp: int
    tag: int
    version: int


class Reading:
    """What loaders read through: one statement's snapshot."""

    def __init__(self, store: SimStore, lag_us: int = 0) -> None:
        self._store = store
        self._lag_us = lag_us

    async def rows_of(self, numbers: Collection[int]) -> dict[int, Any]:
        """Value and version of these rows, from one statement."""
        rows = self._store.seen_from(self._lag_us)
        return {number: _row(rows[number], self._store.weather.versions) for number in numbers if number in rows}

    async def lists_of(self, groups: Collection[int]) -> dict[int, Any]:
        """The rows of each group that has any."""
        rows = self._store.seen_from(self._lag_us)
        found = {grp: [[at, row.tag] for at, row in sorted(rows.items()) if row.grp == grp] for grp in groups}
        return {grp: members for grp, members in found.items() if members}


class Transaction:
    """A `StoreTransaction`, awaited."""

    def __init__(self, store: SimStore, process: Process) -> None:
        self.store = store
        self.process = process
        self.connection = self
        self.number = 0
        self.recorded = False
        self.places: list[tuple[str, int]] = []
        """The keys that it changed, and where in the truth; set when it can be read."""
        self.fate = "well"
        """Or "slow": the client is told much later than others can read it; "lost": it is not told how the commit
        ended; "late": and it happens afterwards; "never": and it does not happen."""
        self._own: dict[int, Held | None] = {}
        self._changes: list[RowChange] = []
        self._truncated = False

    # --- what the application asks -----------------------------------------------------------

    def row(self, number: int) -> Held | None:
        """The row as this transaction sees it."""
        return self._own[number] if number in self._own else self.store.rows.get(number)

    async def rows_of(self, numbers: Collection[int]) -> dict[int, Any]:
        """See `Reading`; sees its own changes."""
        found = {number: self.row(number) for number in numbers}
        return {at: _row(row, self.store.weather.versions) for at, row in found.items() if row is not None}

    async def lists_of(self, groups: Collection[int]) -> dict[int, Any]:
        """Lists are never written through."""
        raise AssertionError("a key of many rows was read to be put")

    async def save(self, number: int, grp: int, tag: int) -> None:
        """Insert the row, or update it."""
        await self._lock(number)
        before = self.row(number)
        self._change(number, before, Held(grp, tag, self._draw()))

    async def remove(self, number: int) -> None:
        """Delete the row, where there is one."""
        await self._lock(number)
        before = self.row(number)
        if before is not None:
            self._change(number, before, None)

    async def truncate(self) -> None:
        """Delete all rows: nobody is told their keys."""
        for number in sorted(self.store.rows):
            await self._lock(number)
        self._own = dict.fromkeys(self.store.rows)
        self._truncated = True
        self._changes.append(RowChange(TABLE, "truncate", version=self._draw(), tx=self._begun()))

    # --- `OpenTransaction` -------------------------------------------------------------------

    async def changes(self) -> Sequence[RowChange] | None:
        """See `StoreTransaction.changes`."""
        await self.store.travel()
        return None if self._truncated else tuple(self._changes)

    async def touched(self) -> frozenset[str]:
        """See `StoreTransaction.touched`."""
        return frozenset(change.table for change in self._changes)

    async def load(self, loader: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
        """Run a loader in here."""
        await self.store.travel()
        rows: Mapping[Any, Any] = await loader(self, keys)
        return rows

    async def commit(self) -> None:
        """See `StoreTransaction.commit`."""
        store, random = self.store, store_random(self.store)
        if self.fate in ("late", "never"):
            if self.fate == "late":
                store.loop.at(random.randint(1, 400_000), self._record)
                self.recorded = True
            await pause(random.randint(100, 200_000))
            raise CommitUnknown("the connection broke before the store answered")
        await store.travel()
        seen = self._record()
        await until(seen, 10_000_000)  # the store answers once it can be read
        if self.fate == "lost":
            raise CommitUnknown("the connection broke before the store answered")
        if self.fate == "slow":
            await pause(random.randint(1_000, random.choice([10_000, 100_000, 1_000_000])))
        await store.travel()

    async def rollback(self) -> None:
        """See `StoreTransaction.rollback`."""
        self.end()

    def end(self) -> None:
        """Let go of everything, unless it is committed."""
        store = self.store
        self.recorded = True
        for number in [number for number, tx in store.locks.items() if tx is self]:
            del store.locks[number]
        store.running.discard(self.number)
        store.loop.fire(store.unlocked)

    # --- how ---------------------------------------------------------------------------------

    async def _lock(self, number: int) -> None:
        store = self.store
        await store.travel()
        last_us = store.loop.now_us + LOCK_WAIT_US
        while store.locks.setdefault(number, self) is not self:
            if store.loop.now_us >= last_us:
                raise StoreError(f"row {number} stays locked")
            await until(store.unlocked, last_us - store.loop.now_us)
        self._begun()

    def _begun(self) -> int:
        if not self.number:
            self.number = self.store.next_tx
            self.store.next_tx += 1
            self.store.running.add(self.number)
        return self.number

    def _draw(self) -> int:
        self.store.version += 1
        return self.store.version

    def _change(self, number: int, before: Held | None, after: Held | None) -> None:
        op: ChangeOp = "create" if before is None else "delete" if after is None else "update"
        version = (after.version if after is not None else self._draw()) if self.store.weather.versions else None
        self._own[number] = after
        self._changes.append(
            RowChange(
                TABLE,
                op,
                {"id": number},
                version,
                None if before is None else {"id": number, "grp": before.grp},
                None if after is None else {"id": number, "grp": after.grp, "tag": after.tag},
                self.number,
                self.store.loop.now_us,
            )
        )

    def _record(self) -> Signal:
        """The commit's record is in the log. Returns what is fired when everybody can read it."""
        store, seen = self.store, Signal()
        self.recorded = True
        if self._changes:
            store.unseen[self.number] = len(store.ahead)
            store.ahead += self._changes
            store.recorded()
            store.loop.fire(store.news)
        hidden_us = store_random(store).randint(0, store.weather.hidden_us) if store.weather.hidden_us else 0
        store.loop.at(hidden_us, lambda: self._show(seen))
        return seen

    def _show(self, seen: Signal) -> None:
        store = self.store
        rows = {**store.rows, **{at: row for at, row in self._own.items() if row is not None}}
        for number in [number for number, row in self._own.items() if row is None]:
            rows.pop(number, None)
        self.places = store.become(rows)
        for change in self._changes:
            store.log.append(LogEntry(store.position(len(store.log) + 1), change))
        store.unseen.pop(self.number, None)
        store.shown[self.number] = store.loop.now_us
        self.end()
        store.loop.fire(seen)
        store.loop.fire(store.news)
        if store.loop.story is not None:
            what = ", ".join(f"{change.op} {dict(change.key)} version {change.version}" for change in self._changes)
            store.loop.say(self.process.name, f"has committed: {what or 'nothing'}")


def store_random(store: SimStore) -> Any:
    """Chance, as the task that is running has it."""
    return store.loop.current.random


def _row(row: Held, versions: bool) -> Any:
    value = [row.grp, row.tag]
    return Row(value, row.version) if versions else value


def value_of_row(columns: Mapping[str, Any]) -> Any:
    """What `load_rows` gives as the value, of a row as the change log has it."""
    return [columns["grp"], columns["tag"]]


def shown(rows: Mapping[Any, Any]) -> str:
    """Rows for a story."""
    return ", ".join(f"{at}={row.value if isinstance(row, Row) else row}" for at, row in rows.items()) or "no row"


async def load_rows(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
    """The loader of row keys."""
    rows: Mapping[Any, Any] = await tx.rows_of(keys)
    return rows


async def load_lists(tx: Any, keys: Sequence[Any]) -> Mapping[Any, Any]:
    """The loader of keys of many rows."""
    rows: Mapping[Any, Any] = await tx.lists_of(keys)
    return rows


async def save_row(tx: Any, key: Any, value: Any) -> None:
    """Write a row."""
    await tx.save(key, *value)


async def remove_row(tx: Any, key: Any) -> None:
    """Delete a row."""
    await tx.remove(key)
