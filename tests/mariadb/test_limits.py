"""What does not work with a MariaDB, and what then happens."""

from __future__ import annotations

import pytest

from cachelib.errors import ConfigError
from cachelib.stores import SqlStore
from tests.integration.invalidator_daemon import until
from tests.servers.connect_mariadb import MariaDebezium
from tests.servers.kafka import KafkaServer
from tests.servers.mariadb import MariaDBServer

pytestmark = [pytest.mark.mariadb, pytest.mark.server, pytest.mark.timeout(180)]


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_it_cannot_be_the_store(mariadb_server: MariaDBServer, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no store for '{kind}' databases"):
        SqlStore(mariadb_server.url.replace("mysql+", f"{kind}+"))


def test_session_that_logs_half_rows_stops_the_connector(
    kafka_server: KafkaServer, mariadb_server: MariaDBServer
) -> None:
    """So it is no silent loss: images are believed because there are no half ones."""
    with mariadb_server.connect() as cursor:
        cursor.execute("create database halves")
        cursor.execute("create table halves.orders (id int primary key, customer_id int, note text)")
        cursor.execute("insert into halves.orders values (1, 7, 'first')")
        with MariaDebezium(kafka_server, mariadb_server, ["halves.orders"], prefix="halves") as connector:
            assert connector.failure() is None
            cursor.execute("set session binlog_row_image = 'MINIMAL'")
            cursor.execute("update halves.orders set note = 'second' where id = 1")
            assert "internal schema size 3, but row size 1" in until(connector.failure, 60)
