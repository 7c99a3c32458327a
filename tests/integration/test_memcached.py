"""Both faces of a memcached node on a real server: what they hold, how much, and how their connections live."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from cachelib.backends.base import AsyncBackend, Backend
from cachelib.backends.memcached import AsyncMemcached, Memcached
from cachelib.backends.memcached.settings import ITEM_BYTES_MAX
from cachelib.envelope import HEADER_BYTES, decode
from cachelib.errors import CacheFull, CacheUnavailable
from cachelib.model import (
    Answer,
    Claim,
    Claimed,
    Fill,
    Get,
    Hit,
    Item,
    Leased,
    LeaseLost,
    NoOp,
    Put,
    Raised,
    RaiseFloor,
    Release,
    Revoke,
    Revoked,
    Stored,
    value_of,
)
from cachelib.testing.conformance_subject import on_a_loop
from tests.servers.certificates import self_signed
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST
from tests.servers.process import ask
from tests.servers.settling import settled

pytestmark = pytest.mark.server

NOW = 1_700_000_000_000
KEY = b"shop/e1.t1/customers:7"
TTL = 60_000

FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: of other threads' locks

Make = Callable[..., Backend]


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Builds backends, and closes them."""
    made: list[Backend] = []

    def build(url: str, **settings: Any) -> Backend:
        sync = request.param == "sync"
        made.append(Memcached(url, **settings) if sync else on_a_loop(AsyncMemcached(url, **settings)))
        return made[-1]

    yield build
    for backend in made:
        backend.close()


def get(token: int) -> Get:
    return Get(token, hold_ms=30_000)


def put(payload: bytes, version: int) -> Put:
    return Put(value_of(payload), version, "update", ttl_ms=TTL, stale_ttl_ms=TTL)


def fill(payload: bytes, version: int = 1) -> Fill:
    return Fill(1, value_of(payload), version, TTL)


def filled(backend: Backend, payload: bytes, name: bytes = KEY) -> Answer:
    backend.execute(name, get(1), NOW)
    return backend.execute(name, fill(payload), NOW)


def payload_of(raw: bytes | None) -> bytes:
    assert raw is not None
    return decode(raw).content.payload


def connections(server: MemcachedServer) -> int:
    """How many are open, without those of earlier tests that the server has not noticed to be closed."""
    return settled(lambda: stat(server, "curr_connections"))


def stat(server: MemcachedServer, name: str) -> int:
    found = re.search(rf"STAT {name} (\d+)".encode(), ask(server.port, b"stats\r\n"))
    assert found
    return int(found[1])


# --- what they hold --------------------------------------------------------------------------

PROTOCOL_TEXTS = [
    b"",
    b"\r\n",
    b"MN\r\n",
    b"END\r\n",
    b"EN\r\n",
    b"VA 2 kx\r\nhi\r\n",
    b"\r\nHD\r\n" * 9000,
    b"\0" * 70_000,
]


@pytest.mark.parametrize("payload", PROTOCOL_TEXTS, ids=lambda payload: repr(payload[:12]))
def test_values_may_look_like_the_protocol(make: Make, memcached_url: str, payload: bytes) -> None:
    backend = make(memcached_url)
    assert filled(backend, payload) == Stored()
    assert payload_of(backend.get(KEY)) == payload
    assert [payload_of(raw) for raw in backend.get_many([KEY, KEY])] == [payload, payload]
    hit = backend.execute(KEY, get(2), NOW)
    assert isinstance(hit, Hit)
    assert hit.item.content.payload == payload


def test_more_names_than_one_pipeline_takes(make: Make, memcached_url: str) -> None:
    backend = make(memcached_url, pipeline_max=7)
    names = [b"n%d" % number for number in range(50)]
    leased = backend.execute_many([(name, get(1)) for name in names], NOW)
    assert leased == [Leased(1, Item())] * 50
    assert backend.execute_many([(name, fill(name)) for name in names], NOW) == [Stored()] * 50
    assert [payload_of(raw) for raw in backend.get_many(names)] == names


