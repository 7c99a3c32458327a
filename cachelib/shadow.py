"""What a cache asks of itself and of its store to compare some of its hits (`comparing.py`), for both faces."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from cachelib.comparing import Comparer
from cachelib.core import Core
from cachelib.entity import Entity
from cachelib.errors import CacheError, ConfigError
from cachelib.keys import Key
from cachelib.policy import Compare
from cachelib.port import Loaded


class Shadow:
    """`comparing.Asks` over a core: loads stand under its `StoreBudget`, too."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def truth_of(self, entity: Entity, key: Key) -> Loaded:
        """See `Asks.truth_of`."""
        (loaded,) = await self._core.call(self._core.knows(entity)).load_many([entity.template.plain(key)])
        if isinstance(loaded, CacheError):
            raise loaded
        return loaded

    async def item_of(self, entity: Entity, key: Key) -> bytes | None:
        """See `Asks.item_of`."""
        view = await self._core.layout.current()
        return await self._core.node.get(self._core.names(view, entity, entity.text(key))[0])


def shadowed(
    core: Core, compare: float | Compare | None, start: Callable[[Coroutine[Any, Any, None]], Any]
) -> Comparer | None:
    """Have the core's hits compared; None: it was not asked for. Raises `ConfigError`."""
    if compare is None:
        return None
    policy = compare if isinstance(compare, Compare) else Compare(share=compare)
    if core.store is None:
        raise ConfigError("compare= needs a store to compare hits with: Cache(…, store=…)")
    core.comparer = Comparer(policy, Shadow(core), core.parts.world, core.metrics, start)
    return core.comparer
