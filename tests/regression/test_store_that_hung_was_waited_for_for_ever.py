"""A PostgreSQL whose processes are stopped acknowledges everything and answers nothing: TCP sees no fault, and
`statement_timeout` is the server's. A load, a write and a commit waited until it went on.

The failure table's tests should have caught it; they only killed the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cachelib import CommitUnknown, LoadFailed, StoreError
from cachelib.stores import SqlStore, postgresql
from cachelib.stores.postgresql_connection import heard_from
from tests.integration.client_world import World, install
from tests.servers.postgresql import PostgresServer

ANSWER_S = 0.5
NOT_FOR_EVER_S = 60.0
"""Far above what is promised: a busy machine may take its time, for ever is longer."""

pytestmark = [pytest.mark.server]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        install(server.url)
        yield server


@pytest.fixture(params=["sync", "async"])
def world_of(
    request: pytest.FixtureRequest, postgres: PostgresServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    monkeypatch.setattr(postgresql, "_GRACE_S", 0.1)  # here no server would say anything in that time
    worlds = []

    def made(**settings: Any) -> World:
        worlds.append(World(request.param, redis_url, postgres.url, connect_timeout="2s", **settings))
        worlds[-1].sql("delete from customers")
        worlds[-1].customer(1, "Peter")
        return worlds[-1]

    yield made
    postgres.resume()
    for world in worlds:
        world.close()


def ended(call: Callable[[], Any], error: type[Exception]) -> str:
    """What it raised, in time."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    assert time.monotonic() - began < NOT_FOR_EVER_S
    return str(caught.value)


def test_load_and_write_end(world_of: Callable[..., World], postgres: PostgresServer) -> None:
    world = world_of(answer_timeout="1500ms")  # a busy machine that is well answers by then
    entity = world.customers()
    cache = world.cache()
    cache.get(entity, 1)  # its connections are open
    cache.put(entity, 1, {"name": "Paul", "tier": "gold"})
    postgres.pause()
    assert "no answer within" in ended(lambda: cache.get(entity, 2), LoadFailed)
    assert "no answer within" in ended(lambda: cache.put(entity, 1, {"name": "Petra", "tier": "gold"}), StoreError)
    postgres.resume()
    cache.put(entity, 1, {"name": "Petra", "tier": "gold"})
    assert cache.get(entity, 1) == {"name": "Petra", "tier": "gold"}


def test_deadline_ends_a_load_before_that(world_of: Callable[..., World], postgres: PostgresServer) -> None:
    """Asked of the store itself: a busy machine may have used up a call's deadline before its load begins."""
    world = world_of(answer_timeout="1h")
    load = world.customers().load
    world.run(world.store.load(load, [1]))
    postgres.pause()
    assert "no answer within" in ended(lambda: world.run(world.store.load(load, [2], timeout_s=0.1)), StoreError)


def test_commit_that_is_not_answered_is_unknown(postgres: PostgresServer) -> None:
    with SqlStore(postgres.url, answer_timeout=ANSWER_S) as store, store.transaction() as tx:
        tx.execute("update customers set name = 'Paula'")
        postgres.pause()
        try:
            with pytest.raises(CommitUnknown, match="no answer"):
                tx.commit()
        finally:
            postgres.resume()


def test_statement_that_takes_long_on_a_server_that_is_well_is_ended_by_the_server(postgres: PostgresServer) -> None:
    """So nothing is left running there, and the connection lives."""
    with SqlStore(postgres.url, answer_timeout=ANSWER_S) as store:
        with pytest.raises(StoreError, match="statement timeout"):
            store.load(lambda tx, _: dict(tx.execute("select pg_sleep(60), 1").all()), [1])
        assert store.load(lambda tx, _: dict(tx.execute("select 1, 2").all()), [1]).rows == {1: 2}


def test_servers_own_bound_is_not_raised(postgres: PostgresServer) -> None:
    url = postgres.url + "?options=-c%20statement_timeout%3D50"
    with SqlStore(url) as store, pytest.raises(StoreError, match="statement timeout"):
        store.load(lambda tx, _: dict(tx.execute("select pg_sleep(60), 1").all()), [1])


def test_answer_that_comes_bit_by_bit_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded is silence, not how long an answer takes."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    silent = SimpleNamespace(answer_s=1.0, pgconn=SimpleNamespace(finish=lambda: None))

    def protocol() -> Generator[int, int, str]:
        while (yield 1) != 7:
            pass
        return "done"

    heard = heard_from(silent, protocol())
    assert next(heard) == 1
    for _ in range(5):
        clock[0] += 0.9
        assert heard.send(1) == 1
        clock[0] += 0.9
        assert heard.send(0) == 1
    with pytest.raises(StopIteration, match="done"):
        heard.send(7)


def test_wait_for_changes_may_be_silent(postgres: PostgresServer) -> None:
    with SqlStore(postgres.url, answer_timeout="500ms") as store:
        store.wait_for_changes(store.log_end(), 2.0)
