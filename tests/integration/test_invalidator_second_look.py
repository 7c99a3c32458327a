"""The second look on a real PostgreSQL, with a commit that its log shows and nobody can read yet.

The commit is held where the race is: a synchronous standby that does not exist lets it wait after it is in the
write-ahead log, where logical decoding reads it, and before its row becomes visible.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cachelib.backends.memory import Memory
from cachelib.entity import Entity
from cachelib.envelope import decode, encode
from cachelib.errors import StoreError
from cachelib.layout import decode_layout
from cachelib.model import Item, RowChange, value_of
from cachelib.stores import SqlStore
from invalidator.config import load
from invalidator.logs import open_log
from invalidator.looks import LOOK_EVERY_S
from invalidator.rules import Rules
from invalidator.service import Service
from invalidator.sources.base import Capability, Committed, Event, Polled, Positions
from tests.integration.invalidator_daemon import CUSTOMERS, Daemon, Shop, cached, client, until
from tests.servers.connect import Debezium
from tests.servers.kafka import KafkaServer
from tests.servers.ports import free_port
from tests.servers.postgresql import PostgresServer

ITEMS = Entity.from_table("items", key="id")
PARTITION = "slot"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Its own, for it stops committing."""
    with PostgresServer(synchronous_commit="local") as server:
        yield server


