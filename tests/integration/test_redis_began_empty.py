"""A Redis tells whether its start can hold anything from before: where it cannot, lost positions cost no new names."""

from __future__ import annotations

from cachelib.backends.redis import Redis
from tests.servers.process import ask
from tests.servers.redis import RedisServer


def test_redis_that_loaded_its_file_did_not_begin_empty() -> None:
    with RedisServer() as server:
        backend = Redis(server.url)
        assert backend.began_empty()
        assert ask(server.port, b"SET a 1\r\n", timeout_s=10).startswith(b"+OK")
        assert backend.began_empty()  # that came later
        assert ask(server.port, b"SAVE\r\n", timeout_s=10).startswith(b"+OK")
        backend.close()
        server.kill()
        server.start()
        again = Redis(server.url)
        assert not again.began_empty()
        again.close()
