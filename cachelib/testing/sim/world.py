"""The world of one run: builds it from a plan, does the deeds, checks what is read.

Longer than 300 lines because each deed of a client is a few lines here, beside the check of what it gave.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, Protocol

from cachelib import history
from cachelib.entity import Entity
from cachelib.envelope import decode
from cachelib.errors import CacheError, DecodeError
from cachelib.layout import decode_layout
from cachelib.model import Kind
from cachelib.testing.sim.cas_node import CasNode
from cachelib.testing.sim.client import Cancelled, Client, SimCache
from cachelib.testing.sim.faults import FAULTS, Fault
from cachelib.testing.sim.history import Begun, History, Truth, Violation
from cachelib.testing.sim.loop import START_US, Loop, Process, Task
from cachelib.testing.sim.node import PlainNode
from cachelib.testing.sim.profile import SECOND_US, Deed, Plan
from cachelib.testing.sim.stage import Stage
from cachelib.testing.sim.store import SimStore, row_key
from cachelib.testing.sim.transaction import Held
from cachelib.testing.sim.users import ABSENT, CALLS, User

NOTHING, DAMAGED = object(), object()
SETTLE_US = 90 * SECOND_US
"""Everything is quiet after so long at the latest."""
LOOK_US = SECOND_US // 4
END_US = 40 * SECOND_US
"""A call ends after so long at the latest (I10)."""


class Companion(Protocol):
    """Whoever reads the change log and tells the nodes."""

    def begin(self, world: World) -> None:
        """Start it."""

    def do(self, deed: Deed) -> bool:
        """Faults of its own. False: that is none."""

    def calm(self) -> None:
        """Nothing goes wrong any more."""

    def quiet(self) -> bool:
        """Everything that was committed is told."""


CacheOf = Callable[..., Any]
Call = Callable[[Client, Deed], Coroutine[Any, Any, None]]


class World:
    """See the module. `cache_of` makes a client's cache: another than ours, where a baseline is measured."""

    def __init__(self, plan: Plan, *, told: bool = False, cache_of: CacheOf = SimCache) -> None:
        profile = plan.profile
        self.plan, self.profile = plan, profile
        self.loop = Loop(Random(plan.seed ^ 0x51AF))
        Stage.loop = self.loop
        history.KEYS_MAX = profile.marks
        self.loop.story = [] if told else None
        self.truth = Truth()
        rows = {at: Held(at % profile.groups, -at - 1, at + 1) for at in range(profile.rows)}
        self.store = SimStore(self.loop, self.truth, profile.weather, rows, profile.groups)
        for number in range(3):
            if number not in rows:
                self.truth.commit(row_key(number), None, self.loop.now_us)
        self.history = History(self.truth, reads_bind=profile.level != "strong-or-store")
        self.strong = profile.level != "eventual"
        self.keeps = not profile.weather.lag_us and not {deed.kind for deed in plan.deeds} & {"old", "come_back"}
        """No node goes back from what it was told: none comes back with old data, and no replica is read."""
        self.network = profile.network()
        kind = CasNode if profile.cas else PlainNode
        self.nodes: list[Any] = [kind(f"node{at}", self.loop) for at in range(profile.nodes)]
        self.entities = profile.entities()
        self.clients = [self._client(at, skew_us, cache_of) for at, skew_us in enumerate(profile.skews_us)]
        self.tasks: list[Task] = []
        self.users = [User(), User()]
        self.kept: dict[str, Any] = {}
        self.violation: Violation | None = None
        self.reads = self.writes = self.errors = 0

    def _client(self, at: int, skew_us: int, cache_of: CacheOf) -> Client:
        process = Process(f"client{at}", skew_us)
        node = self.nodes[at % len(self.nodes)]
        cache = cache_of(self.loop, process, node.backend(process, self.network), self.store, self.entities)
        return Client(process, cache, node)

    # --- running -----------------------------------------------------------------------------

    def run(self, companion: Companion | None = None) -> None:
        """Do all deeds, let everything come to rest, and look at what is left. Sets `violation`."""
        try:
            self._run(companion)
        except Violation as found:
            self.violation = found
        finally:
            self.loop.close()

    def _run(self, companion: Companion | None) -> None:
        if companion is not None:
            companion.begin(self)
        for deed in self.plan.deeds:
            self.loop.at(deed.at_us, lambda deed=deed: self._do(deed, companion))  # type: ignore[misc]
        last_us = START_US + (self.plan.deeds[-1].at_us if self.plan.deeds else 0)
        self._go(last_us + 1)
        self._calm(companion)
        self._go(last_us + END_US, self._all_ended)
        if not self._all_ended():
            raise Violation("bounded wait", f"a call did not end within {END_US / SECOND_US:g} s")
        if companion is not None:
            self._settle(companion)
        self._read_all()

    def _all_ended(self) -> bool:
        """All calls, but of whoever died in them."""
        return all(task.done or not task.process.alive for task in self.tasks)

    def _go(self, until_us: int, enough: Callable[[], bool] = lambda: False) -> None:
        self.loop.run(until_us, lambda: self.violation is not None or enough())
        if self.violation is not None:
            raise self.violation
        if self.loop.crashed is not None:
            raise self.loop.crashed

    def _calm(self, companion: Companion | None) -> None:
        self.network.slow = self.network.lost = self.network.late = 0.0
        self.network.cut.clear()
        self.store.down = False
        self.store.cut.clear()
        for node in self.nodes:
            node.down = False
        if companion is not None:
            companion.calm()

    # --- deeds -------------------------------------------------------------------------------

    def _do(self, deed: Deed, companion: Companion | None) -> None:
        loop = self.loop
        client = self.clients[deed.who % len(self.clients)]
        doing = getattr(self, f"_call_{deed.kind}", None)
        if deed.kind in CALLS:
            doing = partial(CALLS[deed.kind], self)
        if doing is not None:
            if client.process.alive:
                self._call(client, deed, doing)
            return
        loop.say("world", deed.told())
        random = Random(deed.seed)
        if companion is not None and companion.do(deed):
            return
        fault = FAULTS.get(deed.kind)
        if fault is not None:
            fault(Fault(self, client, deed, random))

    def _call(self, client: Client, deed: Deed, call: Call) -> None:
        task = self.loop.spawn(client.process, self._watched(client, deed, call), Random(deed.seed))
        client.calls.append(task)
        self.tasks.append(task)

    async def _watched(self, client: Client, deed: Deed, call: Call) -> None:
        if self.loop.story is not None:
            self.loop.say(client.process.name, f"begins: {deed.told()}")
        try:
            await call(client, deed)
        except CacheError as error:
            self.errors += 1
            self.loop.say(client.process.name, f"{deed.kind} raises {type(error).__name__}: {str(error)[:80]}")
        except Cancelled:
            self.loop.say(client.process.name, f"{deed.kind} is cancelled")
        except Violation as found:
            self.violation = self.violation or found
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.loop.crashed = error

    # --- calls -------------------------------------------------------------------------------

    async def _call_read(self, client: Client, deed: Deed) -> None:
        kind, number = deed.what
        await self.read(client, kind, number)

    async def read(self, client: Client, kind: str, number: int) -> None:
        """One read, checked. Raises `Violation`."""
        loop = self.loop
        entity, key = self.entity(kind), f"{kind}:{number}"
        begun, task = self.history.begin(key, loop.now_us), loop.current
        mine, source = self.history.begin_in(client.own, key, loop.now_us), ""
        before = task.loads
        if task.random.random() < 0.7:
            value = await client.cache.get(entity, number, default=ABSENT)
        else:
            found = await client.cache.read(entity, number)
            value, source = found.value if found.found else ABSENT, found.source
        state = self.checks(client, begun, value)
        if source == "joined" and self.keeps:
            self.history.joined(mine, state)
        if task.loads - before > 1:
            raise Violation("one load", f"a read of {key} asked the store {task.loads - before} times (I8)")

    async def _call_read_many(self, client: Client, deed: Deed) -> None:
        begun = [self.history.begin(row_key(number), self.loop.now_us) for number in range(3)]
        values = await client.cache.get_many(self.entities[0], range(3))
        for number, one in enumerate(begun):
            self.checks(client, one, values.get(number, ABSENT))

    def checks(self, client: Client, begun: Begun, value: Any) -> Any:
        """A read has ended: the state that it shows. Raises `Violation`."""
        state = _state(begun.key, value)
        self.reads += 1
        if self.loop.story is not None:
            self.loop.say(client.process.name, f"has read {begun.key}: {state}")
        if self.strong:
            self.history.strong(begun, state)
        else:
            self.history.eventual(begun, state)
        return state

    async def _call_write(self, client: Client, deed: Deed) -> None:
        number, grp, tag, fate = deed.what
        await self._write(client, fate, lambda tx: tx.put(self.entities[0], number, [grp, tag]))

    _call_move = _call_write

    async def _call_write_two(self, client: Client, deed: Deed) -> None:
        one, other, grp, tag, fate = deed.what

        async def both(tx: Any) -> None:
            for number in sorted((one, other)):
                await tx.put(self.entities[0], number, [grp, tag])

        await self._write(client, fate, both)

    async def _call_delete(self, client: Client, deed: Deed) -> None:
        number, fate = deed.what
        await self._write(client, fate, lambda tx: tx.delete(self.entities[0], number))

    async def _call_write_past(self, client: Client, deed: Deed) -> None:
        """By a program that knows no cache: only the change log tells."""
        number, grp, tag = deed.what
        async with self.store.transaction() as tx:
            await (tx.remove(number) if tag is None else tx.save(number, grp, tag))
            await tx.commit()

    async def _call_truncate(self, client: Client, deed: Deed) -> None:
        await self._write(client, "well", lambda tx: tx.connection.truncate())

    async def _write(self, client: Client, fate: str, change: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        self.writes += 1
        async with client.cache.transaction() as tx:
            tx.connection.fate = fate
            await change(tx)
        self.loop.say(client.process.name, f"is told that it is written: {tx.written}")
        for key, place in tx.connection.places:
            if self.strong:
                self.history.acknowledged(key, place)
            elif tx.written is not None and tx.written.confirmed:
                self.history.saw(client.own, key, place)

    async def _call_invalidate(self, client: Client, deed: Deed) -> None:
        kind, number = deed.what
        await client.cache.invalidate(self.entity(kind), number)

    async def _call_clear(self, client: Client, deed: Deed) -> None:
        (kind,) = deed.what
        await client.cache.clear(*(() if kind == "all" else (self.entity(kind),)))

    async def _call_mode(self, client: Client, deed: Deed) -> None:
        await client.cache.set_mode(None, deed.what[0])

    def entity(self, kind: str) -> Entity:
        """That of rows, or that of lists."""
        return self.entities[0] if kind == "row" else self.entities[1]

    def names(self, kind: str, number: int) -> list[bytes]:
        """What a key may be called now."""
        layout = decode_layout(self.store.document or b"")
        entity = self.entity(kind)
        return [prefix + entity.text(number) for prefix in layout.prefixes("lc", entity.name)]

    # --- at rest -----------------------------------------------------------------------------

    def _settle(self, companion: Companion) -> None:
        last_us = self.loop.now_us + SETTLE_US
        while not companion.quiet() and self.loop.now_us < last_us:
            self._go(self.loop.now_us + LOOK_US)
        if not companion.quiet():
            raise Violation("settle", f"the log is not applied everywhere after {SETTLE_US / SECOND_US:g} s")
        for node in self.nodes:
            for key in self.truth.keys():  # noqa: SIM118 - not a mapping
                kind, _, number = key.partition(":")
                state = self._readable(node.peek(self.names(kind, int(number))[0]), kind)
                if state is not NOTHING and state is not DAMAGED:
                    self.history.settled(node.name, key, _state(key, state))

    def _readable(self, raw: bytes | None, kind: str) -> Any:
        """What these bytes may be served as: a value, ABSENT, NOTHING, or DAMAGED."""
        try:
            item = decode(raw) if raw is not None else None
            if item is None or not item.fresh:
                return NOTHING
            if item.content.kind is Kind.ABSENCE:
                return ABSENT
            return self.entity(kind).packer.unpack(item.content.payload)
        except DecodeError:
            return DAMAGED

    def _read_all(self) -> None:
        """Whoever is left reads once more whatever may be wrong; and one key that is not, so that each can still read.

        What no node has, or has as the store does, can only be read right: that takes no reading.
        """
        began, doubtful = len(self.tasks), self._doubtful()
        for at, client in enumerate(self.clients):
            if client.process.alive:
                client.process.paused_until_us = 0
                for key in doubtful or (row_key(self.plan.seed % 3),):
                    kind, _, number = key.partition(":")
                    deed = Deed(0, "read", at, (kind, int(number)), self.plan.seed + at)
                    self._call(client, deed, self._call_read)
        self._go(self.loop.now_us + END_US, lambda: all(task.done for task in self.tasks[began:]))

    def _doubtful(self) -> list[str]:
        """The keys of which a node has, under any name, what the store has not; or what cannot be read."""
        found: dict[str, None] = {}
        keys = set(self.truth.keys())
        for name, raw in (held for node in self.nodes for held in node.held()):
            key = name.rpartition(b"/")[2].decode()
            if key not in keys:  # a note, as memcached keeps them among its items
                continue
            state = self._readable(raw, key.partition(":")[0])
            if state is DAMAGED or (state is not NOTHING and _state(key, state) != self.truth.last(key)):
                found[key] = None
        return list(found)


def _state(key: str, value: Any) -> Any:
    if value is ABSENT or value is None:
        return None
    return tuple(value) if key.startswith("row:") else tuple(tuple(one) for one in value)