@pytest.fixture
def database(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = server.create_database(request.node.name)
    yield name
    hold(server, "")
    server.drop_database(name)


def hold(server: PostgresServer, standby: str) -> None:
    with server.connect() as conn:
        conn.execute(f"alter system set synchronous_standby_names = '{standby}'")
        conn.execute("select pg_reload_conf()")


class Slot:
    """A `ChangeSource` that reads a replication slot as a connector does, with 32 bits of the transaction id."""

    capability = Capability("slot", shows_early=True, watermark=False)

    def __init__(self, conn: psycopg.Connection[Any], seen: list[Event], at: int = 0) -> None:
        self._conn = conn
        self._seen = seen
        self._at = at
        self.saved: Committed | None = None

    def poll(self, limit: int, timeout_s: float) -> Polled:
        self._read()
        events = tuple(self._seen[self._at : self._at + limit])
        before, self._at = self._at, self._at + len(events)
        return Polled(events, {PARTITION: _place(before)}, {PARTITION: _place(self._at)})

    def _read(self) -> None:
        tx = 0
        for _, xid, line in self._conn.execute("select * from pg_logical_slot_get_changes('slot', null, null)"):
            tx = int(xid)
            found = re.match(r"table public\.items: (\w+): id\[integer\]:(\d+)", line)
            if found:
                op: Any = {"INSERT": "create", "UPDATE": "update", "DELETE": "delete"}[found[1]]
                change = RowChange("items", op, {"id": int(found[2])}, tx=tx % 2**32)
                self._seen.append(Event(PARTITION, _place(len(self._seen) + 1), change))

    def open(self, done: Callable[[], Committed | None]) -> None: ...

    def moved(self) -> bool:
        return False

    def partitions(self) -> int:
        return 1

    def elsewhere(self) -> Positions:
        return {}

    def rest(self) -> None: ...

    def seek(self, positions: Positions) -> None:
        self._at = int(positions[PARTITION] or 0)

    def start(self) -> Positions:
        return {PARTITION: _place(0)}

    def at(self, time_us: int) -> Positions:
        return self.start()

    def end(self) -> Positions:
        return {PARTITION: _place(len(self._seen))}

    def horizon(self) -> Positions:
        return self.start()

    def committed(self, nodes: Collection[str]) -> Committed | None:
        return self.saved

    def commit(self, committed: Committed) -> None:
        self.saved = committed

    def forget(self, node: str) -> None: ...

    def reader(self, positions: Positions) -> Slot:
        return Slot(self._conn, self._seen, int(positions[PARTITION] or 0))

    def purge(self) -> int:
        return 0

    def close(self) -> None: ...


def _place(number: int) -> str:
    return str(number).zfill(20)


class World:
    """A store with a slot, a daemon that is turned by hand, and a node."""

    def __init__(self, server: PostgresServer, database: str, conn: psycopg.Connection[Any]) -> None:
        self.server, self.database = server, database
        self.store = SqlStore(server.url_of(database))
        self.sql("create table items (id int primary key, value text)")
        self.sql("insert into items values (1, 'old')")
        self.store.install("items")
        self.sql("select pg_create_logical_replication_slot('slot', 'test_decoding')")
        self.node = Memory()
        self.later_s = 0.0
        self.source = Slot(conn, [])
        rules = Rules([ITEMS])
        settings = load(None, {}, {"apply": {"settle_delay": "1h", "positions": "50ms"}, "log": {"level": "error"}})
        self.service = Service(
            settings,
            store=self.store,
            source=self.source,
            nodes=[("a", self.node)],
            rules=rules,
            reload=lambda: rules,
            log=open_log(settings.log),
            clock_s=lambda: time.monotonic() + self.later_s,
            turn_s=0.0,
        )
        self.service.begin()
        self.go()

    def sql(self, statement: str) -> None:
        with self.server.connect(self.database) as conn:
            conn.execute(statement)

    def go(self, turns: int = 6) -> None:
        for _ in range(turns):
            self.later_s += LOOK_EVERY_S  # so that each may ask the store
            self.service.turn()
            for worker in self.service.fleet:
                try:
                    worker.step()
                except StoreError as error:  # the loop would try again
                    worker.failed(error)
            self.service.books.keep()

    def fill(self) -> bytes:
        """A reader that loads what it can see, into the slot that an eviction has emptied."""
        loaded = self.store.load(self.store.table_loader("items", "id", "row_version"), [1])
        row = loaded.rows[1]
        prefix = decode_layout(self.store.read_layout() or b"").now.prefix("lc", "items")
        item = Item(value_of(row.value["value"].encode()), version=row.version, known=True, floor=row.version)
        self.node.plant(prefix + b"items:1", encode(item.but(expires_ms=2**52)))
        return bytes(prefix + b"items:1")

    def fresh(self, name: bytes) -> bool:
        raw = self.node.get(name)
        return raw is not None and decode(raw).fresh

    def metric(self, name: str) -> float:
        return self.service.metrics.registry.get_sample_value(f"invalidator_{name}") or 0.0


@pytest.fixture
def world(server: PostgresServer, database: str) -> Iterator[World]:
    with server.connect(database) as conn:
        made = World(server, database, conn)
        yield made
        made.store.close()


class Held:
    """A statement whose commit is in the log, and waits."""

    def __init__(self, world: World, statement: str) -> None:
        self._world = world
        hold(world.server, "nobody")
        self._thread = threading.Thread(target=self._run, args=(statement,))
        self._thread.start()
        until(self._waits)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._world.server.dsn(self._world.database)) as conn:
            conn.execute("set synchronous_commit = on")
            conn.execute(statement)  # type: ignore[call-overload]

    def _waits(self) -> bool:
        with self._world.server.connect() as conn:
            asked = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
            return bool((conn.execute(asked).fetchone() or [0])[0])

    def release(self) -> None:
        hold(self._world.server, "")
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def held(world: World) -> Iterator[Callable[[str], Held]]:
    made: list[Held] = []

    def begin(statement: str) -> Held:
        made.append(Held(world, statement))
        return made[-1]

    yield begin
    for one in made:
        one.release()


pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_commit_that_the_log_shows_early_is_applied_again_when_it_can_be_read(
    world: World, held: Callable[[str], Held]
) -> None:
    commit = held("update items set value = 'new' where id = 1")
    world.go()
    assert [event.change.key["id"] for event in world.source._seen] == [1], "the log did not show the commit"
    name = world.fill()  # evicted after the first look; the row that can be read is the old one
    world.go()
    assert world.fresh(name)
    assert world.source.saved is not None
    assert world.source.saved.positions == {PARTITION: _place(0)}

    commit.release()
    world.go()
    assert not world.fresh(name)
    assert world.source.saved.positions == {PARTITION: _place(1)}
    assert world.metric("second_looks_total") == 1


