"""Kafka Connect with the Debezium connector for PostgreSQL: a real change data capture, as users have it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.kafka import KafkaServer
from tests.servers.kafka_java import java, write_properties
from tests.servers.maven import jars
from tests.servers.ports import HOST
from tests.servers.postgresql import USER, PostgresServer
from tests.servers.process import Server, ServerFailed

HEAP_MB = 160
_CONNECTOR = "io.debezium.connector.postgresql.PostgresConnector"
_JSON = "org.apache.kafka.connect.json.JsonConverter"


class Debezium(Server):
    """Captures `tables` (such as `public.orders`) of one database into topics `PREFIX.SCHEMA.TABLE`.

    Started, it streams: what is committed from now on arrives. `schemas` puts the schema beside every
    record. `options` are the connector's, over those that follow from the rest; a restart goes on where it was.
    """

    name = "debezium"

    def __init__(
        self,
        kafka: KafkaServer,
        postgres: PostgresServer,
        database: str,
        tables: Sequence[str] = (),
        *,
        prefix: str = "shop",
        schemas: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> None:
        jars()
        super().__init__()
        self.kafka, self.postgres, self.database, self.prefix, self.schemas = kafka, postgres, database, prefix, schemas
        self.slot = f"{prefix}_{self.port}"
        self.options = self._options(tables) | dict(options or {})

    @property
    def url(self) -> str:
        """Of the REST interface."""
        return f"http://{HOST}:{self.port}"

    def topic(self, table: str, schema: str = "public") -> str:
        """Where a table's changes arrive."""
        return f"{self.prefix}.{schema}.{table}"

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        worker = write_properties(self.folder / "worker.properties", self._worker())
        connector = write_properties(self.folder / "connector.properties", self.options)
        return java(self.folder, HEAP_MB, "org.apache.kafka.connect.cli.ConnectStandalone", worker, connector)

    def answers(self) -> bool:
        """The task runs and reads its slot. A connector may be RUNNING while its task has FAILED."""
        tasks: Sequence[Mapping[str, Any]] = self._ask(f"/connectors/{self.prefix}/status").get("tasks", ())
        failed = next((task for task in tasks if task["state"] == "FAILED"), None)
        if failed is not None:
            raise ServerFailed(f"the connector's task failed:\n{failed.get('trace', '')}")
        return bool(tasks) and tasks[0]["state"] == "RUNNING" and self._streaming()

    def _streaming(self) -> bool:
        with self.postgres.connect() as connection:
            asked = "select 1 from pg_replication_slots where slot_name = %s and active"
            return connection.execute(asked, [self.slot]).fetchone() is not None

    def _ask(self, path: str) -> Mapping[str, Any]:
        # Without proxies: this is a loopback address whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=2) as answer:
            found: Mapping[str, Any] = json.load(answer)
            return found

    def _worker(self) -> dict[str, object]:
        return {
            "bootstrap.servers": self.kafka.bootstrap,
            "key.converter": _JSON,
            "value.converter": _JSON,
            "key.converter.schemas.enable": str(self.schemas).lower(),
            "value.converter.schemas.enable": str(self.schemas).lower(),
            "offset.storage.file.filename": self.folder / "offsets",
            "offset.flush.interval.ms": 200,
            "plugin.path": jars().plugins,
            "plugin.discovery": "service_load",  # up in 2 s instead of 14
            "listeners": self.url,
            "connector.client.config.override.policy": "All",
        }

    def _options(self, tables: Sequence[str]) -> dict[str, object]:
        found: dict[str, object] = {
            "name": self.prefix,
            "connector.class": _CONNECTOR,
            "database.hostname": HOST,
            "database.port": self.postgres.port,
            "database.user": USER,
            "database.password": "",
            "database.dbname": self.database,
            "topic.prefix": self.prefix,
            "plugin.name": "pgoutput",
            "slot.name": self.slot,
            "publication.name": self.slot,
            "publication.autocreate.mode": "filtered",
            "snapshot.mode": "no_data",
            "skipped.operations": "none",  # or truncates are dropped
            "heartbeat.interval.ms": 1000,
            "topic.creation.default.partitions": 1,
            "topic.creation.default.replication.factor": 1,
            "poll.interval.ms": 5,
            "producer.override.linger.ms": 0,
        }
        return found | ({"table.include.list": ",".join(tables)} if tables else {})
