"""Kafka Connect with a Debezium connector: a real change data capture, as users have it.

`Debezium` is the one for PostgreSQL; that for MariaDB is in `connect_mariadb.py`.
"""

from __future__ import annotations

import json
import urllib.request
from abc import abstractmethod
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


class Connect(Server):
    """Connect with one connector, named after the `prefix` of its topics.

    Started, it streams: what is committed from now on arrives. `schemas` puts the schema beside every
    record. A restart goes on where it was.
    """

    name = "debezium"

    def __init__(self, kafka: KafkaServer, *, prefix: str, schemas: bool) -> None:
        jars()
        super().__init__()
        self.kafka, self.prefix, self.schemas = kafka, prefix, schemas

    @property
    @abstractmethod
    def options(self) -> Mapping[str, object]:
        """The connector's."""

    @abstractmethod
    def streaming(self) -> bool:
        """The database says that the connector reads its log."""

    def plugins(self) -> Path:
        """Where the connector is."""
        return jars().plugins

    @property
    def url(self) -> str:
        """Of the REST interface."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        worker = write_properties(self.folder / "worker.properties", self._worker())
        connector = write_properties(self.folder / "connector.properties", self.options)
        return java(self.folder, HEAP_MB, "org.apache.kafka.connect.cli.ConnectStandalone", worker, connector)

    def answers(self) -> bool:
        """The task runs and reads the log. A connector may be RUNNING while its task has FAILED."""
        failed = self.failure()
        if failed is not None:
            raise ServerFailed(f"the connector's task failed:\n{failed}")
        tasks = self._tasks()
        return bool(tasks) and tasks[0]["state"] == "RUNNING" and self.streaming()

    def failure(self) -> str | None:
        """Why the task has failed, if it has."""
        return next((str(task.get("trace", "")) for task in self._tasks() if task["state"] == "FAILED"), None)

    def _tasks(self) -> Sequence[Mapping[str, Any]]:
        # Without proxies: this is a loopback address whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/connectors/{self.prefix}/status", timeout=2) as answer:
            found: Sequence[Mapping[str, Any]] = json.load(answer).get("tasks", ())
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
            "plugin.path": self.plugins(),
            "plugin.discovery": "service_load",  # up in 2 s instead of 14
            "listeners": self.url,
            "connector.client.config.override.policy": "All",
        }

    def _common(self, tables: Sequence[str]) -> dict[str, object]:
        """What every connector is told. `tables` with their schema, or database."""
        found: dict[str, object] = {
            "name": self.prefix,
            "database.hostname": HOST,
            "topic.prefix": self.prefix,
            "snapshot.mode": "no_data",
            "skipped.operations": "none",  # or truncates are dropped
            "heartbeat.interval.ms": 1000,
            "topic.creation.default.partitions": 1,
            "topic.creation.default.replication.factor": 1,
            "poll.interval.ms": 5,
            "producer.override.linger.ms": 0,
        }
        return found | ({"table.include.list": ",".join(tables)} if tables else {})


def flattened(fields: str) -> dict[str, str]:
    """Options that have each change told as the row alone, with these fields of the envelope beside it."""
    return {
        "transforms": "flat",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.flat.add.fields": fields,
        "transforms.flat.delete.tombstone.handling.mode": "rewrite",
    }


class Debezium(Connect):
    """Captures `tables` (such as `public.orders`) of one PostgreSQL database into topics `PREFIX.SCHEMA.TABLE`.

    `options` are the connector's, over those that follow from the rest.
    """

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
        super().__init__(kafka, prefix=prefix, schemas=schemas)
        self.postgres, self.database = postgres, database
        self.slot = f"{prefix}_{self.port}"
        self._options = self._common(tables) | self._own() | dict(options or {})

    @property
    def options(self) -> Mapping[str, object]:
        """See `Connect.options`."""
        return self._options

    def topic(self, table: str, schema: str = "public") -> str:
        """Where a table's changes arrive."""
        return f"{self.prefix}.{schema}.{table}"

    def streaming(self) -> bool:
        """See `Connect.streaming`."""
        with self.postgres.connect() as connection:
            asked = "select 1 from pg_replication_slots where slot_name = %s and active"
            return connection.execute(asked, [self.slot]).fetchone() is not None

    def _own(self) -> dict[str, object]:
        return {
            "connector.class": _CONNECTOR,
            "database.port": self.postgres.port,
            "database.user": USER,
            "database.password": "",
            "database.dbname": self.database,
            "plugin.name": "pgoutput",
            "slot.name": self.slot,
            "publication.name": self.slot,
            "publication.autocreate.mode": "filtered",
        }
