"""The dashboards live: a real Prometheus scrapes the chart's pods and an application under load, and every panel shows
something.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gameday.panels import queries
from tests.gameday.servers import RELAYED, Servers
from tests.gameday.world import World
from tests.integration.invalidator_daemon import until
from tests.servers.kafka_python import KafkaProducer, closing
from tests.servers.missing import require

pytestmark = [pytest.mark.charts, pytest.mark.server, pytest.mark.timeout(600)]
WAIT_S = 90.0
# Targets beside others in their panel that show something only in an accident that is not caused here, and why not.
ONLY_THEN = {
    "invalidator_bad_keys_total": "a key of the wrong type: the column would have to change",
    "invalidator_unknown_table_changes_total": "a table that no entity depends on",
    "invalidator_relay_errors_total": "the relay would have to lose the store or the topic",
    "invalidator_refused_notes_total": "a node without room for a position",
    "wait_gave_up": "a load of more than five seconds",
    "fill_failed": "a node that dies between a load and its fill",
    "claim_failed|bulk": "a transaction that is lost, or a very large one",
    'what=~"taken|lost"': "a member that joins or leaves",
    "invalidator_verify_stale_total": "something stale",
    "leasecache_mismatches_total": "something stale",
    "invalidator_verify_alarms_total": "something stale",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require("prometheus")
    folder: Path = tmp_path_factory.mktemp("panels")
    more = {"verifier": {"enabled": True}, "config": {"verify": {"after": ["1s", "2s"]}}}
    with Servers("redis", 1.0, ExitStack(), log="relay") as servers, World(servers, folder / "world", **more) as it:
        _make_things_happen(it)
        yield it


def _make_things_happen(world: World) -> None:
    """A herd, a record that cannot be read, new epochs, a node that is away for a moment, a configuration read anew.

    And a customer that is too large to be refreshed.
    """
    assert world.servers.kafka is not None
    world.load(herd=6, sql_rate=10)
    world.herd_elsewhere(6)
    with closing(KafkaProducer, bootstrap_servers=world.servers.kafka.bootstrap, acks="all") as producer:
        producer.send(RELAYED, b"\x00poison", key=b"?").get(20)
    with world.servers.connect() as connection:
        connection.execute("truncate boards")
        connection.execute("insert into boards (id, tier) values (1, 'again')")
        # More than refresh_bytes_max, also when it is compressed.
        noise = "select string_agg(md5(random()::text), '') from generate_series(1, 2000)"
        connection.execute(f"update customers set tier = ({noise}) where id = 1")
    process = world.cluster.first().process
    assert process is not None
    process.send_signal(signal.SIGHUP)
    world.cache.kill()
    time.sleep(4)  # writers and readers meet it
    world.cache.start()
    until(lambda: world.value("sum(rate(invalidator_changes_total[10s]))") > 1, WAIT_S)


@pytest.fixture(scope="module")
def seen(world: World) -> set[str]:
    """Queries that had an answer at some time: some are about a moment only."""
    found: set[str] = set()
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        left = [query for _, _, query in queries() if query not in found]
        found |= {query for query in left if world.prometheus.query(query)}
        if all(excused(query) for query in left if query not in found):
            break
        time.sleep(1)
    return found


def excused(query: str) -> bool:
    return any(part in query for part in ONLY_THEN)


def test_every_panel_of_every_dashboard_shows_something(seen: set[str]) -> None:
    lit = {(name, title) for name, title, query in queries() if query in seen}
    dark = {(name, title) for name, title, _ in queries()} - lit
    assert {title for _, title in dark} <= {"annotation Rebalances"}  # nobody joins or leaves


def test_every_query_in_a_panel_shows_something_but_those_of_accidents(seen: set[str]) -> None:
    assert [one for one in queries() if one[2] not in seen and not excused(one[2])] == []


def test_positions_in_topics_are_shown_as_numbers_that_rise(world: World) -> None:
    before = world.value("min(invalidator_position)")
    until(lambda: world.value("min(invalidator_position)") > before > 0, WAIT_S)
