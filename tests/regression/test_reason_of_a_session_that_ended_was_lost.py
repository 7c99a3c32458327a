"""PostgreSQL ends a session with its reason ("terminating connection due to administrator command"). Who waited for a
NOTIFY then told no more than "the connection is lost": the reason came as a notice, which nobody read. A person on call
could not tell a watchdog from a network.

The tests of stores that restart should have caught it; they looked only whether something was said.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cachelib import StoreError
from cachelib.stores import AsyncSqlStore, SqlStore
from tests.integration.invalidator_daemon import Daemon, Shop, until
from tests.servers.postgresql import PostgresServer

pytestmark = [pytest.mark.server]

WAITING = "pid <> pg_backend_pid() and query like '%leasecache_waiting%'"
ADMINISTRATOR = "terminating connection due to administrator command"
TIMES = 5
"""The reason may come between two statements, or while one runs."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        with SqlStore(server.url) as store, server.connect() as connection:
            connection.execute("create table customers (id integer primary key)")
            store.install("customers")
        yield server


def ask(server: PostgresServer, statement: str) -> list[Any]:
    with server.connect() as connection:
        return connection.execute(statement).fetchall()  # type: ignore[call-overload, no-any-return]


def cut(server: PostgresServer, which: str = WAITING) -> None:
    """End sessions, once there are some."""
    until(lambda: ask(server, f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where {which}"))


def waited(url: str) -> None:
    with SqlStore(url) as store:
        store.wait_for_changes(store.log_end(), 60)


def awaited(url: str) -> None:
    async def wait() -> None:
        async with AsyncSqlStore(url) as store:
            await store.wait_for_changes(await store.log_end(), 60)

    asyncio.run(wait())


@pytest.mark.parametrize("wait", [waited, awaited])
def test_wait_for_changes_tells_why_the_session_was_ended(
    postgres: PostgresServer, wait: Callable[[str], None]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        for _ in range(TIMES):
            waiting = pool.submit(wait, postgres.url)
            cut(postgres)
            with pytest.raises(StoreError, match=ADMINISTRATOR):
                waiting.result(60)


def test_the_next_statement_tells_why_the_session_was_ended(postgres: PostgresServer) -> None:
    with SqlStore(postgres.url) as store:
        for _ in range(TIMES):
            store.now_us()
            cut(postgres, "pid <> pg_backend_pid() and datname = 'postgres' and backend_type = 'client backend'")
            with pytest.raises(StoreError, match=ADMINISTRATOR):
                store.now_us()


def test_daemon_tells_why_its_session_was_ended(postgres: PostgresServer, redis_url: str, tmp_path: Path) -> None:
    """In its log, and in its status after it reads again as if nothing had been."""
    shop = Shop(postgres.url_of(postgres.create_database("shop")))
    try:
        with Daemon(tmp_path, shop.url, [redis_url], apply={"retry_max": "100ms"}) as daemon:
            cut(postgres)
            until(lambda: ADMINISTRATOR in daemon.status()["last_store_error"])
            until(lambda: not daemon.status()["store_error"])
            errors = [line["error"] for line in daemon.log() if line["event"] == "the store does not answer"]
            assert errors
            assert all(ADMINISTRATOR in error for error in errors), errors
    finally:
        shop.close()


def test_server_that_stops_at_once_says_so_with_a_warning(postgres: PostgresServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(waited, postgres.url)
        until(lambda: ask(postgres, f"select 1 from pg_stat_activity where {WAITING}"))
        os.kill(postgres.pid, signal.SIGQUIT)
        try:
            with pytest.raises(StoreError, match="terminating connection due to immediate shutdown command"):
                waiting.result(60)
        finally:
            postgres.restart()
