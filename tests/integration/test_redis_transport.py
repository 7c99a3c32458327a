"""What the Redis backend does when servers and connections break. Sync."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from threading import Thread

import pytest
import redis

from cachelib.backends.redis import Redis
from cachelib.backends.redis.settings import NAMES_PER_CALL_MAX
from cachelib.errors import CacheFull, CacheUnavailable, ConfigError
from cachelib.model import (
    Claim,
    Claimed,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Leased,
    LeaseLost,
    NoOp,
    Put,
    RaiseFloor,
    Release,
    Revoke,
    Revoked,
    Stored,
    value_of,
)
from tests.servers.redis import RedisServer
from tests.servers.settling import settled

NOW_MS = 1_700_000_000_000
GET = Get(7, 30_000)
FILL = Fill(7, value_of(b"v"), 5, 3_600_000)


@pytest.fixture
def backend(redis_url: str) -> Iterator[Redis]:
    backend = Redis(redis_url)
    yield backend
    backend.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def cached(backend: Redis, *names: bytes) -> None:
    backend.execute_many([(name, GET) for name in names], NOW_MS)
    assert backend.execute_many([(name, FILL) for name in names], NOW_MS) == [Stored()] * len(names)


def open_connections(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return settled(lambda: len(client.client_list())) - 1


def kill_connections(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.client_kill_filter(_type="normal", skipme=True)


# --- broken connections ------------------------------------------------------------------------


def test_read_is_repeated_once_where_the_server_closed_an_idle_connection(backend: Redis, redis_url: str) -> None:
    cached(backend, b"k")
    kill_connections(redis_url)
    assert backend.get(b"k") is not None


def test_operation_takes_no_connection_that_the_server_closed(backend: Redis, redis_url: str) -> None:
    cached(backend, b"k")
    kill_connections(redis_url)
    assert isinstance(backend.execute(b"k", GET, NOW_MS), Hit)


def test_after_a_restart_the_script_is_loaded_again(own_server: RedisServer) -> None:
    backend = Redis(own_server.url)
    cached(backend, b"k")
    before = backend.instance()
    own_server.restart()
    assert backend.get(b"k") is None
    assert backend.execute(b"k", GET, NOW_MS) == Leased(7, Item())
    assert backend.instance() != before
    backend.close()


def test_script_flushed_in_between_costs_one_more_round_trip(backend: Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    names = [b"%d" % number for number in range(250)]
    assert backend.execute_many([(name, GET) for name in names], NOW_MS) == [Leased(7, Item())] * 250


def test_dead_server_is_unavailable(own_server: RedisServer) -> None:
    backend = Redis(own_server.url)
    cached(backend, b"k")
    own_server.kill()
    for call in (
        lambda: backend.get(b"k"),
        lambda: backend.get_many([b"k"]),
        lambda: backend.execute(b"k", GET, NOW_MS),
        lambda: backend.execute_many([(b"k", GET)], NOW_MS),
        lambda: backend.apply([], {b"n": b"1"}, NOW_MS),
        lambda: backend.instance(),
    ):
        with pytest.raises(CacheUnavailable, match=f"redis at 127.0.0.1:{own_server.port}"):
            call()
    backend.close()


def test_silent_server_is_unavailable_and_late_replies_reach_nobody(own_server: RedisServer) -> None:
    backend = Redis(own_server.url, timeout_ms=100)
    cached(backend, b"a", b"b")
    own_server.pause()
    began = time.monotonic()
    with pytest.raises(CacheUnavailable):
        backend.get(b"a")
    with pytest.raises(CacheUnavailable):
        backend.execute(b"a", Revoke(1000), NOW_MS)
    assert time.monotonic() - began < 5
    own_server.resume()
    backend.execute(b"b", Fill(1, value_of(b"x"), 1, 1000), NOW_MS)
    assert backend.get(b"c") is None
    assert backend.get(b"b") is not None
    backend.close()


def test_interrupt_in_the_middle_of_a_read_closes_the_connection(
    backend: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(backend, b"a", b"b")
    link = backend._transport.rack.free[-1]

    def interrupted(size: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(link, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.get(b"a")
    assert not link.is_connected
    assert backend.get(b"missing") is None


# --- how many --------------------------------------------------------------------------------------


def test_connections_are_bounded_and_so_is_the_wait_for_one(redis_url: str) -> None:
    backend = Redis(redis_url, connections_max=2, wait_ms=50)
    lanes = backend._transport.rack
    taken = [lanes.take(), lanes.take()]
    with pytest.raises(CacheUnavailable, match="connections_max"):
        backend.get(b"k")
    giver = Thread(target=lambda: (time.sleep(0.01), lanes.give(taken[0])))
    giver.start()
    assert backend.get(b"k") is None
    giver.join()
    lanes.drop(taken[1])
    assert backend.execute(b"k", GET, NOW_MS) == Leased(7, Item())
    backend.close()


def test_many_threads_share_few_connections(redis_url: str) -> None:
    backend = Redis(redis_url, connections_max=3, wait_ms=10_000)
    cached(backend, b"k")
    wrong: list[object] = []

    def read() -> None:
        for _ in range(200):
            if backend.get(b"k") is None or not isinstance(backend.execute(b"k", GET, NOW_MS), Hit):
                wrong.append("a miss")

    threads = [Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert open_connections(redis_url) <= 3
    backend.close()


def test_close_closes_and_the_next_call_opens(backend: Redis, redis_url: str) -> None:
    cached(backend, b"k")
    lanes = backend._transport.rack
    in_use = lanes.take()
    in_use.connect()
    backend.close()
    lanes.give(in_use)
    assert not in_use.is_connected
    assert open_connections(redis_url) == 0
    assert backend.get(b"k") is not None


def test_child_after_a_fork_uses_connections_of_its_own(backend: Redis) -> None:
    cached(backend, b"parent", b"child")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # no pytest in here
        try:
            raw = [backend.get(b"child") for _ in range(50)][-1]
            del raw
            backend.close()
            gc.collect()
            os.write(writer, b"fine" if backend.get(b"missing") is None else b"wrong")
        finally:
            os._exit(0)
    seen = {backend.get(b"parent") for _ in range(200)}
    os.close(writer)
    assert os.read(reader, 10) == b"fine"
    os.close(reader)
    os.waitpid(child, 0)
    assert seen == {backend.get(b"parent")}
    assert isinstance(backend.execute(b"parent", GET, NOW_MS), Hit)


# --- refusals ------------------------------------------------------------------------------------


@pytest.fixture
def full_url() -> Iterator[str]:
    """A server that is full and may not evict; it has items of before."""
    with RedisServer(maxmemory_policy="noeviction") as server:
        backend = Redis(server.url)
        cached(backend, b"raised", b"revoked", b"put", b"claimed", b"hit")
        backend.execute(b"leased", GET, NOW_MS)
        backend.apply([], {b"note": b"old"}, NOW_MS)
        backend.close()
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", 1)
        yield server.url


FULL = {
    "raise_floor": (b"raised", RaiseFloor(6, "update", 1000), Revoked()),
    "revoke": (b"revoked", Revoke(1000), Revoked()),
    "put": (b"put", Put(value_of(b"w"), 6, "update", 1000, 1000), Revoked()),
    "get": (b"new", Get(9, 1000), Leased(9, Item())),
    "fill": (b"leased", FILL, LeaseLost()),
    "claim": (b"claimed", Claim(9, 1000), Claimed()),
    "release": (b"leased", Release(7), NoOp()),
}


@pytest.mark.parametrize("what", FULL)
def test_full_server_drops_what_it_cannot_void(full_url: str, what: str) -> None:
    name, op, expected = FULL[what]
    backend = Redis(full_url)
    before = backend.get(name)
    assert backend.execute(name, op, NOW_MS) == expected
    assert backend.get(name) == (None if expected == Revoked() else before)
    assert backend.refused_writes == 1
    assert isinstance(backend.execute(b"hit", Get(9, 1000), NOW_MS), Hit)
    backend.close()


def test_lease_that_a_full_server_did_not_keep_fills_nothing(full_url: str) -> None:
    backend = Redis(full_url)
    assert backend.execute(b"new", GET, NOW_MS) == Leased(7, Item())
    assert backend.execute(b"new", FILL, NOW_MS) == LeaseLost()
    backend.close()


def test_note_that_a_full_server_refuses_is_an_error(full_url: str) -> None:
    backend = Redis(full_url)
    with pytest.raises(CacheFull, match="note"):
        backend.apply([(b"hit", Get(9, 1000))], {b"note": b"new"}, NOW_MS)
    assert backend.read_notes([b"note"]) == [b"old"]
    backend.close()


def test_replica_refuses_and_notes_stay_unwritten(own_server: RedisServer) -> None:
    backend = Redis(own_server.url)
    cached(backend, b"k")
    with redis.Redis.from_url(own_server.url) as client:
        client.replicaof("127.0.0.1", 1)  # nobody there; writes are refused at once
    results = backend.apply([(b"k", Revoke(1000)), (b"x", GET)], {b"n": b"1"}, NOW_MS)
    assert [type(result) for result in results] == [CacheUnavailable, CacheUnavailable]
    with pytest.raises(CacheUnavailable, match="replica"):
        backend.execute(b"k", Revoke(1000), NOW_MS)
    with redis.Redis.from_url(own_server.url) as client:
        client.replicaof("NO", "ONE")
    assert backend.read_notes([b"n"]) == [None]
    backend.close()


def test_notes_stay_unwritten_where_the_connection_broke_behind_the_batch(
    backend: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(backend, b"k")
    link = backend._transport.rack.free[-1]
    receive = link.receive

    def receive_and_break(size: int) -> bytes:
        reply = receive(size)
        kill_connections(redis_url)
        return reply

    monkeypatch.setattr(link, "receive", receive_and_break)
    with pytest.raises(CacheUnavailable):
        backend.apply([(b"k", GET)], {b"n": b"1"}, NOW_MS)
    assert backend.read_notes([b"n"]) == [None]


def test_key_of_another_type_is_no_value(backend: Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("list", "x")
    with pytest.raises(CacheUnavailable, match="WRONGTYPE"):
        backend.get(b"list")
    with pytest.raises(CacheUnavailable, match="WRONGTYPE"):
        backend.execute(b"list", GET, NOW_MS)
    assert backend.get_many([b"list"]) == [None]


# --- addresses and settings -------------------------------------------------------------------------


def test_password_and_database_are_the_librarys_and_stay_out_of_messages() -> None:
    with RedisServer(requirepass="secret") as server:
        wrong = Redis(f"redis://:wrongpass@127.0.0.1:{server.port}/3")
        with pytest.raises(CacheUnavailable) as refused:
            wrong.get(b"k")
        assert "wrongpass" not in str(refused.value)
        right = Redis(f"redis://:secret@127.0.0.1:{server.port}/3")
        assert right.execute(b"k", GET, NOW_MS) == Leased(7, Item())
        assert right.execute(b"k", GET, NOW_MS) == Held(30_000, right_item(right))
        right.close()
        wrong.close()


def right_item(backend: Redis) -> Item:
    answer = backend.execute(b"k", GET, NOW_MS)
    assert isinstance(answer, Held)
    return answer.item


def test_unix_socket_works() -> None:
    with RedisServer(unixsocket="redis.sock") as server:
        backend = Redis(f"unix://{server.folder / 'redis.sock'}")
        assert backend.execute(b"k", GET, NOW_MS) == Leased(7, Item())
        backend.close()


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("redis://localhost", {"timeout": 5}, "did you mean 'timeout_ms'"),
        ("redis://localhost", {"timeout_ms": 0}, "timeout_ms"),
        ("redis://localhost", {"payload_bytes_max": 1 << 30}, "payload_bytes_max"),
        ("redis://localhost", {"names_per_call": NAMES_PER_CALL_MAX + 1}, "names_per_call"),
        ("redis://localhost?protocol=3", {}, "protocol"),
        ("redis://localhost?decode_responses=True", {}, "decode_responses"),
        ("redis://localhost?retry_on_timeout=True", {}, "retries"),
        ("localhost:6379", {}, "no address"),
    ],
)
def test_wrong_settings_are_refused_at_once(url: str, settings: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Redis(url, **settings)
