"""Replies of both wire protocols, however the stream cuts them."""

from __future__ import annotations

import pytest

from loadgen.engine.lane import Outcome
from loadgen.targets.wire_protocols import Dialect, MemcachedDialect, RedisDialect, dialect_of

HIT, MISS, WRITTEN = int(Outcome.HIT), int(Outcome.MISS), int(Outcome.WRITTEN)
REDIS = b"$3\r\nabc\r\n$-1\r\n+OK\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n"
MEMCACHED = b"VA 5\r\na\r\nbc\r\nEN\r\nHD\r\nNF\r\nVA 0\r\n\r\nSERVER_ERROR out of memory\r\nVA 2 f1\r\nxx\r\n"


@pytest.mark.parametrize(
    ("dialect", "stream", "expected"),
    [
        (RedisDialect(), REDIS, [HIT, MISS, WRITTEN, WRITTEN, [HIT, MISS], "ReplyError", HIT]),
        (MemcachedDialect(), MEMCACHED, [HIT, MISS, WRITTEN, WRITTEN, HIT, "SERVER_ERROR", HIT]),
    ],
)
def test_replies_are_the_same_wherever_the_stream_is_cut(
    dialect: Dialect, stream: bytes, expected: list[object]
) -> None:
    for size in range(1, len(stream) + 1):
        replies = dialect.replies()
        found: list[object] = []
        for at in range(0, len(stream), size):
            found += replies.feed(stream[at : at + size])
        assert found == expected, f"cut into pieces of {size}"


def test_several_keys_are_one_request_of_redis_and_as_many_of_memcached() -> None:
    assert RedisDialect().many([b"a", b"bc"]) == (b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$2\r\nbc\r\n", 1)
    assert MemcachedDialect().many([b"a", b"bc"]) == (b"mg a v\r\nmg bc v\r\n", 2)


def test_a_set_carries_its_life() -> None:
    expected = b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n$2\r\nEX\r\n$2\r\n60\r\n"
    assert RedisDialect().set(b"k", b"vv", 60) == expected
    assert MemcachedDialect().set(b"k", b"vv", 60) == b"ms k 2 T60\r\nvv\r\n"


def test_the_url_names_the_dialect() -> None:
    assert isinstance(dialect_of("memcached://h:1"), MemcachedDialect)
    assert isinstance(dialect_of("redis://h:1/0"), RedisDialect)
