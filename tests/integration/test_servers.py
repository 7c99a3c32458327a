"""The servers that tests start: they come up, break as asked, come back on their port, and die with us."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.servers import missing
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST, free_port
from tests.servers.postgresql import PostgresServer
from tests.servers.process import Server, ServerFailed, ask
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.server

KINDS: list[Callable[[], Server]] = [RedisServer, MemcachedServer, PostgresServer]
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param() as started:
        yield started


def test_started_server_answers(server: Server) -> None:
    assert server.running
    assert server.answers()


def test_killed_server_restarts_on_its_port(server: Server) -> None:
    port, pid = server.port, server.pid

    server.kill()
    assert not server.running
    assert not psutil.pid_exists(pid)

    server.restart()
    assert server.port == port
    assert server.answers()


def test_closed_server_leaves_nothing_behind(server: Server) -> None:
    pids = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]

    server.close()

    assert not server.folder.exists()
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_paused_server_is_silent_until_resumed(server: Server) -> None:
    server.pause()
    with socket.create_connection((HOST, server.port), timeout=0.2) as connection:
        connection.sendall(b"PING\r\nversion\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)

    server.resume()
    assert server.answers()


def test_paused_server_can_be_stopped(server: Server) -> None:
    server.pause()
    server.stop()
    assert not server.running


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_server_dies_with_a_killed_test_process(kind: type[Server]) -> None:
    program = (
        f"import time; from {kind.__module__} import {kind.__name__} as Kind; server = Kind().start();"
        "print(server.pid, server.folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, folder = parent.stdout.readline().split()
        orphan = psutil.Process(int(pid))
        parent.send_signal(signal.SIGKILL)

    _wait_until_gone(orphan)
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_server_dies_and_cleans_up_at_the_end_of_the_program(kind: type[Server]) -> None:
    program = (
        f"from {kind.__module__} import {kind.__name__} as Kind; server = Kind().start();"
        "print(server.pid, server.folder)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)

    pid, folder = done.stdout.split()
    assert not psutil.pid_exists(int(pid))
    assert not Path(folder).exists()


def _wait_until_gone(process: psutil.Process) -> None:
    """Reaped, or a zombie where nobody reaps orphans (a container whose first process does not)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    pytest.fail(f"{process} outlived its parent")


def test_server_that_cannot_start_shows_its_log() -> None:
    server = RedisServer(maxmemory="plenty")
    with pytest.raises(ServerFailed, match="maxmemory"):
        server.start()
    server.close()


def test_new_server_takes_another_port_where_its_own_was_snatched() -> None:
    server = RedisServer()
    wanted = server.port
    with socket.socket() as snatcher:
        snatcher.bind((HOST, wanted))
        with server:
            assert server.port != wanted


def test_free_port_is_given_once() -> None:
    assert len({free_port() for _ in range(50)}) == 50


def test_redis_keeps_its_data_over_a_kill_only_where_asked() -> None:
    for appendonly in (True, False):
        with RedisServer(appendonly=appendonly, appendfsync="always") as server:
            ask(server.port, b"SET kept 1\r\n")
            server.kill()
            server.start()
            assert ask(server.port, b"EXISTS kept\r\n") == (b":1\r\n" if appendonly else b":0\r\n")


def test_redis_is_empty_at_the_start_of_a_test(redis_server: RedisServer, request: pytest.FixtureRequest) -> None:
    ask(redis_server.port, b"SET left-over 1\r\n")
    redis_server.kill()
    assert request.getfixturevalue("redis_url") == redis_server.url
    assert ask(redis_server.port, b"DBSIZE\r\n") == b":0\r\n"


def test_memcached_is_empty_at_the_start_of_a_test(
    memcached_server: MemcachedServer, request: pytest.FixtureRequest
) -> None:
    ask(memcached_server.port, b"set left-over 0 0 1\r\n1\r\n")
    request.getfixturevalue("memcached_url")
    assert ask(memcached_server.port, b"get left-over\r\n") == b"END\r\n"


def test_each_test_has_a_database_of_its_own(postgres_server: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.rsplit("/", 1)[1]
    other = postgres_server.create_database()
    with postgres_server.connect(database) as connection:
        connection.execute("create table kept (id int)")
    with postgres_server.connect(other) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("select * from kept")
    postgres_server.drop_database(other)


def test_database_with_a_session_and_a_slot_can_be_dropped(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    with psycopg.connect(postgres_server.dsn(name), autocommit=True) as reader:
        reader.execute("select pg_create_logical_replication_slot('reader', 'pgoutput')")
        postgres_server.drop_database(name)
    with postgres_server.connect() as connection:
        left = connection.execute("select 1 from pg_database where datname = %s", [name]).fetchall()
    assert left == []


def test_missing_server_is_a_skip_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is missing: install"):
        missing.require("no-such-server")
    with pytest.raises(pytest.skip.Exception, match="no_such_package is missing: pip install"):
        missing.package("no_such_package")


def test_missing_server_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-server is missing: install"):
        missing.require("no-such-server")
    with pytest.raises(pytest.fail.Exception, match="no_such_package is missing: pip install"):
        missing.package("no_such_package")
