"""Readers of one process waited for a load although there was something to show.

`Ttl.early` promises that one reader refreshes while the others still hit, and `stale_ttl` that
stale content is shown while another loads. Between processes it was so. Within one, every reader
joined the flight of the one that loaded, and waited up to `wait_max`; if that load failed, they
raised, while the one that had loaded showed the stale value.

Of its class: tests of a herd with readers in one process, not only in several, for an item that
still serves, one that is stale, and none; they are here and in `tests/integration`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cachelib import Cache, Entity, LoadFailed, Read, Ttl
from cachelib.entity import FunctionLoader

WAIT_S = 20.0


class Source:
    """A function that is loaded from, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.value = 1
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.fails = False

    def __call__(self, n: int) -> int:
        self.begun.set()
        self.go_on.wait(WAIT_S)
        if self.fails:
            raise OSError("the store is down")
        return self.value


@contextmanager
def one_loads(cache: Cache, entity: Entity, source: Source) -> Iterator[list[Read | Exception]]:
    """Another thread is in the middle of a load; at the end of the block it goes on."""
    source.begun.clear()
    source.go_on.clear()
    got: list[Read | Exception] = []

    def load() -> None:
        try:
            got.append(cache.read(entity, 7))
        except LoadFailed as error:
            got.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    assert source.begun.wait(WAIT_S)
    yield got
    source.go_on.set()
    thread.join()


@pytest.fixture
def source() -> Source:
    return Source()


def made(source: Source, **settings: object) -> tuple[Cache, Entity]:
    entity = Entity("number:{n}", load=FunctionLoader(source), **settings)
    cache = Cache("memory://")
    cache.get(entity, 7)
    return cache, entity


def test_others_hit_while_one_refreshes_early(source: Source) -> None:
    cache, entity = made(source, ttl="1h", jitter=Ttl(jitter=0, early=1.0))
    (name,) = cache.backend._items  # type: ignore[attr-defined]
    _age(cache, name)
    source.value = 2
    with one_loads(cache, entity, source) as got:
        other = cache.read(entity, 7, deadline="5s")
    assert (other.value, other.source) == (1, "hit")
    assert isinstance(got[0], Read)
    assert (got[0].value, got[0].source) == (2, "filled")


def test_others_are_shown_stale_content_while_one_loads(source: Source) -> None:
    cache, entity = made(source, stale_ttl="1m")
    cache.invalidate(entity, 7)
    source.value = 2
    with one_loads(cache, entity, source) as got:
        other = cache.read(entity, 7, deadline="5s")
    assert (other.value, other.source) == (1, "stale")
    assert isinstance(got[0], Read)
    assert got[0].value == 2


def test_nobody_raises_while_stale_content_may_be_shown(source: Source) -> None:
    cache, entity = made(source, stale_ttl="1m")
    cache.invalidate(entity, 7)
    source.fails = True
    others: list[str] = []
    with one_loads(cache, entity, source) as got:
        thread = threading.Thread(target=lambda: others.append(cache.read(entity, 7).source))
        thread.start()
        thread.join(0.05)  # if it joins the load, let it do so before the load fails
    thread.join()
    assert others == ["stale"]
    assert isinstance(got[0], Read)
    assert got[0].source == "stale"


def test_with_nothing_to_show_one_loads_for_all(source: Source) -> None:
    cache, entity = made(source, stale_ttl=0)
    cache.invalidate(entity, 7)
    sources: list[str] = []
    with one_loads(cache, entity, source) as got:
        thread = threading.Thread(target=lambda: sources.append(cache.read(entity, 7).source))
        thread.start()
        thread.join(0.05)
    thread.join()
    assert isinstance(got[0], Read)
    assert got[0].source == "filled"
    assert sources[0] in ("joined", "hit")


def _age(cache: Cache, name: bytes) -> None:
    """Move the item to where its early refresh is due."""
    from cachelib.envelope import decode, encode

    raw = cache.backend.get(name)
    assert raw is not None
    cache.backend.plant(name, encode(decode(raw).but(soft_expire_ms=1)))  # type: ignore[attr-defined]
