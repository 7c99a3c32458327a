"""Kafka Connect with Debezium's connectors for MariaDB and MySQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.connect import Connect
from tests.servers.kafka import KafkaServer
from tests.servers.mariadb import PASSWORD, MariaDBServer
from tests.servers.maven import plugins

_CLASSES = {
    "mariadb": "io.debezium.connector.mariadb.MariaDbConnector",
    "mysql": "io.debezium.connector.mysql.MySqlConnector",
}


class MariaDebezium(Connect):
    """Captures `tables` (such as `shop.orders`) into topics `PREFIX.DATABASE.TABLE`. `connector`: which of the two.

    `options` are the connector's, over those that follow from the rest.
    """

    def __init__(
        self,
        kafka: KafkaServer,
        mariadb: MariaDBServer,
        tables: Sequence[str] = (),
        *,
        prefix: str = "shop",
        schemas: bool = False,
        options: Mapping[str, object] | None = None,
        connector: str = "mariadb",
    ) -> None:
        self.connector = connector
        plugins(connector)
        super().__init__(kafka, prefix=prefix, schemas=schemas)
        self.mariadb = mariadb
        self._options = self._common(tables) | self._own() | dict(options or {})

    @property
    def options(self) -> Mapping[str, object]:
        """See `Connect.options`."""
        return self._options

    def plugins(self) -> Path:
        """See `Connect.plugins`."""
        return plugins(self.connector)

    def command(self) -> list[str | Path]:
        """See `Connect.command`; its user has the name of the connector."""
        self.mariadb.let_in(self.prefix)
        return super().command()

    def streaming(self) -> bool:
        """See `Connect.streaming`."""
        return self.mariadb.captured_by(self.prefix)

    def _own(self) -> dict[str, object]:
        return {
            "connector.class": _CLASSES[self.connector],
            "database.port": self.mariadb.port,
            "database.user": self.prefix,
            "database.password": PASSWORD,
            "database.server.id": self.port,  # each reader of the binary log needs its own
            "schema.history.internal.kafka.bootstrap.servers": self.kafka.bootstrap,
            "schema.history.internal.kafka.topic": f"history-{self.prefix}",
        }
