"""A real Kafka: one broker, or three, in KRaft mode with combined roles."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.servers.certificates import certificates
from tests.servers.kafka_java import java, write_properties
from tests.servers.kafka_python import KafkaAdminClient, NewTopic, closing
from tests.servers.maven import jars
from tests.servers.ports import HOST, free_port
from tests.servers.process import Server, ServerFailed, ask

USER, PASSWORD = "app", "app-secret"  # of the SASL listeners, PLAIN and SCRAM alike
HEAP_MB = 128
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_MODULE = "org.apache.kafka.common.security"
_SMALL: dict[str, object] = {
    "auto.create.topics.enable": "false",  # a deleted topic would come back by itself
    "group.initial.rebalance.delay.ms": 0,
    # A broker that was killed is let in again, and its partitions get another leader, when its session ends: not 9 s.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    # A heap of 128 MB has no room for the defaults.
    "log.cleaner.dedupe.buffer.size": 2_097_152,
    "log.cleaner.threads": 1,
    "num.network.threads": 1,
    "num.io.threads": 2,
}


def bearer_token(life_s: float = 3600.0) -> str:
    """A token without a signature, as the secured listeners take them."""
    now_s = time.time()
    parts = ({"alg": "none"}, {"sub": USER, "iat": now_s - 1, "exp": now_s + life_s})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return ".".join(encoded) + "."


class Topics:
    """Administration through one connection, closed at once: it must not outlive what a test does to brokers."""

    bootstrap: str

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """kafka-python's administrator, for what has no method here."""
        with closing(KafkaAdminClient, bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=10_000) as admin:
            yield admin

    def create_topic(self, name: str, partitions: int = 1, replicas: int | None = None, **settings: object) -> None:
        """Create it and wait until it has leaders. Settings with `_` for `.`: `cleanup_policy="compact"`."""
        configs = {setting.replace("_", "."): str(value) for setting, value in settings.items()}
        topic = NewTopic(name, partitions, replicas or -1, topic_configs=configs)
        with self.admin() as admin:
            admin.create_topics([topic], timeout_ms=15_000, wait_for_metadata=True)

    def delete_topic(self, name: str) -> None:
        """Delete it."""
        with self.admin() as admin:
            admin.delete_topics([name], timeout_ms=15_000)

    def describe(self, name: str) -> Mapping[str, Any]:
        """`topic_id`, `partitions` with `leader_id`, `isr_nodes` and so on, as kafka-python has them."""
        with self.admin() as admin:
            found: Mapping[str, Any] = admin.describe_topics([name])[0]
            return found


