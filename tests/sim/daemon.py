"""The invalidator under simulation: the daemon itself, its loop and its workers each a greenlet.

Its code blocks where it asks a server. Here a question to a server hands control back to the
simulation until the answer is there, so everything else goes on in between, one event at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from random import Random
from typing import Any

from greenlet import greenlet

from cachelib.errors import CacheUnavailable, LayoutConflict, StoreError
from cachelib.stores.base import LogBatch
from cachelib.testing.sim.loop import Process, Question, Signal, pause
from cachelib.testing.sim.profile import Deed, Plan
from cachelib.testing.sim.store import SimStore
from cachelib.testing.sim.world import World
from invalidator.config import load
from invalidator.rules import Rules
from invalidator.service import Service
from invalidator.settings import Settings
from invalidator.sources.base import covers
from invalidator.sources.outbox import Outbox
from tests.sim.bus import Bus, BusSource, EarlySource

NAMES = {"outbox": Outbox, "early": EarlySource, "bus": BusSource}
NOTICED_US = 3_000_000
"""It finds out by itself within that time that a node was restarted."""
TURN_US = 600_000
"""A loop or a worker with nothing to do looks up so often."""


def blocking(steps: Coroutine[Question, Any, Any]) -> Any:
    """Run a coroutine to its end from within a greenlet: each of its waits lets the simulation go on."""
    hub = greenlet.getcurrent().parent
    asked = _sent(steps, None)
    while asked is not _END:
        try:
            value = hub.switch(asked)
        except BaseException as error:
            steps.throw(error)
            raise
        asked = _sent(steps, value)
    return _END.result


class _End:
    result: Any = None


_END = _End()


def _sent(steps: Coroutine[Question, Any, Any], value: Any) -> Any:
    try:
        return steps.send(value)
    except StopIteration as end:
        _END.result = end.value
        return _END


def _hub() -> Any:
    """Where the simulation runs. Whoever begins a thread may be one: it must not be asked in the simulation's place."""
    found = greenlet.getcurrent()
    while found.parent is not None:
        found = found.parent
    return found