def test_large_values_by_the_dozen_do_not_block_the_pipeline(make: Make, memcached_url: str) -> None:
    backend = make(memcached_url)
    names, large = [b"n%d" % number for number in range(24)], b"x" * 900_000
    backend.execute_many([(name, get(1)) for name in names], NOW)
    assert backend.execute_many([(name, fill(large)) for name in names], NOW) == [Stored()] * 24
    assert [payload_of(raw) == large for raw in backend.get_many(names)] == [True] * 24
    assert backend.execute_many([(name, RaiseFloor(2, "update", TTL)) for name in names], NOW) == [Raised()] * 24


def test_notes_are_read_back_and_live_on(make: Make, memcached_server: MemcachedServer, memcached_url: str) -> None:
    backend = make(memcached_url)
    assert backend.apply([(KEY, get(1))], {b"position/0": b"\x00\r\n7", b"position/1": b""}, NOW) == [Leased(1, Item())]
    assert backend.read_notes([b"position/0", b"position/1", b"position/2"]) == [b"\x00\r\n7", b"", None]
    assert b" t-1" in ask(memcached_server.port, b"mg position/0 t\r\n")


class UnixServer(MemcachedServer):
    """It listens on a path instead of its port."""

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/socket"

    def command(self) -> list[str | Path]:
        return [*super().command(), "-s", str(self.folder / "socket")]

    def answers(self) -> bool:
        return (self.folder / "socket").exists()


def test_unix_socket(make: Make) -> None:
    with UnixServer() as server:
        assert filled(make(server.url), b"v") == Stored()


