"""A lease on nothing is set without the script, by the same rules, and so is its fill; what is there by then counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import OutOfMemoryError

from cachelib.backends.redis import Redis
from cachelib.backends.redis.talks import GRANTED_MAX, Talks
from cachelib.envelope import decode, encode
from cachelib.item import apply
from cachelib.model import (
    Answer,
    BelowFloor,
    Claim,
    Fill,
    Get,
    Held,
    Hit,
    Item,
    Leased,
    LeaseLost,
    Op,
    RaiseFloor,
    Release,
    Revoke,
    Stored,
    value_of,
)
from tests.servers.redis import RedisServer

NOW_MS = 1_700_000_000_000
GUESS = Get(7, 30_000, vacant=True)
ASKED = Get(7, 30_000)
HELD, _ = apply(None, Get(9, 30_000), NOW_MS)
FRESH = Item(value_of(b"v"), version=5, floor=5, expires_ms=NOW_MS + 60_000)
assert HELD is not None


@pytest.fixture
def backend(redis_url: str) -> Iterator[Redis]:
    backend = Redis(redis_url)
    backend.execute(b"warm", ASKED, NOW_MS)  # the script is there
    yield backend
    backend.close()


def scripts_run(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def test_a_lease_on_nothing_is_what_the_script_leaves(backend: Redis, redis_url: str) -> None:
    before = scripts_run(redis_url)
    assert backend.execute(b"guessed", GUESS, NOW_MS) == Leased(7, Item())
    assert scripts_run(redis_url) == before
    assert backend.execute(b"asked", ASKED, NOW_MS) == Leased(7, Item())
    assert backend.get(b"guessed") == backend.get(b"asked")
    with redis.Redis.from_url(redis_url) as client:
        guessed_ms, asked_ms = client.pttl(b"guessed"), client.pttl(b"asked")
    assert 0 < guessed_ms <= 120_000
    assert abs(guessed_ms - asked_ms) < 30_000
    assert backend.execute(b"guessed", Fill(7, value_of(b"v"), 5, 60_000), NOW_MS) == Stored()


@pytest.mark.parametrize("there", [HELD, FRESH])
def test_what_is_there_by_then_is_answered_and_not_touched(backend: Redis, redis_url: str, there: Item) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(b"k", encode(there), px=60_000)
    answer = backend.execute(b"k", GUESS, NOW_MS)
    assert answer == (Held(30_000, there) if there is HELD else Hit(there))
    assert backend.get(b"k") == encode(there)


@pytest.mark.parametrize("later_ms", [30_000, 61_000])
def test_a_lease_that_is_over_is_taken_by_the_script(backend: Redis, redis_url: str, later_ms: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(b"k", encode(HELD), px=60_000)
    before = scripts_run(redis_url)
    assert backend.execute(b"k", GUESS, NOW_MS + later_ms) == Leased(7, HELD)
    assert scripts_run(redis_url) == before + 1
    assert decode(backend.get(b"k") or b"").lease == 7


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([None, b"garbage"], id="bytes that are no item"),
        pytest.param([None, None], id="it went again"),
        pytest.param([OutOfMemoryError("OOM"), None], id="no memory"),
        pytest.param([None, OutOfMemoryError("OOM")], id="a refusal"),
        pytest.param([b"QUEUED", b"QUEUED"], id="nonsense"),
    ],
)
def test_in_doubt_the_script_is_asked(replies: list[object]) -> None:
    talk = Talks(100).execute(b"k", GUESS, NOW_MS)
    assert [command[0] for command in next(talk)] == [b"SET", b"GET"]
    assert [command[0] for command in talk.send(replies)] == [b"EVALSHA"]
    talk.close()


# --- its fill, judged by the client ---------------------------------------------------------------

FILL = Fill(7, value_of(b"v"), 5, 60_000, 30_000, 1234)


def test_a_fill_judged_by_the_client_leaves_what_the_script_leaves(backend: Redis) -> None:
    for name, get in ((b"judged", GUESS), (b"asked", ASKED)):
        assert backend.execute(name, get, NOW_MS) == Leased(7, Item())
        assert backend.execute(name, FILL, NOW_MS + 5) == Stored()
    assert backend.get(b"judged") == backend.get(b"asked")


def test_a_fill_is_judged_once_and_only_under_its_own_lease() -> None:
    talks = Talks(100)
    lease = talks.execute(b"k", GUESS, NOW_MS)
    next(lease)
    with pytest.raises(StopIteration):
        lease.send([b"OK", None])
    (other,) = next(talks.execute(b"k", Fill(8, value_of(b"v"), 5, 60_000), NOW_MS))
    (first,) = next(talks.execute(b"k", FILL, NOW_MS))
    (again,) = next(talks.execute(b"k", FILL, NOW_MS))
    assert (len(other), len(first), len(again)) == (6, 9, 6)
    assert first[6] == encode(apply(None, GUESS, NOW_MS)[0] or Item())


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        pytest.param(RaiseFloor(6, "update", 1000), BelowFloor(6), id="a floor above it"),
        pytest.param(RaiseFloor(4, "update", 1000), Stored(), id="a floor below it"),
        pytest.param(Revoke(1000), LeaseLost(), id="a revoke"),
        pytest.param(Claim(9, 30_000), LeaseLost(), id="a claim"),
        pytest.param(Release(7), LeaseLost(), id="a release"),
    ],
)
def test_what_came_between_lease_and_fill_is_judged_by_the_script(
    backend: Redis, between: Op, expected: Answer
) -> None:
    assert backend.execute(b"k", GUESS, NOW_MS) == Leased(7, Item())
    backend.execute(b"k", between, NOW_MS)
    assert backend.execute(b"k", FILL, NOW_MS) == expected


def test_a_fill_into_what_was_evicted_is_refused(backend: Redis, redis_url: str) -> None:
    assert backend.execute(b"k", GUESS, NOW_MS) == Leased(7, Item())
    with redis.Redis.from_url(redis_url) as client:
        client.delete("k")
    assert backend.execute(b"k", FILL, NOW_MS) == LeaseLost()
    assert backend.get(b"k") is None


def test_a_fill_that_the_server_has_no_memory_for_is_answered_as_an_eviction() -> None:
    with RedisServer(maxmemory_policy="noeviction") as server, redis.Redis.from_url(server.url) as client:
        backend = Redis(server.url)
        assert backend.execute(b"k", GUESS, NOW_MS) == Leased(7, Item())
        client.config_set("maxmemory", 1)
        assert backend.execute(b"k", FILL, NOW_MS) == LeaseLost()
        assert backend.refused_writes == 1
        backend.close()


def test_leases_are_not_remembered_without_end() -> None:
    talks = Talks(100)
    for token in range(1, 2 * GRANTED_MAX + 10):
        lease = talks.execute(b"k", Get(token, 30_000, vacant=True), NOW_MS)
        next(lease)
        with pytest.raises(StopIteration):
            lease.send([b"OK", None])
    assert len(talks.granted) <= GRANTED_MAX
