"""MariaDB, Debezium, Kafka, the invalidator, Redis and Memcached: after whatever SQL, no cache says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import revive
from tests.integration.chain_world import ROLLED_BACK_IN_PART
from tests.integration.invalidator_daemon import until
from tests.mariadb.chain import SETUPS, WORDS, MariaChain, Servers, Setup, chain
from tests.servers.kafka import KafkaServer
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer

pytestmark = [pytest.mark.mariadb, pytest.mark.server, pytest.mark.timeout(180)]

WORK = {
    "inserts": ["insert into customers (id, note) values (37, 'new'), (38, 'new')"],
    "updates": ["update customers set note = 'gold' where id = 7", "update customers set note = 'iron' where id = 7"],
    "deletes": ["delete from customers where id = 8"],
    "delete_then_insert_again": [
        "delete from customers where id = 9",
        "insert into customers (id, note) values (9, 'again')",
    ],
    "key_change": ["update customers set id = 39 where id = 10"],
    "replace_and_upsert": [
        "replace into customers (id, note) values (14, 'replaced')",
        "insert into customers (id, note) values (15, 'x') on duplicate key update note = 'upserted'",
    ],
    "composite_keys": [
        "update `lines` set note = 'changed' where shop = 'Köln ☃' and number = 3",
        "delete from `lines` where shop = 'a/b:c%20 ' and number = 4",
        "insert into `lines` (shop, number, customer_id, note) values ('main', 22, 5, 'new')",
    ],
    "composite_key_change": ["update `lines` set shop = 'a/b:c%20 ', number = 23 where shop = 'main' and number = 3"],
    "row_that_moves_from_list_to_list": ["update `lines` set customer_id = 36 where shop = 'main' and number = 5"],
    "text_keys": [
        "update pages set note = 'changed' where slug in ('漢字', 'Über uns', 'HOME')",
        "update pages set slug = 'with ''quotes'' and \\\\' where slug = 'home'",
        "insert into pages (slug, note) values (repeat('x', 300), 'long')",
    ],
    "keys_of_dates_decimals_and_bytes": [
        "update prices set note = 'changed' where day = '2024-02-29' and amount = 12.5",
        "update prices set amount = -7.125, code = 'A' where day = '2024-02-28' and amount = 0",
        "delete from prices where amount = -7.125 and day = '2024-02-29'",
        "insert into prices (day, amount, code, note) values ('2024-03-01', 12.500, x'00ff00', 'new')",
    ],
    "keys_of_uuids_and_unsigned_numbers": [
        f"update things set note = 'changed' where word = '{WORDS[0]}'",
        f"update things set yes = false where word = '{WORDS[1]}'",
        "delete from things where big = 18446744073709551615",
    ],
    "bulk_statements": [
        "update `lines` set note = 'bulk' where number > 8",
        "delete from `lines` where number > 15",
    ],
    "column_with_a_default": ["alter table customers add column more int not null default 5"],
}
ACROSS = (
    "update customers set note = 'across' where id in (11, 12)",
    "insert into pages (slug, note) values ('𝄞 clef', 'across')",
    "update `lines` set customer_id = 35 where shop = 'Köln ☃' and number = 6",
    "delete from customers where id = 11",
)


@pytest.fixture(scope="module")
def servers(kafka_server: KafkaServer, redis_server: RedisServer, memcached_server: MemcachedServer) -> Servers:
    for server in (kafka_server, redis_server, memcached_server):
        revive(server)
    return Servers(kafka_server, redis_server, memcached_server)


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: setup.name)
def whole(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MariaChain]:
    setup: Setup = request.param
    with chain(setup, servers, tmp_path_factory.mktemp(setup.name)) as made:
        yield made


@pytest.fixture
def world(whole: MariaChain) -> MariaChain:
    whole.warm()
    return whole


@pytest.mark.parametrize("kind", WORK)
def test_every_key_is_right_after(world: MariaChain, kind: str) -> None:
    epochs = world.epochs()
    world.sql(*WORK[kind])
    world.agree()
    exact = world.setup.exact and not kind.startswith("column")
    assert not exact or world.epochs() == epochs, "a new epoch for what has a key"


def test_transaction_across_tables(world: MariaChain) -> None:
    world.transaction(*ACROSS)
    world.agree()


def test_part_of_a_transaction_that_is_rolled_back(world: MariaChain) -> None:
    world.transaction(*ROLLED_BACK_IN_PART)
    world.agree()


def test_truncate(world: MariaChain) -> None:
    if not world.setup.truncates:
        settled(world)
    insert = "insert into `lines` (shop, number, customer_id, note) values ('main', %s, 3, 'new')"
    world.sql("truncate `lines`", insert % 1, insert % 23)  # one that was there, and one that was not
    if not world.setup.truncates:  # the transform drops it: all that was there stays until somebody clears
        until(lambda: not any(("main", 23) in keys for keys in world.differences().values()))
        assert {"redis lines", "memcached lines"} <= world.differences().keys()
        world.caches[0].clear()
    world.agree()


def settled(world: MariaChain) -> None:
    """Nothing that was told earlier, and no new epoch that is on its way, can void anything from now on."""
    world.sql("insert into `lines` (shop, number, customer_id, note) values ('main', 24, 5, 'last')")
    world.agree()
    world.caches[0].clear()
    world.warm()


def test_table_that_another_takes_the_place_of(world: MariaChain) -> None:
    """As tools do that alter a table while it is in use: fill a copy, then swap the names."""
    world.sql(
        "create table copy like customers",
        "insert into copy select * from customers",
        "update copy set note = 'other'",
        "rename table customers to gone, copy to customers",
    )
    world.agree()
