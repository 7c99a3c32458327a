"""A client's view of the layout: who reads it when, and what holds while the store cannot be asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from cachelib import Eventual, Strong
from cachelib.backends import Memory, from_url
from cachelib.core import Core
from cachelib.drivers import run_now
from cachelib.entity import Entity
from cachelib.errors import ConfigError, LayoutConflict, StoreError
from cachelib.faces import THREADS
from cachelib.layout import LEASE_MS, REFRESH_MS, decode_layout, encode_layout, first_layout, with_mode, with_new_epochs
from cachelib.loops import LoopWorld
from cachelib.metrics import Metrics
from cachelib.model import Fill, Get, value_of
from cachelib.parts import Parts
from cachelib.places import Places
from cachelib.policy import Mode, StoreBudget
from cachelib.pool import Pool
from cachelib.stores.base import Loaded
from cachelib.threads import DirectBackend, ThreadWorld
from cachelib.view import PATIENCE_S, SETTLE_TRIES, LayoutView, View, fixed_view

T = TypeVar("T")
LEASE_S, REFRESH_S = LEASE_MS / 1000, REFRESH_MS / 1000
EVENTUAL = Entity("order:{id}", table="orders", load=lambda tx, keys: {})
STRONG = Entity("account:{id}", table="accounts", load=lambda tx, keys: {}, consistency=Strong())


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeStore:
    """Keeps the layout. `down`: it cannot be asked. `during_read` runs while a read is under way."""

    def __init__(self) -> None:
        self.document: bytes | None = None
        self.down = False
        self.reads = 0
        self.writes = 0
        self.during_read: Callable[[], None] = lambda: None

    async def read_layout(self) -> bytes | None:
        self.reads += 1
        document = self.document
        during, self.during_read = self.during_read, lambda: None
        during()
        if self.down:
            raise StoreError("down")
        return document

    async def write_layout(self, document: bytes, expected: bytes | None) -> None:
        if self.down:
            raise StoreError("down")
        if self.document != expected:
            raise LayoutConflict("somebody else")
        self.document = document
        self.writes += 1

    async def load(self, loader: Any, keys: Any, *, timeout_s: float | None = None) -> Loaded:
        raise StoreError("down")

    async def now_us(self) -> int:
        return 1


class FakeWorld(ThreadWorld):
    """Sleeping moves the clock; `meanwhile` is what others do in that time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.slept: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None

    hangs = False
    """The store does not answer, and says nothing either."""

    async def within(self, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        if self.hangs:
            self.clock.now += seconds
            return False
        await call()
        return True

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds
        self.meanwhile()


class Scene:
    """A view over a fake store, world and clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = FakeStore()
        self.store.document = encode_layout(first_layout())
        self.world = FakeWorld(clock)
        self.notes: list[str] = []
        self.layout = LayoutView(self.store, self.world, self.notes.append)  # type: ignore[arg-type]

    def other(self) -> LayoutView:
        """Another client of the same store."""
        return LayoutView(self.store, FakeWorld(self.clock), lambda event: None)  # type: ignore[arg-type]

    def publish(self) -> None:
        now(self.other().publish(lambda layout: with_new_epochs(layout, ["order"])))


def now(steps: Coroutine[Any, Any, T]) -> T:
    return run_now(steps)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock)


# --- reading ---------------------------------------------------------------------------------


def test_the_first_reader_of_a_new_store_makes_its_layout(scene: Scene) -> None:
    scene.store.document = None
    view = now(scene.layout.current())
    assert scene.store.document == view.document
    assert view.layout.number == 1


def test_two_first_readers_agree_on_one_layout(scene: Scene) -> None:
    scene.store.document = None
    other = scene.other()
    scene.store.during_read = lambda: now(other.current()) and None
    assert now(scene.layout.current()).layout == now(other.current()).layout


def test_the_layout_is_read_once_in_its_time(scene: Scene) -> None:
    for _ in range(10):
        now(scene.layout.current())
        scene.clock.now += REFRESH_S / 20
    assert scene.store.reads == 1


def test_the_layout_is_read_anew_when_it_is_due(scene: Scene) -> None:
    now(scene.layout.current())
    scene.publish()
    scene.clock.now += REFRESH_S
    assert now(scene.layout.current()).layout.next is not None
    assert scene.notes == ["layout_changed"]


def test_while_the_lease_runs_one_call_reads_and_the_others_go_on(scene: Scene) -> None:
    first = now(scene.layout.current())
    scene.clock.now += REFRESH_S
    reads = scene.store.reads
    seen: list[View] = []
    scene.store.during_read = lambda: seen.append(now(scene.layout.current()))
    now(scene.layout.current())
    assert seen == [first]
    assert scene.store.reads == reads + 1


def test_a_reader_that_hangs_lets_another_read_after_a_while(scene: Scene) -> None:
    now(scene.layout.current())
    scene.clock.now += REFRESH_S

    def hang() -> None:
        scene.clock.now += REFRESH_S
        now(scene.layout.current())

    scene.store.during_read = hang
    now(scene.layout.current())
    assert scene.store.reads == 3


def test_a_lease_counts_from_before_the_read(scene: Scene) -> None:
    scene.store.during_read = lambda: setattr(scene.clock, "now", scene.clock.now + LEASE_S)
    assert not now(scene.layout.current()).leased


def test_an_unchanged_layout_keeps_what_the_hit_path_learnt(scene: Scene) -> None:
    view = now(scene.layout.current())
    view.lanes[EVENTUAL] = "lane"
    scene.clock.now += REFRESH_S
    assert now(scene.layout.current()).lanes == {EVENTUAL: "lane"}


def test_a_changed_layout_forgets_what_the_hit_path_learnt(scene: Scene) -> None:
    now(scene.layout.current()).lanes[EVENTUAL] = "lane"
    scene.publish()
    scene.clock.now += REFRESH_S
    assert now(scene.layout.current()).lanes == {}


def test_a_damaged_document_is_told_and_not_guessed(scene: Scene) -> None:
    scene.store.document = b"{}"
    with pytest.raises(ConfigError, match="layout document"):
        now(scene.layout.current())


# --- the store is down -----------------------------------------------------------------------


def test_without_any_view_a_store_that_is_down_is_told(scene: Scene) -> None:
    scene.store.down = True
    with pytest.raises(StoreError):
        now(scene.layout.current())


def test_while_the_store_is_down_the_old_view_serves_on(scene: Scene) -> None:
    layout = now(scene.layout.current()).layout
    scene.store.down = True
    scene.clock.now += 100
    assert now(scene.layout.current()).layout == layout
    assert scene.notes == ["layout_unread"]


def test_while_the_store_is_down_it_is_asked_once_in_a_while(scene: Scene) -> None:
    now(scene.layout.current())
    scene.store.down = True
    scene.clock.now += 100
    reads = scene.store.reads
    for _ in range(10):
        now(scene.layout.current())
        scene.clock.now += REFRESH_S / 20
    assert scene.store.reads == reads + 1


def test_a_view_that_is_kept_is_under_no_lease(scene: Scene) -> None:
    now(scene.layout.current())
    scene.store.down = True
    scene.clock.now += LEASE_S
    assert not now(scene.layout.current()).leased


def test_a_leased_view_is_refused_while_the_store_is_down(scene: Scene) -> None:
    now(scene.layout.leased())
    scene.store.down = True
    scene.clock.now += LEASE_S
    with pytest.raises(StoreError):
        now(scene.layout.leased())


def test_within_its_lease_a_view_does_without_the_store(scene: Scene) -> None:
    now(scene.layout.leased())
    scene.store.down = True
    scene.clock.now += LEASE_S - 0.01
    assert now(scene.layout.leased()).leased


def test_a_store_that_comes_back_gives_a_lease_again(scene: Scene) -> None:
    now(scene.layout.leased())
    scene.store.down = True
    scene.clock.now += 100
    now(scene.layout.current())
    scene.store.down = False
    assert now(scene.layout.leased()).leased


def test_a_store_that_hangs_holds_nobody_up_for_long(scene: Scene) -> None:
    layout = now(scene.layout.current()).layout
    scene.world.hangs = True
    scene.clock.now += 100
    began = scene.clock.now
    views = [now(scene.layout.current()) for _ in range(10)]
    assert {view.layout.number for view in views} == {layout.number}
    assert scene.clock.now == began + PATIENCE_S
    assert not views[0].leased


def test_what_a_slow_store_says_late_is_taken_up(scene: Scene) -> None:
    now(scene.layout.current())
    scene.world.hangs = True
    scene.clock.now += REFRESH_S
    scene.publish()
    now(scene.layout.current())
    now(scene.layout.read())  # what `within` left behind ends
    assert scene.layout.view is not None
    assert scene.layout.view.layout.next is not None


# --- a call that is waited for no longer than a while -----------------------------------------


async def _nothing() -> None:
    pass


async def _fails() -> None:
    raise StoreError("down")


def test_threads_do_not_wait_for_what_hangs() -> None:
    go_on = threading.Event()

    async def hangs() -> None:
        go_on.wait(30)

    world = ThreadWorld()
    assert not now(world.within(0.01, hangs))
    go_on.set()
    assert now(world.within(30, _nothing))
    with pytest.raises(StoreError):
        now(world.within(30, _fails))


def test_a_loop_does_not_wait_for_what_hangs_and_cancels_it() -> None:
    async def main() -> None:
        world, ended = LoopWorld(), asyncio.Event()

        async def hangs() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        assert not await world.within(0.01, hangs)
        await asyncio.wait_for(ended.wait(), 30)
        assert await world.within(30, _nothing)
        with pytest.raises(StoreError):
            await world.within(30, _fails)

    asyncio.run(main())


def test_a_cancelled_caller_leaves_no_task_behind() -> None:
    async def main() -> set[Any]:
        world = LoopWorld()
        caller = asyncio.create_task(world.within(30, asyncio.Event().wait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(main()) == set()


# --- who is late does not go back ------------------------------------------------------------


def test_a_slow_reader_does_not_put_back_an_older_layout(scene: Scene) -> None:
    """Read N · somebody publishes N+1, and another call of this process reads it · the first one ends."""
    now(scene.layout.current())

    def another_call_reads_the_new_one() -> None:
        scene.publish()
        scene.clock.now += 0.1
        now(scene.layout.read(required=True))

    scene.store.during_read = another_call_reads_the_new_one
    now(scene.layout.read(required=True))
    assert scene.layout.view is not None
    assert scene.layout.view.layout.next is not None


def test_a_reader_that_fails_does_not_put_back_an_older_layout(scene: Scene) -> None:
    now(scene.layout.current())
    scene.clock.now += REFRESH_S

    def another_call_reads_the_new_one_and_the_store_goes_down() -> None:
        scene.publish()
        now(scene.layout.read(required=True))
        scene.store.down = True

    scene.store.during_read = another_call_reads_the_new_one_and_the_store_goes_down
    now(scene.layout.read())
    assert scene.layout.view is not None
    assert scene.layout.view.layout.next is not None


# --- publishing ------------------------------------------------------------------------------


def test_a_change_is_published_over_one_that_came_in_between(scene: Scene) -> None:
    now(scene.layout.current())
    scene.store.during_read = scene.publish
    published = now(scene.layout.publish(lambda layout: with_mode(layout, "order", Mode.BYPASS)))
    assert published.next is not None
    assert published.mode("order") is Mode.BYPASS
    assert decode_layout(scene.store.document or b"") == published


def test_a_change_that_changes_nothing_writes_nothing(scene: Scene) -> None:
    now(scene.layout.publish(lambda layout: layout))
    assert scene.store.writes == 0


def test_publishing_without_a_store_says_what_is_needed(clock: Clock) -> None:
    layout = LayoutView(None, FakeWorld(clock), lambda event: None)
    with pytest.raises(ConfigError, match="store"):
        now(layout.publish(lambda layout: layout))


def test_a_change_is_current_two_leases_after_it_was_published(scene: Scene) -> None:
    began = scene.clock.now
    published = now(scene.layout.publish(lambda layout: with_new_epochs(layout, ["order"])))
    now(scene.layout.settle(published))
    assert scene.clock.now >= began + 2 * LEASE_S
    assert now(scene.layout.current()).layout.now == published.next


def test_no_client_still_works_by_the_old_layout_when_the_new_one_is_current(scene: Scene) -> None:
    other = scene.other()
    before = now(other.leased())
    published = now(scene.layout.publish(lambda layout: with_new_epochs(layout, ["order"])))
    now(scene.layout.settle(published))
    assert not before.leased


def test_a_change_on_top_lets_both_wait_again(scene: Scene) -> None:
    tops = iter([scene.publish])
    scene.world.meanwhile = lambda: next(tops, lambda: None)()
    published = now(scene.layout.publish(lambda layout: with_new_epochs(layout, ["customer"])))
    now(scene.layout.settle(published))
    assert scene.world.slept == [2 * LEASE_S] * 2
    assert now(scene.layout.current()).layout.next is None


def test_a_change_that_somebody_else_has_completed_is_settled(scene: Scene) -> None:
    published = now(scene.layout.publish(lambda layout: with_new_epochs(layout, ["order"])))
    other = scene.other()
    now(other.settle(published))
    now(scene.layout.settle(published))
    assert now(scene.layout.current()).layout.now == published.next


def test_changes_on_top_for_ever_are_given_up(scene: Scene) -> None:
    scene.world.meanwhile = scene.publish
    published = now(scene.layout.publish(lambda layout: with_new_epochs(layout, ["customer"])))
    with pytest.raises(LayoutConflict):
        now(scene.layout.settle(published))
    assert len(scene.world.slept) == SETTLE_TRIES


# --- what the core does with it --------------------------------------------------------------


def core_of(scene: Scene, *entities: Entity) -> Core:
    metrics = Metrics()
    world = scene.world
    pool = Pool(Places(Memory(), from_url), DirectBackend, None, world)  # type: ignore[arg-type]
    return Core(
        Parts(pool, THREADS, scene.store, None, world, lambda name, op: None, "lc", StoreBudget(), metrics, entities)  # type: ignore[arg-type]
    )


def cached(core: Core, scene: Scene, entity: Entity) -> None:
    """Put a value into the cache at the key 1 of an entity."""
    view = now(core.layout.current())
    (name,) = core.names(view, entity, entity.text(1))
    now(core.node.execute(name, Get(9, 1000)))
    now(core.node.execute(name, Fill(9, value_of(entity.packer.pack("v", 1000)), 1, 100_000)))


def test_an_eventual_read_hits_while_the_store_is_down(scene: Scene) -> None:
    core = core_of(scene, EVENTUAL)
    cached(core, scene, EVENTUAL)
    scene.store.down = True
    scene.clock.now += 100
    assert now(core.read(EVENTUAL, 1, None, None)).value == "v"


def test_a_strong_read_needs_a_lease(scene: Scene) -> None:
    core = core_of(scene, STRONG)
    cached(core, scene, STRONG)
    scene.store.down = True
    scene.clock.now += LEASE_S
    with pytest.raises(StoreError):
        now(core.read(STRONG, 1, None, None))


def test_an_eventual_read_of_a_strong_entity_needs_none(scene: Scene) -> None:
    core = core_of(scene, STRONG)
    cached(core, scene, STRONG)
    scene.store.down = True
    scene.clock.now += 100
    assert now(core.read(STRONG, 1, Eventual(), None)).value == "v"


def test_a_strong_entity_has_a_hit_path_only_under_a_lease(scene: Scene) -> None:
    core = core_of(scene, STRONG, EVENTUAL)
    standing = core.node.first.standing
    now(standing.strong("lc", STRONG.name, b"lc/e.t/a", scene.store.now_us))
    assert standing.trust is not None
    standing.trust.caught_up = frozenset((STRONG.name,))
    view = now(core.layout.current())
    core.lane(view, core.knows(STRONG))
    core.lane(view, core.knows(EVENTUAL))
    assert set(view.lanes) == {STRONG, EVENTUAL}
    scene.store.down = True
    scene.clock.now += REFRESH_S
    kept = now(core.layout.current())
    assert kept.refresh_at > kept.lease_until - 0.001
    assert set(kept.lanes) == {EVENTUAL}
    assert core.lane(kept, core.knows(STRONG)) is None
    assert set(kept.lanes) == {EVENTUAL}


def test_without_a_store_nothing_ever_moves() -> None:
    view = fixed_view()
    assert view.leased
    assert view.refresh_at == float("inf")
