"""A world for the invalidator's unit tests: a store in memory, a clock that is set, nodes that fail on command.

Nothing here runs by itself: `world.go()` turns the service's loop and each worker a few times.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cachelib.backends.base import Batch, Results
from cachelib.backends.memory import Memory
from cachelib.entity import Entity
from cachelib.envelope import encode
from cachelib.errors import CacheFull, CacheUnavailable, ConfigError, LayoutConflict, LogGap, StoreError
from cachelib.layout import Layout, decode_layout, encode_layout, first_layout
from cachelib.model import Item, Name, RowChange, value_of
from cachelib.stores.base import LogBatch, LogEntry
from invalidator.config import load
from invalidator.dead_letters import DeadLetters
from invalidator.logs import open_log
from invalidator.node import NodeWorker
from invalidator.rules import Rules
from invalidator.service import Service
from invalidator.settings import Settings
from invalidator.sources.base import Capability, Polled
from invalidator.sources.outbox import Outbox

CUSTOMERS = Entity.from_table("customers", key="id")
ORDERS_OF = Entity("orders-of:{customer_id}", depends_on={"orders": "customer_id"})
NAMESPACE = "lc"


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def ms(self) -> int:
        return int(self.now_s * 1000)

    def us(self) -> int:
        return int(self.now_s * 1_000_000)


class FakeStore:
    """`Store` and `ChangeLog` as far as the invalidator goes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.who = "store-1"
        self.log: list[RowChange] = []
        self.purged = 0
        self.version = 0
        self.document: bytes | None = None
        self.consumers: dict[str, str] = {}
        self.broken = False

    def change(self, op: str = "update", table: str = "customers", **fields: Any) -> RowChange:
        """One committed change."""
        self.version += 1
        fields.setdefault("key", {} if op == "truncate" else {"id": 7})
        change = RowChange(table, op, version=self.version, at_us=self.clock.us(), **fields)  # type: ignore[arg-type]
        self.log.append(change)
        return change

    def _ask(self) -> None:
        if self.broken:
            raise StoreError("the store is down")

    def identity(self) -> str:
        self._ask()
        return self.who

    def highest_version(self) -> int:
        self._ask()
        return self.version

    def now_us(self) -> int:
        self._ask()
        return self.clock.us()

    def read_layout(self) -> bytes | None:
        self._ask()
        return self.document

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        self._ask()
        if self.document != expected:
            raise LayoutConflict("changed")
        self.document = document

    @property
    def layout(self) -> Layout:
        return decode_layout(self.document or b"")

    def poll_changes(self, after: str, limit: int) -> LogBatch:
        self._ask()
        since = int(after or 0)
        if since < self.purged or since > len(self.log):
            raise LogGap(f"nothing follows {after!r}")
        entries = tuple(LogEntry(at(n + 1), self.log[n]) for n in range(since, min(len(self.log), since + limit)))
        done = since + len(entries) == len(self.log)
        return LogBatch(entries, entries[-1].position if entries else after, self.clock.us() if done else None)

    def wait_for_changes(self, after: str, timeout_s: float) -> None:
        self._ask()

    def log_start(self) -> str:
        self._ask()
        return at(self.purged)

    def log_end(self) -> str:
        self._ask()
        return at(len(self.log))

    def save_consumer(self, consumer: str, position: str) -> None:
        self._ask()
        self.consumers[consumer] = position

    def load_consumer(self, consumer: str) -> str | None:
        self._ask()
        return self.consumers.get(consumer)

    def drop_consumer(self, consumer: str) -> None:
        self.consumers.pop(consumer, None)

    def purge(self) -> int:
        return 0