class KafkaServer(Topics, Server):
    """`KafkaServer(message_max_bytes=2000000)`: settings are those of server.properties, `_` for `.`.

    With `secured=True` it also listens on `sasl_ssl` and `sasl_plaintext`, where `USER` and `PASSWORD` are let in
    by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, and whoever has a `bearer_token` by OAUTHBEARER; `ca` is the authority's
    certificate. `port` stays open to all.
    """

    name = "kafka"

    def __init__(self, port: int | None = None, *, secured: bool = False, **settings: str | int) -> None:
        jars()
        super().__init__(port)
        self.node_id = 1
        self.controllers = {1: free_port()}
        self.cluster_id = _new_cluster_id()
        self.given = {name.replace("_", "."): value for name, value in settings.items()}
        self._secure_ports = (free_port(), free_port()) if secured else None
        self.ca: Path | None = None
        self._keystore: Path | None = None
        if secured:
            self.ca, self._keystore = certificates(self.folder)

    @property
    def bootstrap(self) -> str:  # type: ignore[override]
        """`127.0.0.1:PORT`."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """`kafka://127.0.0.1:PORT`."""
        return f"kafka://{self.bootstrap}"

    @property
    def sasl_ssl(self) -> str:
        """The address of the listener with SASL over TLS."""
        return f"{HOST}:{self._secured()[0]}"

    @property
    def sasl_plaintext(self) -> str:
        """The address of the listener with SASL alone."""
        return f"{HOST}:{self._secured()[1]}"

    def command(self) -> list[str | Path]:
        """See `Server.command`; formats the log's folder before the first start."""
        file = write_properties(self.folder / "server.properties", self.settings())
        if not (self.folder / "data").exists():
            self._format(file)
        return java(self.folder, HEAP_MB, "kafka.Kafka", file)

    def answers(self) -> bool:
        """A broker opens its port before it serves; then it says which requests it knows."""
        return len(ask(self.port, _API_VERSIONS)) > 0

    def settings(self) -> dict[str, object]:
        """What stands in server.properties."""
        nodes = len(self.controllers)
        copies = min(nodes, 3)
        topics = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        found: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": self.node_id,
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in self.controllers.items()),
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "default.replication.factor": copies,
            "min.insync.replicas": 2 if copies == 3 else 1,
            **_SMALL,
            **{f"{topic}.replication.factor": copies for topic in topics},
            **{f"{topic}.min.isr": 2 if copies == 3 else 1 for topic in topics[1:]},
            **self._listeners(),
        }
        return found | self.given

    def _listeners(self) -> dict[str, object]:
        open_to = {"PLAINTEXT": self.port}
        more: dict[str, object] = {}
        if self._secure_ports:
            open_to |= dict(zip(("SASL_SSL", "SASL_PLAINTEXT"), self._secure_ports, strict=True))
            more = self._security()
        advertised = ",".join(f"{listener}://{HOST}:{port}" for listener, port in open_to.items())
        return {
            "listeners": f"{advertised},CONTROLLER://{HOST}:{self.controllers[self.node_id]}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", *(f"{listener}:{listener}" for listener in open_to)]
            ),
            "inter.broker.listener.name": "PLAINTEXT",
        } | more

    def _security(self) -> dict[str, object]:
        plain = f'{_MODULE}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = f"{_MODULE}.scram.ScramLoginModule required;"
        bearer = f"{_MODULE}.oauthbearer.OAuthBearerLoginModule required;"
        found: dict[str, object] = {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._keystore,
        }
        for listener in ("sasl_ssl", "sasl_plaintext"):
            found[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
            found[f"listener.name.{listener}.oauthbearer.sasl.jaas.config"] = bearer
            for strength in (256, 512):
                found[f"listener.name.{listener}.scram-sha-{strength}.sasl.jaas.config"] = scram
        return found

    def _format(self, file: Path) -> None:
        line = java(self.folder, HEAP_MB, "kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", file)
        if self._secure_ports:
            for strength in (256, 512):
                line += ["--add-scram", f"SCRAM-SHA-{strength}=[name={USER},password={PASSWORD}]"]
        made = subprocess.run(line, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ServerFailed(f"kafka cannot format its folder:\n{made.stdout}{made.stderr}")

    def _secured(self) -> tuple[int, int]:
        if self._secure_ports is None:
            raise ServerFailed("this broker has no secured listeners: KafkaServer(secured=True)")
        return self._secure_ports


class KafkaCluster(Topics):
    """Three brokers that survive the loss of any one: `cluster.brokers[0].kill()`. Settings as `KafkaServer`'s."""

    def __init__(self, **settings: str | int) -> None:
        self.brokers: Sequence[KafkaServer] = [KafkaServer(free_port(), secured=False, **settings) for _ in range(3)]
        # A node's ports are known to the others, so none may take another one when it starts.
        controllers = {node: broker.controllers[1] for node, broker in enumerate(self.brokers, 1)}
        for node, broker in enumerate(self.brokers, 1):
            broker.node_id = node
            broker.controllers = controllers
            broker.cluster_id = self.brokers[0].cluster_id

    @property
    def bootstrap(self) -> str:  # type: ignore[override]
        """All of them, also those that are down: as an application would be told."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> Self:
        """All at once: one alone would wait for the others."""
        with ThreadPoolExecutor(len(self.brokers)) as starting:
            list(starting.map(KafkaServer.start, self.brokers))
        return self

    def close(self) -> None:
        """Kill all and remove their folders."""
        for broker in self.brokers:
            broker.close()

    def leader(self, topic: str, partition: int = 0) -> KafkaServer:
        """The broker that leads a partition."""
        leads: int = next(
            p["leader_id"] for p in self.describe(topic)["partitions"] if p["partition_index"] == partition
        )
        return self.brokers[leads - 1]

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def _new_cluster_id() -> str:
    # One in 64 would begin with "-" and be taken for an option.
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22].replace("-", "_")