class Thread:
    """A function that blocks, as a task of the simulation."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._greenlet = greenlet(run, _hub())

    def send(self, value: Any) -> Question:
        asked = self._greenlet.switch() if not self._greenlet else self._greenlet.switch(value)
        if self._greenlet.dead:
            raise StopIteration(asked)
        return asked

    def throw(self, error: BaseException) -> Question:
        asked = self._greenlet.throw(error)
        if self._greenlet.dead:
            raise StopIteration(asked)
        return asked

    def close(self) -> None:
        if self._greenlet and not self._greenlet.dead:
            self._greenlet.throw()


class Lock:
    """A lock among greenlets, which may be taken again by whoever holds it."""

    def __init__(self) -> None:
        self._holder: Any = None
        self._times = 0

    def __enter__(self) -> None:
        me = greenlet.getcurrent()
        if me.parent is None:  # set-up, before anything runs
            return
        while self._holder not in (None, me):
            if self._holder.dead:
                self._holder, self._times = None, 0
                break
            blocking(pause(500))
        self._holder = me
        self._times += 1

    def __exit__(self, *_: object) -> None:
        if self._holder is greenlet.getcurrent():
            self._times -= 1
            if not self._times:
                self._holder = None


class Quiet:
    """A log or a metric that nobody reads, but for the story."""

    def __init__(self, world: World | None = None) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Callable[..., Any]:
        told = self._world is not None and self._world.loop.story is not None and name in ("info", "warning", "error")
        self.__dict__[name] = said = self._tell if told else self._nothing  # found there the next time
        return said

    def _tell(self, what: str, **fields: Any) -> None:
        if self._world is not None:
            self._world.loop.say("invalidator", f"{what} {fields}")

    def _nothing(self, *_: Any, **__: Any) -> Quiet:
        return self


class Metrics:
    """`invalidator.metrics.Metrics`, counting nothing."""

    def __getattr__(self, name: str) -> Any:
        self.__dict__[name] = QUIET
        return QUIET


class _Silent:
    def __getattr__(self, name: str) -> Any:
        self.__dict__[name] = self._nothing
        return self._nothing

    def _nothing(self, *_: Any, **__: Any) -> _Silent:
        return self


QUIET = _Silent()


class BlockingStore:
    """`Store` and `ChangeLog` over the simulated store."""

    def __init__(self, store: SimStore) -> None:
        self._store = store

    def _ask(self, deed: Callable[[], Any]) -> Any:
        blocking(self._store.travel())
        result = deed()
        blocking(self._store.travel())
        return result

    def identity(self) -> str:
        return self._ask(lambda: self._store.who)

    def highest_version(self) -> int:
        return self._ask(lambda: self._store.version)

    def now_us(self) -> int:
        return self._ask(lambda: self._store.loop.now_us)

    def snapshot(self) -> Any:
        return self._ask(self._store.snapshot)

    def read_layout(self) -> bytes | None:
        return self._ask(lambda: self._store.document)

    def write_layout(self, document: bytes, expected: bytes | None) -> None:
        def write() -> None:
            if self._store.document != expected:
                raise LayoutConflict("changed")
            self._store.document = document
            self._store.loop.say("invalidator", f"publishes the layout {document.decode()[:200]}")

        self._ask(write)

    def poll_changes(self, after: str, limit: int) -> LogBatch:
        return self._ask(lambda: self._store.entries(after, limit))

    def wait_for_changes(self, after: str, timeout_s: float) -> None:
        """The loop waits between its turns."""

    def log_start(self) -> str:
        return self._ask(lambda: self._store.position(self._store.purged))

    def log_end(self) -> str:
        return self._ask(lambda: self._store.position(len(self._store.log)))

    def save_consumer(self, consumer: str, position: str) -> None:
        self._ask(lambda: self._store.consumers.__setitem__(consumer, position))

    def load_consumer(self, consumer: str) -> str | None:
        return self._ask(lambda: self._store.consumers.get(consumer))

    def drop_consumer(self, consumer: str) -> None:
        self._ask(lambda: self._store.consumers.pop(consumer, None))

    def purge(self) -> int:
        return 0


class BlockingBackend:
    """A `Backend` over an awaited one."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.capability = backend.capability

    def apply(self, batch: Any, notes: Any, now_ms: int) -> Any:
        return blocking(self._backend.apply(batch, notes, now_ms))

    def get_many(self, names: Any) -> Any:
        return blocking(self._backend.get_many(names))

    def read_notes(self, names: Any) -> Any:
        return blocking(self._backend.read_notes(names))

    def instance(self) -> str:
        return blocking(self._backend.instance())

    def began_empty(self) -> bool:
        return blocking(self._backend.began_empty())

    def close(self) -> None:
        pass


@cache
def settings_of(second_look: str, settle_ms: int) -> Settings:
    """Its settings; the same for all runs that have these."""
    apply = {"positions": "200ms", "commit": "300ms", "node_dead_after": "5s", "second_look": second_look}
    return load(None, {}, {"apply": apply | {"settle_delay": f"{settle_ms}ms"}})