class FakeNode(Memory):
    """A memory that can be down, keep silent after it applied, and come back with what it once had."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock_ms=clock.ms)
        self.down = self.full = False
        self.loses_answers = 0
        self.applied: list[Batch] = []

    def _ask(self) -> None:
        if self.down:
            raise CacheUnavailable("the node is down")

    def apply(self, batch: Batch, notes: Mapping[Name, bytes], now_ms: int) -> Results:
        self._ask()
        results = super().apply(batch, {} if self.full else notes, now_ms)
        if batch:
            self.applied.append(batch)
        if self.full:
            raise CacheFull("no room for a note")
        if self.loses_answers:
            self.loses_answers -= 1
            raise CacheUnavailable("the connection broke")
        return results

    def read_notes(self, names: Any) -> list[bytes | None]:
        self._ask()
        return super().read_notes(names)

    def instance(self) -> str:
        self._ask()
        return super().instance()

    def snapshot(self) -> Any:
        return copy.deepcopy((self._items, self._notes))

    def restart_from(self, snapshot: Any) -> None:
        self.restart(copy.deepcopy(snapshot))

    def lose_notes(self) -> None:
        self._notes = {}


class EarlyOutbox(Outbox):
    """An outbox that claims to show commits before they can be read."""

    capability = Capability("early", shows_early=True, watermark=True)

    def reader(self, positions: Any) -> EarlyOutbox:
        return EarlyOutbox(self._log, self._consumer, positions["log"])

    def poll(self, limit: int, timeout_s: float) -> Polled:
        return super().poll(limit, 0)


class World:
    """A service over fakes."""

    def __init__(
        self,
        *names: str,
        source: type[Outbox] = Outbox,
        pool: bool = False,
        pace: Callable[[int], object] = lambda _: None,
        **apply: Any,
    ) -> None:
        self.clock = Clock()
        self.pace = pace
        self.store = FakeStore(self.clock)
        self.reached: dict[str, FakeNode] = {}
        if pool:  # a client was given several nodes before the daemon began
            self.store.document = encode_layout(first_layout(names))
        self.nodes = {name: FakeNode(self.clock) for name in names or ("a",)}
        self.source = source
        self.letters: DeadLetters | None = None
        self.rules = Rules([CUSTOMERS, ORDERS_OF])
        self.new_rules: Rules | ConfigError = self.rules
        # Each turn brings the positions up to date, unless a test says otherwise.
        self.settings = _settings({"positions": "50ms", "commit": "100ms", **apply})
        self.start()

    def start(self) -> None:
        """A new process, over the same store and nodes."""
        self.service = Service(
            self.settings,
            store=self.store,  # type: ignore[arg-type]
            source=self.source(self.store, "invalidator"),
            nodes=list(self.nodes.items()),
            reach=self._reach,
            rules=self.rules,
            reload=self._reload,
            log=open_log(replace(self.settings.log, level="error")),
            letters=self.letters,
            clock_s=self.clock,
            now_ms=self.clock.ms,
            turn_s=0.0,
            pace=self.pace,
        )
        self.service.begin()

    def _reach(self, name: str) -> FakeNode:
        """A node that the layout names and the settings do not."""
        return self.reached.setdefault(name, FakeNode(self.clock))

    def publish(self, change: Callable[[Layout], Layout]) -> Layout:
        """Change the layout, as another process does."""
        layout = change(self.store.layout)
        self.store.document = encode_layout(layout)
        return layout

    def _reload(self) -> Rules:
        if isinstance(self.new_rules, ConfigError):
            raise self.new_rules
        return self.new_rules

    def go(self, turns: int = 6, every_s: float = 0.3) -> None:
        """Turn the loop and each worker, time passing in between."""
        for _ in range(turns):
            self.clock.now_s += every_s
            self.service.turn()
            for worker in self.service.fleet:
                try:
                    worker.step()
                except (CacheUnavailable, StoreError) as error:
                    worker.failed(error)
            self.service.books.keep()

    def worker(self, name: str = "a") -> NodeWorker:
        return next(worker for worker in self.service.fleet if worker.name == name)

    def node(self, name: str = "a") -> FakeNode:
        return self.nodes[name]

    def name_of(self, text: str = "customers:7", *, coming: bool = False) -> bytes:
        """What the key is called now."""
        layout = self.store.layout
        placing = layout.next if coming and layout.next else layout.now
        return placing.prefix(NAMESPACE, text.partition(":")[0]) + text.encode()

    def cache(self, version: int, text: str = "customers:7", node: str = "a") -> bytes:
        """A client has filled an item; its name."""
        name = self.name_of(text)
        item = Item(value_of(b"x"), version=version, known=True, floor=version, expires_ms=self.clock.ms() + 3_600_000)
        self.nodes[node].plant(name, encode(item))
        return name

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(f"invalidator_{name}", labels) or 0.0


def at(number: int) -> str:
    """A position of the fake store's log."""
    return str(number).zfill(20)


def fresh(node: FakeNode, name: bytes) -> bool:
    """Whether the item would be served."""
    from cachelib.envelope import decode

    raw = node.get(name)
    return raw is not None and decode(raw).fresh


def _settings(apply: Mapping[str, Any]) -> Settings:
    return load(None, {}, {"apply": apply})
