"""Buses: logs that show a commit before it can be read, and one that repeats, delays, goes back and loses its past."""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import Any

from cachelib.errors import LogGap
from cachelib.model import RowChange
from cachelib.stores.base import LogBatch, LogEntry
from cachelib.testing.sim.profile import Deed
from cachelib.testing.sim.store import SimStore
from invalidator.sources.base import Capability, Committed, Event, Polled, Positions
from invalidator.sources.outbox import Outbox


class EarlyLog:
    """The store's log as whoever decodes its write-ahead log has it: `ChangeLog`, before the commit can be read."""

    def __init__(self, blocking: Any, store: SimStore) -> None:
        self._blocking = blocking
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blocking, name)

    def poll_changes(self, after: str, limit: int) -> LogBatch:
        return self._blocking._ask(lambda: self._entries(after, limit))

    def _entries(self, after: str, limit: int) -> LogBatch:
        store, since = self._store, int(after or 0)
        if since < store.purged or since > len(store.ahead):
            raise LogGap(f"nothing follows {after!r}")
        changes = store.ahead[since : since + limit]
        found = tuple(LogEntry(store.position(since + at + 1), change) for at, change in enumerate(changes))
        return LogBatch(found, store.position(since + len(found)))

    def log_end(self) -> str:
        return self._blocking._ask(lambda: self._store.position(len(self._store.ahead)))

    def horizon(self) -> str:
        """Every commit that cannot be read yet will be found behind it."""
        store = self._store
        return self._blocking._ask(lambda: store.position(min(store.unseen.values(), default=len(store.ahead))))


class EarlySource(Outbox):
    """An outbox over that."""

    capability = Capability("early", shows_early=True, watermark=False)

    def __init__(self, log: Any, consumer: str, position: str = "") -> None:
        super().__init__(log if isinstance(log, EarlyLog) else EarlyLog(log, log._store), consumer, position)

    def horizon(self) -> Positions:
        return {"log": self._log.horizon()}  # type: ignore[attr-defined]

    def reader(self, positions: Positions) -> EarlySource:
        return EarlySource(self._log, self._consumer, positions["log"])


class Bus:
    """Two partitions; a row is always in the same one. It takes a commit some time to get there."""

    def __init__(self, store: SimStore, random: Random) -> None:
        self.store = store
        self.random = random
        self.logs: list[list[RowChange]] = [[], []]
        self.purged = [0, 0]
        self.settled = [0, 0]
        """Up to here everything could be read when it was looked at last."""
        self.committed: Committed | None = None
        self._sent = 0
        self._held_until_us = 0
        self._pump_is_on = False
        store.recorded = self.woken

    # --- from the store ----------------------------------------------------------------------

    def woken(self) -> None:
        """Something was committed: it arrives in a while."""
        if not self._pump_is_on:
            self._pump_is_on = True
            self._pump_in(self.random.randint(500, 60_000))

    def _pump_in(self, us: int) -> None:
        self.store.loop.at(us, self._pump)

    def _pump(self) -> None:
        """What is new in the write-ahead log arrives, in its order."""
        store = self.store
        left_us = self._held_until_us - store.loop.now_us
        if left_us > 0:
            self._pump_in(min(left_us, 60_000))  # what holds it back may end before
        else:
            self._pump_is_on = False
            while self._sent < len(store.ahead):
                change = store.ahead[self._sent]
                self._sent += 1
                for partition in (0, 1) if change.op == "truncate" else (change.key["id"] % 2,):
                    self.logs[partition].append(change)
                store.loop.fire(store.news)

    # --- faults ------------------------------------------------------------------------------

    def do(self, deed: Deed) -> None:
        """Repeat what came, send older ones once more, lose the oldest, or hold back what is new."""
        random = Random(deed.seed)
        if deed.kind == "delay_bus":
            self._held_until_us = self.store.loop.now_us + deed.what[0]
            return
        partition = random.randrange(2)
        log = self.logs[partition]
        if not log:
            return
        if deed.kind == "repeat":
            log.append(log[-1])
        elif deed.kind == "rewind":  # the connector lost its own offset
            log += log[random.randrange(len(log)) :]
        elif deed.kind == "truncate_bus":
            self.purged[partition] = random.randint(self.purged[partition], len(log))

    def calm(self) -> None:
        """Nothing is held back any more."""
        self._held_until_us = 0

    def last(self) -> Positions:
        """The end of all that was committed; nowhere while something has not arrived."""
        if self._sent < len(self.store.ahead):
            return {"0": "~"}
        return {str(at): self.position(at, len(log)) for at, log in enumerate(self.logs)}

    # --- positions ---------------------------------------------------------------------------

    def position(self, partition: int, offset: int) -> str:
        return str(offset).zfill(12)

    def horizon(self, partition: int) -> int:
        """Before everything that a load may not see yet; what has not even arrived is behind it anyhow."""
        store = self.store
        since_us = store.loop.now_us - store.weather.lag_us

        def hidden(change: RowChange) -> bool:
            return store.shown.get(change.tx or 0, since_us + 1) > since_us

        log = self.logs[partition]
        return next((at for at, change in enumerate(log) if hidden(change)), len(log))


class BusSource:
    """A `ChangeSource` over it. Offsets as Kafka has them; what each call says is of the moment of the call."""

    capability = Capability("bus", shows_early=True, watermark=False, whole=False)

    def __init__(self, bus: Bus, at: Positions | None = None) -> None:
        self._bus = bus
        self._at: dict[str, str] = dict(at or {})

    def _ask(self, deed: Callable[[], Any]) -> Any:
        from tests.sim.daemon import blocking

        blocking(self._bus.store.travel())
        return deed()

    def open(self, done: Callable[[], Committed | None]) -> None:
        pass

    def moved(self) -> bool:
        return False

    def partitions(self) -> int:
        return 2

    def elsewhere(self) -> Positions:
        return {}

    def poll(self, limit: int, timeout_s: float) -> Polled:
        return self._ask(lambda: self._poll(limit))

    def _poll(self, limit: int) -> Polled:
        bus, before, events = self._bus, dict(self._at), []
        for partition, log in enumerate(bus.logs):
            since = int(before.get(str(partition)) or 0)
            if since < bus.purged[partition] or since > len(log):
                raise LogGap(f"offset {since} of partition {partition} is out of range")
            upto = min(len(log), since + limit)
            events += [Event(str(partition), bus.position(partition, at + 1), log[at]) for at in range(since, upto)]
            self._at[str(partition)] = bus.position(partition, upto)
        return Polled(tuple(events), before, dict(self._at))

    def rest(self) -> None:
        pass

    def seek(self, positions: Positions) -> None:
        self._at = dict(positions)

    def start(self) -> Positions:
        return {str(at): self._bus.position(at, purged) for at, purged in enumerate(self._bus.purged)}

    def end(self) -> Positions:
        return self._ask(lambda: {str(at): self._bus.position(at, len(self._bus.logs[at])) for at in (0, 1)})

    def horizon(self) -> Positions:
        return self._ask(lambda: {str(at): self._bus.position(at, self._bus.horizon(at)) for at in (0, 1)})

    def committed(self, nodes: Collection[str]) -> Committed | None:
        return self._bus.committed

    def commit(self, committed: Committed) -> None:
        self._ask(lambda: setattr(self._bus, "committed", committed))

    def forget(self, node: str) -> None:
        pass

    def reader(self, positions: Positions) -> BusSource:
        return BusSource(self._bus, positions)

    def purge(self) -> int:
        return 0

    def close(self) -> None:
        pass
