"""A session: reads that see its own writes and never go back, in this process and, by its token, in others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from cachelib.asked import NO_KEY, Read, as_read, key_of, keys_of
from cachelib.commit import Written, commit
from cachelib.core import Core
from cachelib.drivers import run_now
from cachelib.entity import Entity
from cachelib.errors import BadToken, ConfigError
from cachelib.history import History, key_mark
from cachelib.keys import Key
from cachelib.many import read_many
from cachelib.policy import Duration
from cachelib.session import decode_token, encode_token
from cachelib.threads import DirectTransaction
from cachelib.transaction import AsyncTransaction, LoopTransaction, Transaction
from cachelib.writes import Writes

if TYPE_CHECKING:
    from cachelib.stores.base import AsyncStore, Store

SEAL_KEY_BYTES_MIN = 16


def seal_keys(given: bytes | Sequence[bytes]) -> tuple[bytes, ...]:
    """The keys that tokens are sealed with. Raises `ConfigError` where one is too short to keep anybody out."""
    keys = tuple(filter(None, [given] if isinstance(given, bytes) else given))
    if any(len(key) < SEAL_KEY_BYTES_MIN for key in keys):
        raise ConfigError(f"session_key: give at least {SEAL_KEY_BYTES_MIN} random bytes (or several such keys)")
    return keys


class _Session:
    """What both faces share."""

    def __init__(self, core: Core, token: str | None, keys: tuple[bytes, ...]) -> None:
        if core.grounds.clock is None:
            raise ConfigError("a session needs a store, whose versions and clock it goes by: Cache(…, store=…)")
        self._core = core
        self._keys = keys
        self._clock = core.grounds.clock
        self._history = History("") if token is None else decode_token(_text(token), keys)

    @property
    def token(self) -> str:
        """What this session has seen and written, for `cache.session(token)` elsewhere: at most some 1.5 KB."""
        return encode_token(self._history, self._keys)

    async def _one(self, entity: Entity, key: Key, deadline: Duration | None) -> Any:
        return await self._core.read(entity, key, None, deadline, history=self._history)

    async def _many(self, entity: Entity, keys: Sequence[Key], deadline: Duration | None) -> Any:
        return await read_many(self._core, entity, keys, None, deadline, history=self._history)

    async def _begin(self) -> None:
        """Before a transaction is open, as what is asked here might wait for it."""
        await self._core.layout.current()
        await self._clock.ready()
        self._history.of_store(self._clock.mark)

    async def _remember(self, writes: Writes) -> None:
        marks = writes.remember(self._history, self._clock.latest_us())
        core, view = self._core, self._core.layout.view
        if not marks or view is None:
            return
        bindings = {}
        for one in writes.told:
            names = core.names(view, one.entity, one.text)
            met = await core.grounds.met(self._history, names, one.text, view.layout.number)
            bindings[key_mark(one.entity.name, one.text)] = met
        self._history.told(marks, bindings)


class Session(_Session):
    """For threads; `cache.session(token)`. Safe to share among them."""

    def __init__(self, core: Core, token: str | None, keys: tuple[bytes, ...], store: Store | None) -> None:
        super().__init__(core, token, keys)
        self._store = store

    def get(
        self, entity: Entity, key: Key = NO_KEY, *, default: Any = None, deadline: Duration | None = None, **named: Any
    ) -> Any:
        """See `Cache.get`."""
        found = run_now(self._one(entity, key_of(entity, key, named), deadline))
        return found.value if found.found else default

    def read(self, entity: Entity, key: Key = NO_KEY, *, deadline: Duration | None = None, **named: Any) -> Read:
        """See `Cache.read`."""
        return as_read(run_now(self._one(entity, key_of(entity, key, named), deadline)))

    def get_many(self, entity: Entity, keys: Iterable[Key], *, deadline: Duration | None = None) -> dict[Key, Any]:
        """See `Cache.get_many`."""
        keys = keys_of(entity, keys)
        found = run_now(self._many(entity, keys, deadline))
        return {key: one.value for key, one in zip(keys, found, strict=True) if one.found}

    def read_many(self, entity: Entity, keys: Iterable[Key], *, deadline: Duration | None = None) -> dict[Key, Read]:
        """See `Cache.read_many`."""
        keys = keys_of(entity, keys)
        found = run_now(self._many(entity, keys, deadline))
        return {key: as_read(one) for key, one in zip(keys, found, strict=True)}

    @contextmanager
    def transaction(self, connection: Any = None) -> Iterator[Transaction]:
        """See `Cache.transaction`: what it writes, this session reads."""
        assert self._store is not None
        run_now(self._begin())
        writes = Writes()
        try:
            with self._store.transaction(connection) as store_tx:
                tx = Transaction(self._core, store_tx)
                yield tx
                tx.written = run_now(commit(self._core, DirectTransaction(store_tx), writes))
        finally:
            run_now(self._remember(writes))

    def put(self, entity: Entity, key: Key, value: Any) -> Written:
        """See `Cache.put`."""
        with self.transaction() as tx:
            tx.put(entity, key, value)
        assert tx.written is not None
        return tx.written

    def delete(self, entity: Entity, key: Key) -> Written:
        """See `Cache.delete`."""
        with self.transaction() as tx:
            tx.delete(entity, key)
        assert tx.written is not None
        return tx.written


class AsyncSession(_Session):
    """`Session` with `await`."""

    def __init__(self, core: Core, token: str | None, keys: tuple[bytes, ...], store: AsyncStore | None) -> None:
        super().__init__(core, token, keys)
        self._store = store

    async def get(
        self, entity: Entity, key: Key = NO_KEY, *, default: Any = None, deadline: Duration | None = None, **named: Any
    ) -> Any:
        """See `Cache.get`."""
        found = await self._one(entity, key_of(entity, key, named), deadline)
        return found.value if found.found else default

    async def read(self, entity: Entity, key: Key = NO_KEY, *, deadline: Duration | None = None, **named: Any) -> Read:
        """See `Cache.read`."""
        return as_read(await self._one(entity, key_of(entity, key, named), deadline))

    async def get_many(
        self, entity: Entity, keys: Iterable[Key], *, deadline: Duration | None = None
    ) -> dict[Key, Any]:
        """See `Cache.get_many`."""
        keys = keys_of(entity, keys)
        found = await self._many(entity, keys, deadline)
        return {key: one.value for key, one in zip(keys, found, strict=True) if one.found}

    async def read_many(
        self, entity: Entity, keys: Iterable[Key], *, deadline: Duration | None = None
    ) -> dict[Key, Read]:
        """See `Cache.read_many`."""
        keys = keys_of(entity, keys)
        found = await self._many(entity, keys, deadline)
        return {key: as_read(one) for key, one in zip(keys, found, strict=True)}

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[AsyncTransaction]:
        """See `Session.transaction`."""
        assert self._store is not None
        await self._begin()
        writes = Writes()
        try:
            async with self._store.transaction(connection) as store_tx:
                tx = AsyncTransaction(self._core, store_tx)
                yield tx
                tx.written = await commit(self._core, LoopTransaction(store_tx), writes)
        finally:
            await self._remember(writes)

    async def put(self, entity: Entity, key: Key, value: Any) -> Written:
        """See `Cache.put`."""
        async with self.transaction() as tx:
            await tx.put(entity, key, value)
        assert tx.written is not None
        return tx.written

    async def delete(self, entity: Entity, key: Key) -> Written:
        """See `Cache.delete`."""
        async with self.transaction() as tx:
            await tx.delete(entity, key)
        assert tx.written is not None
        return tx.written


def _text(token: object) -> str:
    if not isinstance(token, str):
        raise BadToken(f"a session token is text, not {token!r}")
    return token
