"""A key that is written all the time: strong reads go on being hits, where a cache like Chrono is blind."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.bench.write_hot import measure, store_of
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer

pytestmark = [pytest.mark.server, pytest.mark.slow]
SECONDS = 4.0


def test_strong_reads_of_a_write_hot_key_are_hits_where_another_linearizable_cache_is_blind() -> None:
    with ExitStack() as stack:
        store_url = store_of(stack)
        redis, memcached = stack.enter_context(RedisServer()), stack.enter_context(MemcachedServer())
        ours = [measure("ours", server.url, store_url, SECONDS) for server in (redis, memcached)]
        chrono = measure("chrono", redis.url, store_url, SECONDS)
    for seen in ours:
        assert seen.ratio > 0.9
        assert seen.backwards == 0
    assert chrono.ratio < 0.3  # the start, before the first write, counts as well