class TlsServer(MemcachedServer):
    """With a certificate for localhost that it signed itself, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self._key = self_signed(folder)
        super().__init__()

    def command(self) -> list[str | Path]:
        return [*super().command(), "-Z", "-o", f"ssl_chain_cert={self.certificate},ssl_key={self._key}"]

    def answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1):
            return True


def test_tls_checks_the_name_of_the_host(make: Make, tmp_path: Path) -> None:
    with TlsServer(tmp_path) as server:
        context = ssl.create_default_context(cafile=server.certificate)
        assert filled(make(f"localhost:{server.port}", tls=context), b"v" * 300_000) == Stored()
        assert len(payload_of(make(f"localhost:{server.port}", tls=context).get(KEY))) == 300_000
        with pytest.raises(CacheUnavailable, match="certificate"):
            make(f"{HOST}:{server.port}", tls=context).get(KEY)


# --- how much --------------------------------------------------------------------------------


def test_largest_item_fits_with_the_longest_name(make: Make, memcached_url: str) -> None:
    backend, name = make(memcached_url), b"n" * 250
    assert backend.capability.payload_bytes_max == ITEM_BYTES_MAX - HEADER_BYTES
    largest = b"x" * backend.capability.payload_bytes_max
    assert filled(backend, largest, name) == Stored()
    assert payload_of(backend.get(name)) == largest


def test_server_takes_no_item_that_is_much_larger(memcached_server: MemcachedServer, memcached_url: str) -> None:
    # How near our limit is to the server's: 1 048 267 bytes with the longest name, on 1.6.18.
    backend = Memcached(memcached_url, item_bytes_max=2 << 20)
    payload = b"x" * (1_048_267 - HEADER_BYTES)
    assert filled(backend, payload, b"n" * 250) == Stored()
    assert filled(backend, payload + b"x", b"m" * 250) == LeaseLost()
    backend.close()


def test_put_over_our_limit_raises_the_floor(make: Make, memcached_url: str) -> None:
    backend = make(memcached_url, item_bytes_max=1000)
    filled(backend, b"old")
    assert backend.execute(KEY, put(b"x" * 933, 2), NOW) == Raised()
    item = decode(backend.get(KEY) or b"")
    assert (item.content, item.floor, item.fresh) == (value_of(b"old"), 2, False)
    assert backend.execute(KEY, put(b"x" * 932, 3), NOW) == Stored()


def test_fill_over_our_limit_frees_the_lease(make: Make, memcached_url: str) -> None:
    backend = make(memcached_url, item_bytes_max=1000)
    assert filled(backend, b"x" * 933) == LeaseLost()
    assert isinstance(backend.execute(KEY, get(2), NOW), Leased)


@pytest.fixture
def small_server() -> Iterator[MemcachedServer]:
    with MemcachedServer(item_size_max="512k") as server:
        yield server


def test_put_over_the_servers_limit_deletes(make: Make, small_server: MemcachedServer) -> None:
    backend = make(small_server.url)
    filled(backend, b"old")
    assert backend.execute(KEY, put(b"x" * 600_000, 2), NOW) == Revoked()
    assert backend.get(KEY) is None


def test_fill_over_the_servers_limit_loses_its_lease(make: Make, small_server: MemcachedServer) -> None:
    backend = make(small_server.url)
    assert filled(backend, b"x" * 600_000) == LeaseLost()
    assert isinstance(backend.execute(KEY, get(2), NOW), Leased)


@pytest.fixture
def full_server() -> Iterator[MemcachedServer]:
    """It refuses what does not fit instead of evicting."""
    with MemcachedServer(memory_mb=8, more=["-M"]) as server:
        yield server


def test_put_refused_by_a_full_server_deletes(make: Make, full_server: MemcachedServer) -> None:
    backend = make(full_server.url)
    filled(backend, b"old")
    while filled(backend, b"x" * 200_000, b"filler%d" % stat(full_server, "curr_items")) == Stored():
        pass
    assert backend.execute(KEY, put(b"x" * 200_000, 2), NOW) == Revoked()
    assert backend.get(KEY) is None


def test_full_server_keeps_nobody_from_loading(make: Make, full_server: MemcachedServer) -> None:
    backend = make(full_server.url)
    while filled(backend, b"x" * 200_000, b"filler%d" % stat(full_server, "curr_items")) == Stored():
        pass
    names = [b"cold%d" % number for number in range(12_000)]
    answers = backend.execute_many([(name, get(1)) for name in names], NOW)
    assert answers == [Leased(1, Item())] * len(names)
    refused = next(name for name, raw in zip(names, backend.get_many(names), strict=True) if raw is None)
    assert backend.execute(refused, fill(b"v"), NOW) == LeaseLost()
    assert backend.execute(refused, Claim(1, 1000), NOW) == Claimed()
    assert backend.execute(refused, Release(1), NOW) == NoOp()
    assert backend.execute(refused, Revoke(TTL), NOW) == NoOp()
    assert backend.execute(refused, RaiseFloor(2, "update", TTL, tombstone_ttl_ms=TTL), NOW) == Revoked()


def test_note_that_does_not_fit_is_an_error(make: Make, small_server: MemcachedServer) -> None:
    backend = make(small_server.url)
    with pytest.raises(CacheFull, match="note"):
        backend.apply([], {b"position": b"x" * 600_000}, NOW)
    assert backend.read_notes([b"position"]) == [None]


# --- their connections -----------------------------------------------------------------------


def test_threads_share_a_bounded_number_of_connections(memcached_server: MemcachedServer, memcached_url: str) -> None:
    backend, before = Memcached(memcached_url, connections_max=3), connections(memcached_server)
    filled(backend, b"v")
    ready, seen, hits = Barrier(30), [], []

    def work() -> None:
        ready.wait()
        for _ in range(30):
            hits.append(payload_of(backend.get(KEY)) == b"v" and isinstance(backend.execute(KEY, get(2), NOW), Hit))
            seen.append(len(backend._links._all))

    threads = [Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hits == [True] * 900
    assert max(seen) <= 3
    assert connections(memcached_server) - before <= 3
    backend.close()


def test_tasks_share_one_connection(memcached_server: MemcachedServer, memcached_url: str) -> None:
    async def scenario() -> None:
        backend, before = AsyncMemcached(memcached_url, in_flight_max=3), stat(memcached_server, "total_connections")
        names = [b"n%d" % number for number in range(100)]
        answers = await asyncio.gather(*(backend.execute(name, get(1), NOW) for name in names))
        assert answers == [Leased(1, Item())] * 100
        assert stat(memcached_server, "total_connections") - before == 2  # its one, and the one that asks
        await backend.close()

    asyncio.run(scenario())


def test_caller_waits_for_a_connection_no_longer_than_the_timeout(memcached_url: str) -> None:
    backend = Memcached(memcached_url, connections_max=1, timeout_ms=50)
    held = backend._links._wait_or_open(fresh=False)
    with pytest.raises(CacheUnavailable, match="raise connections_max"):
        backend.get(KEY)
    backend._links.give_back(held)
    assert backend.get(KEY) is None
    backend.close()


def test_task_waits_for_a_place_no_longer_than_it_may(memcached_url: str) -> None:
    async def scenario() -> None:
        backend = AsyncMemcached(memcached_url, in_flight_max=1)
        assert await backend.get(KEY) is None
        backend._links.lines._wait_ms = 50  # the server's own timeout would else come first
        held = asyncio.ensure_future(backend._links.lines.now().ask(b"", 1))  # nobody will answer that
        with pytest.raises(CacheUnavailable, match="raise in_flight_max"):
            await backend.get(KEY)
        held.cancel()
        await backend.close()

    asyncio.run(scenario())


def test_closed_backend_leaves_no_connection_and_opens_new_ones(
    make: Make, memcached_server: MemcachedServer, memcached_url: str
) -> None:
    before = connections(memcached_server)
    backend = make(memcached_url)
    assert backend.get(KEY) is None
    assert connections(memcached_server) == before + 1
    for _ in range(2):
        backend.close() if isinstance(backend, Memcached) else backend.run(backend._backend.close())
        while connections(memcached_server) > before:  # the server takes a moment to notice
            pass
        assert backend.get(KEY) is None


def test_async_backend_moves_to_another_loop(memcached_url: str) -> None:
    backend: AsyncBackend = AsyncMemcached(memcached_url)

    async def scenario() -> None:
        assert await backend.get(KEY) is None
        await backend.close()

    for _ in range(2):
        asyncio.run(scenario())


@FORKS
def test_child_of_a_fork_uses_connections_of_its_own(memcached_server: MemcachedServer, memcached_url: str) -> None:
    backend = Memcached(memcached_url)
    filled(backend, b"v")
    before = connections(memcached_server)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        fine = payload_of(backend.get(KEY)) == b"v"
        os.write(ready[1], b"y" if fine else b"n")
        os.read(go[0], 1)
        backend.close()
        os._exit(0)
    assert os.read(ready[0], 1) == b"y"
    assert connections(memcached_server) == before + 1
    for _ in range(50):
        assert payload_of(backend.get(KEY)) == b"v"
    os.write(go[1], b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert payload_of(backend.get(KEY)) == b"v"
    assert backend.counts() == {}  # the parent's connection was not touched
    backend.close()
    for end in (*ready, *go):
        os.close(end)


@FORKS
def test_fork_while_other_threads_are_busy(memcached_url: str) -> None:
    # Whatever lock another thread holds at the fork, the child does not wait for it.
    # Six threads want two connections all the time: on a busy machine one of them waits for seconds.
    backend = Memcached(memcached_url, connections_max=2, timeout_ms=30_000)
    filled(backend, b"v")
    stop: list[bool] = []

    def busy() -> None:
        while not stop:
            backend.get(KEY)

    threads = [Thread(target=busy) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os._exit(0 if payload_of(backend.get(KEY)) == b"v" else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.append(True)
    for thread in threads:
        thread.join()
    backend.close()