def test_changes_that_can_be_read_are_not_looked_at_again_beside_one_that_cannot(
    world: World, held: Callable[[str], Held]
) -> None:
    commit = held("update items set value = 'new' where id = 1")
    for number in range(10, 40):
        world.sql(f"insert into items values ({number}, 'x')")
    world.go()
    assert world.metric("second_looks_pending") < 10
    assert world.source.saved is not None
    assert world.source.saved.positions == {PARTITION: _place(0)}
    commit.release()
    world.go()
    assert world.source.saved.positions == {PARTITION: _place(31)}
    assert world.metric("second_looks_total") == 1


def test_the_snapshot_follows_transactions_over_their_life(world: World) -> None:
    store = world.store
    with world.server.connect(world.database) as conn, conn.transaction():
        (tx,) = conn.execute("select pg_current_xact_id()::text::bigint").fetchone() or (0,)
        world.sql("insert into items values (2, 'x')")  # a later one that ends before
        snapshot = store.snapshot()
        assert snapshot is not None
        assert not snapshot.shows(tx)
        assert not snapshot.shows(tx % 2**32)
    after = store.snapshot()
    assert after is not None
    assert after.shows(tx)


# --- with the connector, and the daemon as a process ---------------------------------------------


def test_through_debezium_a_change_is_done_when_its_transaction_can_be_read(
    server: PostgresServer, database: str, kafka_server: KafkaServer, redis_url: str, tmp_path: Path
) -> None:
    prefix = f"early{free_port()}"
    with (
        closing(Shop(server.url_of(database))) as shop,
        Debezium(kafka_server, server, database, ["public.customers"], prefix=prefix) as connector,
    ):
        shop.sql("update customers set tier = 'silver'")
        topic = connector.topic("customers")
        until(lambda: topic in topics(kafka_server))
        daemon = Daemon(
            tmp_path,
            shop.url,
            [redis_url],
            source={"kind": "kafka"},
            kafka={"bootstrap": [kafka_server.bootstrap]},
            kafka_source={"topics": [topic], "group": topic},
            apply={"settle_delay": "1h"},  # so that nothing is done by time
        )
        with daemon, client(shop, redis_url) as cache:
            assert cached(cache) == "silver"
            for _ in range(10):
                shop.sql("update customers set tier = 'gold'")
            until(lambda: cached(cache) == "gold")
            until(lambda: daemon.metric("changes_total", table="customers") >= 200)
            until(lambda: done_to_the_end(daemon))
            assert cached(cache) == "gold"

            with held_commit(server, database, "update customers set tier = 'iron' where id = 7"):
                until(lambda: daemon.metric("second_looks_pending") > 0)
                until(lambda: cache.read(CUSTOMERS, 7).source != "hit")  # voided at the first look
                # Only the old row can be read. It is below the floor, so it is returned and not kept (I3).
                seen = [cache.read(CUSTOMERS, 7) for _ in range(3)]
                assert [(one.value["tier"], one.source) for one in seen] == [("gold", "store")] * 3
                assert not done_to_the_end(daemon)
            until(lambda: done_to_the_end(daemon))
            until(lambda: cached(cache) == "iron")
            print(
                f"{daemon.metric('changes_total'):.0f} changes, {daemon.metric('second_looks_total'):.0f} looked again"
            )


def topics(kafka: KafkaServer) -> Collection[str]:
    with kafka.admin() as admin:
        return set(admin.list_topics())


def done_to_the_end(daemon: Daemon) -> bool:
    status = daemon.status()
    return bool(status["committed"]) and status["committed"] == status["read"]


@contextmanager
def held_commit(server: PostgresServer, database: str, statement: str) -> Iterator[None]:
    """While it lasts, the statement is committed in the log and nobody can read it."""
    hold(server, "nobody")

    def run() -> None:
        with psycopg.connect(server.dsn(database)) as conn:
            conn.execute("set synchronous_commit = on")
            conn.execute(statement)  # type: ignore[call-overload]

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        hold(server, "")
        thread.join(20)
        assert not thread.is_alive()
