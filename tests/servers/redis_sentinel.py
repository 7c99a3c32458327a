"""A real Sentinel that watches a master and its replica."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis

from tests.servers.ports import HOST
from tests.servers.redis import RedisServer

SERVICE = "shop"
READY_S = 30.0
DOWN_AFTER_MS = 800


class SentinelServer(RedisServer):
    """`redis-server --sentinel`: it writes what it learns into its own configuration."""

    name = "sentinel"

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self._master = master

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        config = self.folder / "sentinel.conf"
        if not config.exists():
            config.write_text(
                f"port {self.port}\nbind {HOST}\ndir {self.folder}\n"
                f"sentinel monitor {SERVICE} {HOST} {self._master.port} 1\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 4000\n"
            )
        return [self.binary, config, "--sentinel"]


class Watched:
    """`with Watched() as servers:`: a master, a replica, and who watches them."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            self.first = self._stack.enter_context(RedisServer())
            self.second = self._stack.enter_context(RedisServer(replicaof=f"{HOST} {self.first.port}"))
            self.sentinel = self._stack.enter_context(SentinelServer(self.first))
            self.wait("the sentinel knows the replica", lambda: len(self._asked("SENTINEL REPLICAS", SERVICE)) == 1)
            self.wait("the replica is in step", lambda: self.in_step(self.second))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """`redis+sentinel://127.0.0.1:PORT/shop`."""
        return f"redis+sentinel://{HOST}:{self.sentinel.port}/{SERVICE}"

    def master_port(self) -> int:
        """Where the Sentinel says that the master is."""
        return int(self._asked("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def wait(self, what: str, holds: Any) -> None:
        """Until it holds."""
        until = time.monotonic() + READY_S
        while not holds():
            assert time.monotonic() < until, f"{what} did not come true"
            time.sleep(0.05)

    def _asked(self, *command: Any) -> Any:
        with redis.Redis(port=self.sentinel.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def in_step(self, replica: RedisServer) -> bool:
        """Its link to its master is up."""
        with redis.Redis(port=replica.port) as client:
            return bool(client.info("replication").get("master_link_status") == "up")