class Daemon:
    """A `Companion`: the service, started anew where it was killed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = Random(plan.seed ^ 0xDAE)
        self.process = Process("invalidator")
        self.service: Service | None = None
        self.begun = False

    def begin(self, world: World) -> None:
        """See `Companion`."""
        self.world = world
        self.bus = Bus(world.store, self.random) if self.plan.profile.source == "bus" else None
        lag_us = self.plan.profile.weather.lag_us + self.plan.profile.weather.hidden_us
        by_time = self.plan.profile.weather.lag_us > 0
        self.settings = settings_of("delay" if by_time else "auto", lag_us // 1000 + 50)
        self.start()

    # --- its life ----------------------------------------------------------------------------

    def start(self) -> None:
        """A new process, which finds its place by itself."""
        world = self.world
        self.process = process = Process("invalidator")
        self.begun = False
        world.loop.spawn(process, Thread(lambda: self._main(process)), Random(self.random.getrandbits(32)))

    def _main(self, process: Process) -> None:
        try:
            self._serve(process)
        except Exception as error:
            self._crash(error)
            raise

    def _serve(self, process: Process) -> None:
        loop, store = self.world.loop, BlockingStore(self.world.store)
        nodes = [(node.name, BlockingBackend(node.backend(process, self.world.network))) for node in self.world.nodes]
        service = Service(
            self.settings,
            store=store,  # type: ignore[arg-type]
            source=self._source(store),
            nodes=nodes,  # type: ignore[arg-type]
            rules=Rules(self.world.entities),
            reload=lambda: None,  # type: ignore[arg-type,return-value]
            log=Quiet(self.world),
            metrics=Metrics(),  # type: ignore[arg-type]
            clock_s=lambda: loop.now_us / 1e6,
            now_ms=lambda: loop.now_us // 1000,
            turn_s=0.0,
        )
        service._epochs._lock = Lock()  # type: ignore[assignment]
        service.lineage._lock = Lock()  # type: ignore[assignment]
        while True:
            try:
                service.begin()
                break
            except StoreError:
                blocking(pause(100_000))
        self.service, self.begun = service, True
        for worker in service.fleet:
            loop.spawn(process, Thread(lambda worker=worker: self._work(worker)), self._chance())
        loop.spawn(process, Thread(lambda: self._keep_books(service)), self._chance())
        while True:
            self._rest(int(service.turn() * 1e6))

    def _source(self, store: BlockingStore) -> Any:
        kind = NAMES[self.plan.profile.source]
        return BusSource(self.bus) if kind is BusSource else kind(store, "invalidator")  # type: ignore[arg-type,call-arg]

    def _chance(self) -> Random:
        return Random(self.random.getrandbits(32))

    def _rest(self, us: int) -> None:
        from cachelib.testing.sim.loop import until

        blocking(until(self.world.store.news, us + int(TURN_US * (0.1 + self.world.loop.current.random.random()))))

    def _work(self, worker: Any) -> None:
        while True:
            try:
                worker.step()
            except (CacheUnavailable, StoreError) as error:
                worker.failed(error)
                blocking(pause(50_000))
            except Exception as error:
                self._crash(error)
                raise
            if not worker.behind():
                self._rest(0)

    def _keep_books(self, service: Service) -> None:
        while True:
            blocking(pause(700_000))
            service.books.keep()

    def _crash(self, error: Exception) -> None:
        if self.world.loop.crashed is None:
            self.world.loop.crashed = error

    # --- what happens to it ------------------------------------------------------------------

    def do(self, deed: Deed) -> bool:
        """See `Companion`."""
        if deed.kind == "daemon_kill":
            self.process.alive = False
            self.world.loop.at(deed.what[0], self._start_if_dead)
        elif deed.kind == "daemon_cut":
            node = self.world.nodes[deed.who % len(self.world.nodes)]
            self.world.network.cut["invalidator", node.name] = self.world.loop.now_us + deed.what[0]
        elif deed.kind == "daemon_pause":
            self.process.paused_until_us = self.world.loop.now_us + deed.what[0]
        elif self.bus is not None and deed.kind in ("repeat", "rewind", "truncate_bus", "delay_bus"):
            self.bus.do(deed)
        else:
            return False
        return True

    def _start_if_dead(self) -> None:
        if not self.process.alive:
            self.start()

    def calm(self) -> None:
        """See `Companion`."""
        self._start_if_dead()
        self.process.paused_until_us = 0
        if self.bus is not None:
            self.bus.calm()

    def quiet(self) -> bool:
        """See `Companion`."""
        service, world = self.service, self.world
        if not self.begun or service is None or world.store.unseen or not self.process.alive:
            return False
        end = self.bus.last() if self.bus is not None else {"log": world.store.position(self._length())}
        workers = list(service.fleet)
        return (
            covers(service.positions, end)
            and all(worker.in_window and worker.counts and covers(_confirmed(worker), end) for worker in workers)
            and world.loop.now_us - max(node.restarted_us for node in world.nodes) > NOTICED_US
            and service._epochs.layout.__self__._seen is None  # type: ignore[attr-defined]
            and b'"next"' not in (world.store.document or b"")
        )

    def _length(self) -> int:
        store = self.world.store
        return len(store.ahead) if self.plan.profile.source == "early" else len(store.log)


def _confirmed(worker: Any) -> Any:
    """By this session: what an earlier one knew, the node may have lost."""
    return worker.session.confirmed if worker.session is not None else {}


def daemon_of(plan: Plan) -> Daemon | None:
    """The companion of a plan."""
    return Daemon(plan) if plan.profile.source != "none" else None


__all__ = ["Daemon", "Sequence", "Signal", "daemon_of"]
