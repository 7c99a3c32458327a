"""`Cache`: the face for threads. Each call runs the core to its end in the calling thread.

Longer than 300 lines because it is what every user reads: half of it is signatures and what they mean.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from cachelib.asked import NO_KEY, Read, arguments_of, as_read, key_of, keys_of
from cachelib.backends import from_url
from cachelib.backends.base import Backend
from cachelib.breaker import Breaker
from cachelib.commit import Written, commit
from cachelib.core import Core
from cachelib.drivers import run_now
from cachelib.entity import Entity, FunctionLoader
from cachelib.envelope import DOUBT
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.explain import Explanation, explain
from cachelib.faces import THREADS
from cachelib.keys import Key
from cachelib.l1 import PLAIN_KEYS
from cachelib.many import get_many, read_many
from cachelib.metrics import Listener, Metrics
from cachelib.model import Name, Op
from cachelib.nodes import now_ms
from cachelib.parts import Parts
from cachelib.places import Given, Places
from cachelib.plans import NOT_ASKED, Raw, gutter_ms
from cachelib.policy import L1, Compare, Duration, Level, StoreBudget
from cachelib.pool import Pool
from cachelib.port import Found
from cachelib.sessions import Session, seal_keys
from cachelib.shadow import shadowed
from cachelib.stores.base import Store
from cachelib.straight import Unserved
from cachelib.threads import DirectBackend, DirectStore, DirectTransaction, ThreadWorld, in_thread, joined
from cachelib.transaction import Transaction

F = TypeVar("F", bound=Callable[..., Any])


class Cache:
    """A cache in front of a store. Safe to share among threads, and after a fork.

    Args:
        backend: a URL (`redis://…`, `rediss://…`, `unix://…`, `memcached://host:port`,
            `memory://`) or a backend. Several URLs, or a mapping of names to backends, are a pool:
            the layout in the store says which node has which keys, and goes on from there.
        store: the authoritative store; see `cachelib.stores.SqlStore`.
        entities: every entity whose rows this process writes. One that is only read is met
            when it is first used; a writer must know all that its SQL may change.
        namespace: stands before every key; two applications on one server need two.
        budget: how many loads of the store misses may cause.
        listener: a plain callback for metrics; see `cachelib.metrics`.
        breaker: when a node that does not answer is left alone.
        gutter: while a node of a pool does not answer, another keeps what `eventual` reads load, for so long.
        compare: hold this share of hits against the store afterwards, such as 1e-4, or a
            `Compare`; counted in `leasecache_mismatches_total`, logged as `cachelib.compare`. None for none.
        session_key: at least 16 random bytes that session tokens are sealed with; of several the first seals.
        l1: keep decoded values in this process for a moment, for `eventual` reads; None for never.

    Raises:
        ConfigError: a setting is wrong.
        MissingExtra: the backend's package is not installed.
    """

    def __init__(
        self,
        backend: Given[Backend],
        *,
        store: Store | None = None,
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
        places: Places[Backend] = Places(backend, from_url)
        self.backend: Backend = places.first
        """The node that was given; of several the first."""
        self.metrics = Metrics(listener)
        self._store = store
        world = ThreadWorld()
        self._flights = world.flights
        self._pool = Pool(places, DirectBackend, breaker, world)
        parts = Parts(
            pool=self._pool,
            faces=THREADS,
            store=None if store is None else DirectStore(store),
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
        self._comparer = shadowed(self._core, compare, in_thread)
        self._seal_keys = seal_keys(session_key)

    # --- reading -----------------------------------------------------------------------------

    def get(
        self,
        entity: Entity,
        key: Key = NO_KEY,
        *,
        default: Any = None,
        consistency: Level | None = None,
        deadline: Duration | None = None,
        **named: Any,
    ) -> Any:
        """The value of a key, or `default` for a row that does not exist.

        Raises:
            BadKey: the key does not fit the entity's template; nothing was sent.
            LoadFailed, StoreBudgetExceeded: the value is not cached and the store did not give it.
            CacheUnavailable: the node does not answer, and the policy is to raise.
            DeadlineExceeded: the deadline (a duration) passed.
        """
        raw: Any = NOT_ASKED
        if consistency is None and not named:
            view = self._layout.view
            # A hit of nearly every read: no coroutine, no plan. I13: this view's lease has not lapsed.
            began = time.monotonic()
            if view is not None and began < view.refresh_at:
                lane = view.lanes.get(entity)
                if lane is not None:
                    if lane.near is not None:
                        copy = lane.near(key if key.__class__ in PLAIN_KEYS else lane.render(key))
                        if copy is not None and began < copy.until:
                            lane.local()
                            return copy.value
                    if lane.under_way and deadline is None and not lane.breaker.failed:
                        if self._flights.young(lane.name(key), began):
                            other = run_now(lane.joined(key, self._flights, began))
                            if other is None:
                                other = self._read(entity, key_of(entity, key, named), consistency, deadline)
                            return other.value if other.found else default
                    value = lane.ask(key, began)
                    if type(value) is not Unserved:  # else the steps know what to do about it
                        return value
                    raw = value.raw
                    if raw is not NOT_ASKED:
                        if raw is not None and lane.shows_stale and (value := lane.stale(raw, began)) is not DOUBT:
                            return value
                        if lane.flights is not None and deadline is None:
                            other = run_now(lane.joined(key, lane.flights, began))
                            if other is not None:
                                return other.value if other.found else default
        found = self._read(entity, key_of(entity, key, named), consistency, deadline, raw)
        return found.value if found.found else default

    def read(
        self,
        entity: Entity,
        key: Key = NO_KEY,
        *,
        consistency: Level | None = None,
        deadline: Duration | None = None,
        **named: Any,
    ) -> Read:
        """`get` with the whole answer: found or not, version, source, age."""
        return as_read(self._read(entity, key_of(entity, key, named), consistency, deadline))

    def get_many(
        self,
        entity: Entity,
        keys: Iterable[Key],
        *,
        consistency: Level | None = None,
        deadline: Duration | None = None,
    ) -> dict[Key, Any]:
        """The values of the keys that exist, in the order asked."""
        return run_now(get_many(self._core, entity, keys_of(entity, keys), consistency, deadline))

    def read_many(
        self, entity: Entity, keys: Iterable[Key], *, consistency: Level | None = None, deadline: Duration | None = None
    ) -> dict[Key, Read]:
        """The long answer for every key asked."""
        keys = keys_of(entity, keys)
        found = run_now(read_many(self._core, entity, keys, consistency, deadline))
        return {key: as_read(one) for key, one in zip(keys, found, strict=True)}

    def explain(self, entity: Entity, key: Key = NO_KEY, **named: Any) -> Explanation:
        """What the item is, and why the next read would hit, miss or wait."""
        plan, raw = run_now(self._core.look(entity, key_of(entity, key, named)))
        return explain(plan, raw, now_ms())

    def session(self, token: str | None = None) -> Session:
        """Reads that see the session's own writes and never go back; with a `token`, as another process left off.

        Raises:
            BadToken: it is damaged, of a later program, or not sealed with a `session_key` of this cache.
        """
        return Session(self._core, token, self._seal_keys, self._store)

    def _read(
        self, entity: Entity, key: Key, level: Level | None, deadline: Duration | None, raw: Raw = NOT_ASKED
    ) -> Found:
        core = self._core
        found = run_now(core.read(entity, key, level, deadline, raw))
        core.mend_lane(entity)
        return found

    # --- writing -----------------------------------------------------------------------------

    @contextmanager
    def transaction(self, connection: Any = None) -> Iterator[Transaction]:
        """One store transaction; with `connection` (a SQLAlchemy connection or session) the one that it is in.

        On exit it commits, then puts or voids every key that its change-log rows name. An
        exception rolls back and touches no cache. Afterwards `tx.written` tells.

        Raises:
            Unconfirmed: committed, but a strong entity's cache did not answer. Never repeat it.
            CommitUnknown: the store did not say whether it committed.
            StoreError: the store refused; nothing is committed.
        """
        if self._store is None:
            raise ConfigError("a transaction needs a store: Cache(…, store=…)")
        # Now, because the first reader of a layout writes it: where the store has one writer at a
        # time, that would wait for the very transaction that it is read in.
        run_now(self._layout.current())
        with self._store.transaction(connection) as store_tx:
            tx = Transaction(self._core, store_tx)
            yield tx
            tx.written = run_now(commit(self._core, DirectTransaction(store_tx)))

    def put(self, entity: Entity, key: Key, value: Any) -> Written:
        """Write one value through: a transaction of one, by the entity's `save`."""
        with self.transaction() as tx:
            tx.put(entity, key, value)
        return _written(tx)

    def delete(self, entity: Entity, key: Key) -> Written:
        """Delete one row: a transaction of one, by the entity's `remove`."""
        with self.transaction() as tx:
            tx.delete(entity, key)
        return _written(tx)

    def invalidate(self, entity: Entity, key: Key = NO_KEY, **named: Any) -> None:
        """Void one key by hand (revoke). Raises `CacheUnavailable`."""
        run_now(self._core.invalidate(entity, key_of(entity, key, named)))

    def clear(self, *entities: Entity) -> None:
        """A new epoch for these entities (none given: for all keys): no key is scanned for.

        Returns when every client has taken it up, after two lease times of the layout.
        """
        run_now(self._core.clear(entities or None))

    def set_mode(self, entity: Entity | None, mode: str) -> None:
        """For a person on call: "on", "no_fill" or "bypass", for one entity or (None) all."""
        run_now(self._core.set_mode(entity, mode))

    # --- functions ---------------------------------------------------------------------------

    def cached(self, template: str, **settings: Any) -> Callable[[F], F]:
        """Cache a function's results under a key made of its arguments: leases and TTL only.

        The template's fields are the function's parameters. The decorated function has
        `.entity`, for `invalidate` and `clear`.
        """

        def decorate(function: F) -> F:
            if inspect.iscoroutinefunction(function):
                raise ConfigError(f"{function.__qualname__} is async: decorate it with AsyncCache.cached")
            entity = Entity(template, load=FunctionLoader(function), **settings)
            self._core.knows(entity)
            bound = arguments_of(function, entity)

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                return self.get(entity, bound(*args, **kwargs))

            call.entity = entity  # type: ignore[attr-defined]
            return call  # type: ignore[return-value]

        return decorate

    # --- life --------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections to the cache. The store is its owner's to close."""
        if self._comparer is not None:
            self._comparer.stop()
            joined(self._comparer.worker)
        run_now(self._pool.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _abandon(self, name: Name, op: Op) -> None:
        with suppress(CacheUnavailable):  # the lease ends by itself
            run_now(self._pool.execute(name, op))


def _written(tx: Transaction) -> Written:
    assert tx.written is not None
    return tx.written
