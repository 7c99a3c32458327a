"""`AsyncCache`: the face for asyncio. The same core as `Cache`, awaited."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from cachelib.asked import NO_KEY, Read, arguments_of, as_read, key_of, keys_of
from cachelib.backends import async_from_url
from cachelib.backends.base import AsyncBackend
from cachelib.breaker import Breaker
from cachelib.commit import Written, commit
from cachelib.core import Core
from cachelib.entity import Entity, FunctionLoader
from cachelib.envelope import DOUBT
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.explain import Explanation, explain
from cachelib.faces import LOOP
from cachelib.keys import Key
from cachelib.l1 import PLAIN_KEYS
from cachelib.loops import LoopWorld
from cachelib.many import get_many, read_many
from cachelib.metrics import HIT_SAMPLE, Listener, Metrics
from cachelib.model import Name, Op
from cachelib.nodes import now_ms
from cachelib.parts import Parts
from cachelib.places import Given, Places
from cachelib.plans import NOT_ASKED, Raw, gutter_ms
from cachelib.policy import L1, Compare, Duration, Level, StoreBudget
from cachelib.pool import Pool
from cachelib.port import Found
from cachelib.sessions import AsyncSession, seal_keys
from cachelib.shadow import shadowed
from cachelib.stores.base import AsyncStore
from cachelib.transaction import AsyncTransaction, LoopTransaction
from cachelib.world import World

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class AsyncCache:
    """`Cache` with `await`, for one event loop. Loaders, `save` and `remove` are `async def`.

    Arguments and errors are those of `Cache`; the store is an `AsyncSqlStore`.
    """

    def __init__(
        self,
        backend: Given[AsyncBackend],
        *,
        store: AsyncStore | None = None,
        entities: Iterable[Entity] = (),
        namespace: str = "lc",
        budget: StoreBudget | None = None,
        listener: Listener | None = None,
        breaker: Breaker | None = None,
        l1: L1 | None = None,
        gutter: Duration | None = None,
        compare: float | Compare | None = None,
        session_key: bytes | Sequence[bytes] = b"",
    ) -> None:
        places: Places[AsyncBackend] = Places(backend, async_from_url)
        self.backend: AsyncBackend = places.first
        """See `Cache`."""
        self.metrics = Metrics(listener)
        self._store = store
        world = self._world()
        self._pool = Pool(places, _as_it_is, breaker, world)
        self._abandoned: set[asyncio.Task[None]] = set()
        parts = Parts(
            pool=self._pool,
            faces=LOOP,
            store=store,
            table_loader=getattr(store, "table_loader", None),
            world=world,
            abandon=self._abandon,
            namespace=namespace,
            budget=budget or StoreBudget(),
            metrics=self.metrics,
            entities=entities,
            l1=l1,
            gutter_ms=gutter_ms(gutter),
        )
        self._core = Core(parts)
        self._layout = self._core.layout
        self._comparer = shadowed(self._core, compare, self._begun)
        self._seal_keys = seal_keys(session_key)

    def _world(self) -> World:
        """What the core waits by; the simulation has another."""
        return LoopWorld()

    # --- reading -----------------------------------------------------------------------------

    async def get(
        self,
        entity: Entity,
        key: Key = NO_KEY,
        *,
        default: Any = None,
        consistency: Level | None = None,
        deadline: Duration | None = None,
        **named: Any,
    ) -> Any:
        """See `Cache.get`."""
        raw: Any = NOT_ASKED
        if consistency is None and not named:
            view = self._layout.view
            began = time.monotonic()
            if view is not None and began < view.refresh_at:  # see Cache.get
                lane = view.lanes.get(entity)
                if lane is not None:
                    stamp = 0
                    if lane.near is not None:
                        copy = lane.near(key if key.__class__ in PLAIN_KEYS else lane.render(key))
                        if copy is not None and began < copy.until:
                            lane.local()
                            return copy.value
                        stamp = lane.shelf.stamp
                    if not lane.breaker.failed:
                        try:
                            raw = await lane.get(lane.name(key))
                        except CacheUnavailable:
                            lane.breaker.failed_at(now_ms())
                            raw = None  # asked, and nothing came
                        if raw is not None:
                            value = lane.value(raw, began * 1000 + lane.skew_ms)
                            if value is not DOUBT:  # else the steps know what to do about it
                                if not lane.hit() & HIT_SAMPLE:
                                    lane.sampled(key, raw, time.monotonic() - began)
                                if lane.near is not None:
                                    lane.keep(key, raw, value, began, stamp)
                                return value
                            if lane.shows_stale and (value := lane.stale(raw, began)) is not DOUBT:
                                return value
                        if lane.flights is not None and deadline is None:
                            other = await lane.joined(key, lane.flights, began)
                            if other is not None:
                                return other.value if other.found else default
        found = await self._read(entity, key_of(entity, key, named), consistency, deadline, raw)
        return found.value if found.found else default

    async def read(
        self,
        entity: Entity,
        key: Key = NO_KEY,
        *,
        consistency: Level | None = None,
        deadline: Duration | None = None,
        **named: Any,
    ) -> Read:
        """See `Cache.read`."""
        return as_read(await self._read(entity, key_of(entity, key, named), consistency, deadline))

    async def get_many(
        self,
        entity: Entity,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        deadline: Duration | None = None,
    ) -> dict[Key, Any]:
        """See `Cache.get_many`."""
        return await get_many(self._core, entity, keys_of(entity, keys), consistency, deadline)

    async def read_many(
        self,
        entity: Entity,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        deadline: Duration | None = None,
    ) -> dict[Key, Read]:
        """See `Cache.read_many`."""
        keys = keys_of(entity, keys)
        found = await read_many(self._core, entity, keys, consistency, deadline)
        return {key: as_read(one) for key, one in zip(keys, found, strict=True)}

    async def explain(self, entity: Entity, key: Key = NO_KEY, **named: Any) -> Explanation:
        """See `Cache.explain`."""
        plan, raw = await self._core.look(entity, key_of(entity, key, named))
        return explain(plan, raw, now_ms())

    def session(self, token: str | None = None) -> AsyncSession:
        """See `Cache.session`."""
        return AsyncSession(self._core, token, self._seal_keys, self._store)

    async def _read(
        self, entity: Entity, key: Key, level: Level | None, deadline: Duration | None, raw: Raw = NOT_ASKED
    ) -> Found:
        core = self._core
        found = await core.read(entity, key, level, deadline, raw)
        core.mend_lane(entity)
        return found

    # --- writing -----------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[AsyncTransaction]:
        """See `Cache.transaction`."""
        if self._store is None:
            raise ConfigError("a transaction needs a store: AsyncCache(…, store=…)")
        await self._layout.current()  # see Cache.transaction
        async with self._store.transaction(connection) as store_tx:
            tx = AsyncTransaction(self._core, store_tx)
            yield tx
            tx.written = await commit(self._core, LoopTransaction(store_tx))

    async def put(self, entity: Entity, key: Key, value: Any) -> Written:
        """See `Cache.put`."""
        async with self.transaction() as tx:
            await tx.put(entity, key, value)
        return _written(tx)

    async def delete(self, entity: Entity, key: Key) -> Written:
        """See `Cache.delete`."""
        async with self.transaction() as tx:
            await tx.delete(entity, key)
        return _written(tx)

    async def invalidate(self, entity: Entity, key: Key = NO_KEY, **named: Any) -> None:
        """See `Cache.invalidate`."""
        await self._core.invalidate(entity, key_of(entity, key, named))

    async def clear(self, *entities: Entity) -> None:
        """See `Cache.clear`."""
        await self._core.clear(entities or None)

    async def set_mode(self, entity: Entity | None, mode: str) -> None:
        """See `Cache.set_mode`."""
        await self._core.set_mode(entity, mode)

    # --- functions ---------------------------------------------------------------------------

    def cached(self, template: str, **settings: Any) -> Callable[[F], F]:
        """See `Cache.cached`; the function is `async def`."""

        def decorate(function: F) -> F:
            entity = Entity(template, load=FunctionLoader(function), **settings)
            self._core.knows(entity)
            bound = arguments_of(function, entity)

            @functools.wraps(function)
            async def call(*args: Any, **kwargs: Any) -> Any:
                return await self.get(entity, bound(*args, **kwargs))

            call.entity = entity  # type: ignore[attr-defined]
            return call  # type: ignore[return-value]

        return decorate

    # --- life --------------------------------------------------------------------------------

    async def close(self) -> None:
        """Finish what cancelled calls left behind, then close the connections to the cache."""
        if self._comparer is not None:
            self._comparer.stop()
        if self._abandoned:
            await asyncio.wait(set(self._abandoned))
        await self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _abandon(self, name: Name, op: Op) -> None:
        """The call is being cancelled, so it cannot await: a task of its own gives the lease back."""

        async def execute() -> None:
            with suppress(CacheUnavailable):
                await self._pool.execute(name, op)

        self._begun(execute())

    def _begun(self, call: Coroutine[Any, Any, None]) -> None:
        """Run it beside the callers; `close` waits for its end."""
        task = asyncio.get_running_loop().create_task(call)
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)


def _as_it_is(backend: AsyncBackend) -> AsyncBackend:
    return backend


def _written(tx: AsyncTransaction) -> Written:
    assert tx.written is not None
    return tx.written
