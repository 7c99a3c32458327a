"""Connections that break, hang or lie: an error, and never another call's reply afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from cachelib.backends.base import Backend
from cachelib.backends.memcached import AsyncMemcached, Memcached
from cachelib.errors import BadKey, CacheUnavailable, ProtocolError
from cachelib.model import BelowFloor, Fill, Get, Item, Leased, LeaseLost, RaiseFloor, Revoke, value_of
from cachelib.testing.conformance_subject import on_a_loop
from tests.servers.memcached import MemcachedServer
from tests.servers.ports import HOST

pytestmark = pytest.mark.server

NOW = 1_700_000_000_000
A, B = b"shop/e1.t1/customers:7", b"shop/e1.t1/customers:8"
TTL = 60_000
HANDSHAKE = b"VERSION 1.6.18\r\n"

Make = Callable[..., Backend]


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Builds backends, and closes them."""
    made: list[Backend] = []

    def build(url: str, **settings: int) -> Backend:
        sync = request.param == "sync"
        made.append(Memcached(url, **settings) if sync else on_a_loop(AsyncMemcached(url, **settings)))
        return made[-1]

    yield build
    for backend in made:
        backend.close()


# --- a proxy that cuts -----------------------------------------------------------------------


class Proxy:
    """Between a client and memcached. `cut(n)`: of the next reply n bytes pass, and the connection ends."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server((HOST, 0))
        self._left: int | None = None
        self._after = b""
        self._open: list[socket.socket] = []
        self.url = f"{HOST}:{self._listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def cut(self, passing: int, after: bytes = b"") -> None:
        """Once, in the answer to the next request that begins with `after`."""
        self._left, self._after = passing, after

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection((HOST, self._upstream))
                self._open += [client, server]
                Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """Requests and replies in turn, as our clients speak."""
        with contextlib.suppress(OSError), client, server:
            server.settimeout(0.03)
            while request := client.recv(1 << 20):
                server.sendall(request)
                reply = b""
                with contextlib.suppress(TimeoutError):
                    while piece := server.recv(1 << 20):
                        reply += piece
                if self._left is not None and request.startswith(self._after):
                    passing, self._left = self._left, None
                    client.sendall(reply[:passing])
                    return
                client.sendall(reply)


@pytest.fixture
def proxy(memcached_server: MemcachedServer, memcached_url: str) -> Iterator[Proxy]:
    between = Proxy(memcached_server.port)
    yield between
    between.close()


@pytest.fixture
def direct(memcached_url: str) -> Iterator[Memcached]:
    backend = Memcached(memcached_url)
    yield backend
    backend.close()


@pytest.mark.parametrize("passing", [0, 1, 2, 5, 6, 20, 35, 60, 100, 106])
def test_get_cut_anywhere_is_asked_again(make: Make, proxy: Proxy, direct: Memcached, passing: int) -> None:
    direct.execute(A, Get(1, 30_000), NOW)
    through = make(proxy.url)
    assert through.get(B) is None
    proxy.cut(passing)
    assert through.get(A) == direct.get(A)
    assert through.get(B) is None
    assert through.get_many([A, B, A]) == [direct.get(A), None, direct.get(A)]


@pytest.mark.parametrize("passing", [0, 3, 10])
def test_write_cut_off_is_told_as_unknown_and_nothing_is_shifted(
    make: Make, proxy: Proxy, direct: Memcached, passing: int
) -> None:
    direct.execute(A, Get(1, 30_000), NOW)
    through = make(proxy.url)
    proxy.cut(passing, after=b"ms ")
    with pytest.raises(CacheUnavailable):
        through.execute(A, Fill(1, value_of(b"v"), 5, TTL), NOW)
    assert through.get(B) is None
    assert through.get(A) == direct.get(A)
    assert isinstance(through.execute(B, Get(2, 30_000), NOW), Leased)


@pytest.mark.parametrize("op", [RaiseFloor(5, "update", TTL), Revoke(TTL)], ids=["raise", "revoke"])
def test_raise_and_revoke_are_repeated_by_reading_again(
    make: Make, proxy: Proxy, direct: Memcached, op: RaiseFloor | Revoke
) -> None:
    direct.execute(A, Get(1, 30_000), NOW)
    through = make(proxy.url)
    proxy.cut(0, after=b"ms ")
    through.execute(A, op, NOW)
    assert direct.execute(A, Fill(1, value_of(b"old"), 4, TTL), NOW) in (BelowFloor(5), LeaseLost())


def test_batch_cut_off_answers_each_in_its_place(make: Make, proxy: Proxy, direct: Memcached) -> None:
    for name in (A, B):
        direct.execute(name, Get(1, 30_000), NOW)
    through = make(proxy.url)
    proxy.cut(4, after=b"ms ")
    batch = [(A, Fill(1, value_of(b"v"), 5, TTL)), (b"c", Get(9, 30_000)), (B, RaiseFloor(6, "update", TTL))]
    filled, leased, raised = through.execute_many(batch, NOW)
    assert isinstance(filled, CacheUnavailable)
    assert isinstance(leased, CacheUnavailable)
    assert not isinstance(raised, CacheUnavailable)
    assert through.execute_many([(b"d", Get(9, 30_000))], NOW) == [Leased(9, Item())]


def test_notes_cut_off_raise(make: Make, proxy: Proxy) -> None:
    through = make(proxy.url)
    proxy.cut(0, after=b"ms position")
    with pytest.raises(CacheUnavailable):
        through.apply([(A, Get(1, 30_000))], {b"position": b"17"}, NOW)


# --- a server that lies ----------------------------------------------------------------------


class Liar:
    """Answers each request but the handshake with the next of `replies`."""

    def __init__(self, *replies: bytes) -> None:
        self._replies = list(replies)
        self._listener = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = []
        self.url = f"{HOST}:{self._listener.getsockname()[1]}"
        self.connections = 0
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self.connections += 1
                self._open.append(client)
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while request := client.recv(1 << 20):
                client.sendall(HANDSHAKE if request == b"version\r\n" else self._replies.pop(0))

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def liar(*replies: bytes) -> Iterator[Liar]:
    server = Liar(*replies)
    try:
        yield server
    finally:
        server.close()


MISS = b"EN\r\n"


@pytest.mark.parametrize(
    "lie",
    [
        b"ERROR\r\n",
        b"CLIENT_ERROR bad command line format\r\n",
        b"SERVER_ERROR out of memory writing get response\r\n",
        b"HD\r\n",
        b"VA 2\r\nhi\r\n",
        b"VA 2 k" + B + b"\r\nhi\r\n",
        b"VA x k" + A + b"\r\nhi\r\n",
        b"VA 2 k" + A + b"\r\nhi\r\nEN\r\n",
        b"EN\r\nEN\r\n",
        b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
        b"x" * 4000,
        b"\r\n",
    ],
)
def test_unexpected_reply_to_a_get_is_no_value_and_no_miss(make: Make, lie: bytes) -> None:
    with liar(lie, MISS) as server:
        backend = make(server.url)
        with pytest.raises(ProtocolError):
            backend.get(A)
        assert backend.get(A) is None
        assert server.connections == 2  # the first one is gone


@pytest.mark.parametrize("lie", [b"EN\r\n", b"HD\r\n", b"HD kother\r\n", b"MN\r\n", b"SERVER_ERROR on fire\r\n"])
def test_unexpected_reply_to_a_write_is_no_answer(make: Make, lie: bytes) -> None:
    with liar(MISS, lie, MISS) as server:
        backend = make(server.url)
        with pytest.raises(ProtocolError):
            backend.execute(A, Get(1, 30_000), NOW)
        assert backend.get(A) is None
        assert server.connections == 2


def test_reply_to_an_earlier_request_is_not_taken_for_this_one(make: Make) -> None:
    # Somebody between us sends a reply twice: the second is found by its name.
    reply = b"VA 2 k" + A + b"\r\nhi\r\n"
    with liar(reply, reply, MISS) as server:
        backend = make(server.url)
        assert backend.get(A) == b"hi"
        with pytest.raises(ProtocolError):
            backend.get(B)
        assert backend.get(B) is None


def test_what_is_no_memcached_is_told_so() -> None:
    with liar() as server:
        server._serve = lambda client: client.sendall(b"-ERR unknown command\r\n")  # type: ignore[method-assign]
        backend = Memcached(server.url, timeout_ms=200)
        with pytest.raises(CacheUnavailable):
            backend.get(A)


# --- silence ---------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[MemcachedServer]:
    with MemcachedServer() as server:
        yield server


def test_late_reply_is_not_the_next_calls(make: Make, own_server: MemcachedServer) -> None:
    backend = make(own_server.url, timeout_ms=150)
    assert backend.execute(A, Get(1, 30_000), NOW) == Leased(1, Item())
    own_server.pause()
    with pytest.raises(CacheUnavailable, match="did not answer within 150 ms"):
        backend.get(A)
    own_server.resume()
    assert backend.get(B) is None
    assert backend.get(A) is not None


def test_server_that_is_gone_is_unavailable_and_comes_back(make: Make, own_server: MemcachedServer) -> None:
    backend = make(own_server.url)
    backend.execute(A, Get(1, 30_000), NOW)
    before = backend.instance()
    own_server.kill()
    with pytest.raises(CacheUnavailable):
        backend.get(A)
    with pytest.raises(CacheUnavailable):
        backend.execute(A, Get(1, 30_000), NOW)
    results = backend.execute_many([(b"k%d" % number, Get(1, 30_000)) for number in range(250)], NOW)
    assert all(isinstance(result, CacheUnavailable) for result in results)
    with pytest.raises(CacheUnavailable):
        backend.apply([], {b"position": b"1"}, NOW)
    own_server.start()
    assert backend.get(A) is None
    assert backend.instance() != before


def test_get_goes_on_over_a_restart(make: Make, own_server: MemcachedServer) -> None:
    backend = make(own_server.url)
    assert backend.get(A) is None
    own_server.kill()
    own_server.start()
    assert backend.get(A) is None
    assert backend.get_many([A, B]) == [None, None]


def test_cancelled_call_leaves_no_reply_behind(own_server: MemcachedServer) -> None:
    async def scenario() -> None:
        backend = AsyncMemcached(own_server.url, connections_max=1)
        await backend.execute(A, Get(1, 30_000), NOW)
        own_server.pause()
        calls = [asyncio.create_task(backend.get(A)), asyncio.create_task(backend.get(A))]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 2
        own_server.resume()
        assert await backend.get(B) is None
        assert await backend.get(A) is not None
        await backend.close()

    asyncio.run(scenario())


# --- nothing is sent -------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [*range(0x21), 0x7F])
def test_forbidden_byte_is_refused_before_anything_is_sent(make: Make, byte: int) -> None:
    name = b"a%cb" % byte
    nobody = make(f"{HOST}:1")  # to connect would raise another error
    for call in (
        lambda: nobody.get(name),
        lambda: nobody.get_many([A, name]),
        lambda: nobody.execute(name, Get(1, 30_000), NOW),
        lambda: nobody.apply([], {name: b""}, NOW),
        lambda: nobody.read_notes([name]),
    ):
        with pytest.raises(BadKey):
            call()
    (result,) = nobody.execute_many([(name, Get(1, 30_000))], NOW)
    assert isinstance(result, BadKey)
