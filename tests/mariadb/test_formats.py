"""The decoders against a real MariaDB and real Debezium. CI reads what was kept: `unit/test_format_mariadb.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cachelib.keys import Template
from tests.mariadb.captured import CONNECTORS, capture
from tests.servers.kafka import KafkaServer
from tests.servers.mariadb import MariaDBServer
from tests.unit.format_samples import Seen, changes_of, told
from tests.unit.format_samples.mariadb import AS_THE_DRIVER_HAS_IT, BY_TABLE, KEY_TYPES, KeyType, decoders, flattened

pytestmark = [pytest.mark.mariadb, pytest.mark.server, pytest.mark.timeout(300)]
DECODERS = decoders()


@pytest.fixture(scope="module")
def captured(kafka_server: KafkaServer, mariadb_server: MariaDBServer) -> Mapping[str, list[Seen]]:
    return capture(kafka_server, mariadb_server)


@pytest.mark.parametrize("name", ["mariadb_plain", "mariadb_schema"])
def test_topics_of_tables_tell_what_was_done(captured: Mapping[str, list[Seen]], name: str) -> None:
    of_tables = [one for one in captured[name] if one.topic != name]  # that one has the changes of schemas
    assert told(DECODERS[name], of_tables) == BY_TABLE


def test_connector_for_mysql_tells_the_same(captured: Mapping[str, list[Seen]]) -> None:
    of_tables = [one for one in captured["mysql_plain"] if one.topic != "mysql_plain"]
    assert told(DECODERS["mysql_plain"], of_tables) == {"orders": BY_TABLE["orders"]}


def test_flattened_topics_tell_the_same_but_no_truncate_and_no_image_before(captured: Mapping[str, list[Seen]]) -> None:
    assert told(DECODERS["mariadb_flat"], captured["mariadb_flat"]) == flattened()


@pytest.mark.parametrize(
    ("name", "one"),
    [
        pytest.param(name, one, id=f"{name}-{one.name}")
        for name, given in CONNECTORS.items()
        for one in KEY_TYPES
        if f"shop.{one.table}" in given["tables"]
    ],
)
def test_key_is_the_one_that_the_library_makes(
    captured: Mapping[str, list[Seen]], mariadb_server: MariaDBServer, name: str, one: KeyType
) -> None:
    with mariadb_server.connect("shop") as cursor:
        cursor.execute(f"select k from {one.table}")
        ((value,),) = cursor.fetchall()
    assert value == one.value
    keys = [
        change.key for change in changes_of(DECODERS[name], captured[name]) if change.table == one.table and change.key
    ]
    assert keys
    for kind in one.kinds:
        template = Template(f"thing:{{k:{kind}}}")
        made = {template.render(template.from_columns(key, ("k",))) for key in keys}
        assert template.render(value) in made


def test_values_come_out_as_the_driver_has_them(captured: Mapping[str, list[Seen]]) -> None:
    (created,) = (
        change
        for change in changes_of(DECODERS["mariadb_schema"], captured["mariadb_schema"])
        if change.table == "wide" and change.op == "create"
    )
    after: Mapping[str, Any] = created.after or {}
    assert {name: after[name] for name in AS_THE_DRIVER_HAS_IT} == AS_THE_DRIVER_HAS_IT
