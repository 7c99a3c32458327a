"""A real Redis Cluster: masters and a replica for each, every server a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import redis

from tests.servers.ports import HOST, free_port
from tests.servers.redis import RedisServer

SLOTS = 16384
READY_S = 30.0
NODE_TIMEOUT_MS = 1500


class RedisClusterServers:
    """`with RedisClusterServers() as cluster:`; `cluster.masters` and `cluster.replicas` in the same order."""

    def __init__(self, masters: int = 3) -> None:
        self._masters = masters
        self.servers: list[RedisServer] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        settings: dict[str, Any] = {"cluster_enabled": True, "cluster_node_timeout": NODE_TIMEOUT_MS}
        try:
            for _ in range(2 * self._masters):
                server = RedisServer(cluster_port=free_port(), **settings)
                self.servers.append(self._stack.enter_context(server))
            self._form()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def masters(self) -> list[RedisServer]:
        """Those that began as masters."""
        return self.servers[: self._masters]

    @property
    def replicas(self) -> list[RedisServer]:
        """Each of the master at the same place."""
        return self.servers[self._masters :]

    @property
    def url(self) -> str:
        """`redis+cluster://127.0.0.1:PORT,…`."""
        return "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in self.servers)

    def ask(self, server: RedisServer, *command: Any) -> Any:
        """One command to one server."""
        with redis.Redis(port=server.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def id_of(self, server: RedisServer) -> str:
        """The server's name in the cluster."""
        return str(self.ask(server, "CLUSTER MYID"))

    def whole(self) -> bool:
        """Every server that runs says that all slots are served."""
        return all(self._info(server)["cluster_state"] == "ok" for server in self.servers if server.running)

    def _info(self, server: RedisServer) -> dict[str, str]:
        return dict(self.ask(server, "CLUSTER INFO"))

    def wait(self, what: str, holds: Any) -> None:
        """Until it holds."""
        until = time.monotonic() + READY_S
        while not holds():
            assert time.monotonic() < until, f"{what} did not come true"
            time.sleep(0.05)

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> Iterator[None]:
        """Move a slot, as an administrator does: in the middle of it (yield), and when it is done."""
        here, there = self.id_of(source), self.id_of(target)
        self.ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", here)
        self.ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", there)
        yield
        while keys := self.ask(source, "CLUSTER GETKEYSINSLOT", slot, 100):
            self.ask(source, "MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        yield
        for server in (target, source, *self.having("master")):
            self.ask(server, "CLUSTER SETSLOT", slot, "NODE", there)

    def role(self, server: RedisServer) -> str:
        """`master` or `slave`."""
        with redis.Redis(port=server.port) as client:
            return str(client.info("replication")["role"])

    def having(self, role: str) -> list[RedisServer]:
        """Those that have this role now."""
        return [server for server in self.servers if self.role(server) == role]

    def mend(self) -> None:
        """Everybody runs, every slot is served, every replica is in step."""
        for server in self.servers:
            server.resume() if server.running else server.start()
        self.wait("the cluster is whole", self.whole)
        self.wait("a replica for each master", lambda: len(self.having("slave")) == self._masters)
        self.wait("every replica is in step", lambda: all(map(self.in_step, self.having("slave"))))

    def master_port(self, replica: RedisServer) -> int:
        """The port of its master."""
        with redis.Redis(port=replica.port) as client:
            return int(client.info("replication")["master_port"])

    def flush(self) -> None:
        """Remove every key, of whoever is a master now."""
        for server in self.having("master"):
            self.ask(server, "FLUSHALL")

    def _form(self) -> None:
        first = self.servers[0]
        for server in self.servers[1:]:
            bus = server.settings["cluster_port"]
            self.ask(first, "CLUSTER MEET", HOST, server.port, bus)
        self.wait("the servers know each other", lambda: all(self._knows_all(server) for server in self.servers))
        share = SLOTS // self._masters
        for number, server in enumerate(self.masters):
            last = SLOTS if number == self._masters - 1 else share * (number + 1)
            self.ask(server, "CLUSTER ADDSLOTSRANGE", share * number, last - 1)
        for master, replica in zip(self.masters, self.replicas, strict=True):
            self.ask(replica, "CLUSTER REPLICATE", self.id_of(master))
        self.wait("the cluster is whole", self.whole)
        self.wait("every replica is in step", lambda: all(self.in_step(replica) for replica in self.replicas))

    def _knows_all(self, server: RedisServer) -> bool:
        return int(self._info(server)["cluster_known_nodes"]) == len(self.servers)

    def in_step(self, replica: RedisServer) -> bool:
        """Its link to its master is up."""
        with redis.Redis(port=replica.port) as client:
            return bool(client.info("replication").get("master_link_status") == "up")
