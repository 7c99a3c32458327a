"""The first start of a daemon whose log does not begin with the first change (Kafka) gave everything a new epoch, also
where the node kept nothing: the rule was there, but no backend of a real server said that it was empty.

`test_empty_node_of_a_new_consumer_goes_on_from_before_what_the_store_may_not_show_yet` should have asked a real one.
"""

from __future__ import annotations

from typing import Any

import pytest

from cachelib.backends.base import Tells
from cachelib.backends.memcached import Memcached
from cachelib.backends.redis import Redis
from cachelib.model import Get
from invalidator.sources.base import Capability, Positions
from invalidator.sources.outbox import Outbox
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer
from tests.unit.invalidator_world import FakeNode, World, fresh


def lease(backend: Any) -> None:
    backend.execute(b"lc/e.t/name", Get(token=1, hold_ms=1000), 1_000_000)


def note(backend: Any) -> None:
    backend.apply([], {b"lc/position/me/log/0": b"note"}, 1_000_000)


@pytest.mark.parametrize(("server", "kind"), [(RedisServer, Redis), (MemcachedServer, Memcached)])
@pytest.mark.parametrize("keeps", [lease, note])
def test_node_is_empty_until_somebody_has_a_lease_or_a_note_on_it(server: Any, kind: Any, keeps: Any) -> None:
    """A lease is enough: its load may have begun before whatever the daemon asks for next."""
    with server() as running:
        backend = kind(running.url)
        try:
            assert isinstance(backend, Tells)
            assert backend.empty()
            keeps(backend)
            assert not backend.empty()
        finally:
            backend.close()


class Telling(FakeNode):
    def empty(self) -> bool:
        return not self._items and not self._notes


class Partial(Outbox):
    """A log whose beginning is not kept."""

    capability = Capability("partial", shows_early=False, watermark=True, whole=False)

    def reader(self, positions: Positions) -> Partial:
        return Partial(self._log, self._consumer, positions["log"])


def first_start(*, cached: bool) -> tuple[World, bytes]:
    world = World(source=Partial)
    world.store.change()
    world.nodes = {"a": Telling(world.clock)}
    name = world.cache(version=0) if cached else b""
    world.start()
    world.go(30)
    return world, name


def test_first_start_voids_nothing_on_an_empty_node() -> None:
    world, _ = first_start(cached=False)
    assert world.metric("epochs_total", reason="unknown_node") == 0
    assert world.worker().counts
    name = world.cache(version=0)
    world.store.change()
    world.go()
    assert not fresh(world.node(), name)


def test_first_start_voids_what_was_cached_before_it() -> None:
    world, name = first_start(cached=True)
    assert world.metric("epochs_total", reason="unknown_node") == 1
    assert world.name_of() != name
