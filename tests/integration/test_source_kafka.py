"""The source kafka on a real broker, with both client libraries."""

from __future__ import annotations

import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cachelib.proof import proof_name
from tests.conftest import revive
from tests.integration.invalidator_daemon import until
from tests.integration.kafka_world import CLIENTS, Place, place
from tests.servers.kafka import KafkaServer

both = pytest.mark.parametrize("client", CLIENTS)
IDS = range(200)


@pytest.fixture
def there(kafka_server: KafkaServer, sqlite_url: str) -> Iterator[Callable[..., Place]]:
    revive(kafka_server)
    with ExitStack() as places:
        yield lambda **settings: places.enter_context(place(kafka_server, sqlite_url, **settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # kafka-python leaves a socket to the collector now and then
        gc.collect()


@both
def test_change_voids_what_was_cached(there: Callable[..., Place], client: str) -> None:
    here = there()
    here.member(client)
    here.cache(IDS)
    here.send(IDS)
    assert here.voided(IDS)
    assert here.layouts() == 1  # key by key, not by new epochs


@both
def test_restart_loses_nothing(there: Callable[..., Place], client: str) -> None:
    here = there(nodes=2)
    first = here.member(client)
    here.cache(IDS)
    here.send(range(50))
    assert here.voided(range(50))
    first.stop()
    here.send(IDS)  # nobody listens
    second = here.member(client)
    assert here.voided(IDS)
    assert here.layouts() == 1
    until(lambda: sum(int(at.partition("@")[0]) for at in second.committed().values()) == 250)


@both
def test_empty_node_is_told_what_the_store_did_not_show_yet(there: Callable[..., Place], client: str) -> None:
    """The log shows a commit, a new node is seen to be empty, and a reader fills in what the store still shows."""
    here = there()
    here.send(IDS)
    here.cache(IDS)
    for node in here.nodes.values():
        node.fresh_from_start = True
    here.member(client)
    assert here.voided(IDS)
    assert here.layouts() == 1


@both
@pytest.mark.parametrize("assignment", ["range", "cooperative"])
def test_members_that_come_and_go_share_the_partitions_and_lose_nothing(
    there: Callable[..., Place], client: str, assignment: str
) -> None:
    here = there()
    first = here.member(client, assignment=assignment)
    here.cache(IDS)
    here.send(range(50))
    second = here.member(client, assignment=assignment, wait=False)
    here.send(range(50, 100))
    until(lambda: first.partitions() == second.partitions() == 2)
    here.send(range(100, 150))
    assert here.voided(range(150))
    first.stop()
    here.send(range(150, 200))
    assert here.voided(IDS)
    assert second.partitions() == 4
    assert here.layouts() == 1


@pytest.mark.slow
def test_joins_end_soon(there: Callable[..., Place]) -> None:
    """kafka-python lost one in twenty, and then was silent for a session: see `mind_the_join`."""
    for _ in range(10):
        here = there()
        members = [here.member(), here.member(wait=False)]
        until(lambda: [member.partitions() for member in members] == [2, 2], 8)  # noqa: B023 - waited for here
        here.close()


@both
@pytest.mark.parametrize("assignment", ["range", "cooperative"])
def test_member_too_many_is_ready_and_takes_over(there: Callable[..., Place], client: str, assignment: str) -> None:
    here = there(partitions=1)
    first = here.member(client, assignment=assignment)
    second = here.member(client, assignment=assignment)  # waits until it is ready
    assert sorted((first.partitions(), second.partitions())) == [0, 1]
    here.cache(IDS)
    (first if first.partitions() else second).stop()
    here.send(IDS)
    assert here.voided(IDS)
    assert here.layouts() == 1


@both
def test_members_keep_the_positions_of_their_own_partitions(there: Callable[..., Place], client: str) -> None:
    here = there()
    members = [here.member(client), here.member(client, wait=False)]
    until(lambda: [member.partitions() for member in members] == [2, 2])
    here.cache(IDS)
    here.send(IDS)
    assert here.voided(IDS)
    until(lambda: all(len(member.committed()) == 2 for member in members))
    until(lambda: sum(int(at.partition("@")[0]) for m in members for at in m.committed().values()) == len(IDS))
    assert not any(member.metric("retries_total") for member in members)  # nobody found notes of another


def proof(here: Place) -> dict[str, Any]:
    raw = here.nodes["memory://0"].read_notes([proof_name("lc")])[0]
    return dict(json.loads(raw or b"{}"))


@both
def test_members_that_share_the_partitions_prove_together_how_fresh_a_node_is(
    there: Callable[..., Place], client: str
) -> None:
    here = there()
    members = [here.member(client, format="relay"), here.member(client, wait=False, format="relay")]
    until(lambda: [member.partitions() for member in members] == [2, 2])
    now_us = here.store.now_us() + 3_600_000_000  # any later one than when the members connected
    here.beat([now_us + number for number in range(3)])
    until(lambda: members[0].service.ready() and members[1].service.ready())
    time.sleep(0.5)
    assert proof(here).get("watermark_us") is None  # of one partition nobody knows
    here.beat([now_us + number for number in range(4)])
    until(lambda: proof(here).get("watermark_us") == now_us)
    assert proof(here)["caught_up"] == here.nodes["memory://0"].instance()
    assert proof(here)["partitions"] == 4


@both
def test_records_deleted_before_they_were_read_are_a_gap(there: Callable[..., Place], client: str) -> None:
    here = there(partitions=2)
    first = here.member(client)
    here.cache(IDS)
    here.send(range(100))
    assert here.voided(range(100))
    until(lambda: sum(int(at.partition("@")[0]) for at in first.committed().values()) == 100)
    first.stop()
    here.send(range(100, 200))
    here.truncate()
    second = here.member(client, wait=False)
    until(lambda: here.layouts() > 1)
    # Whoever asked first: the node for itself, or the daemon for all.
    assert second.metric("epochs_total", reason="log_purged") + second.metric("epochs_total", reason="log_gap") > 0
    assert here.voided(IDS)
    _works(here)


@both
def test_topic_created_again_while_nobody_listened_is_a_gap(there: Callable[..., Place], client: str) -> None:
    here = there()
    first = here.member(client)
    here.cache(IDS)
    here.send(range(20))
    assert here.voided(range(20))
    first.stop()
    here.recreate()
    here.send([*range(20), *range(20), *range(20)])  # beyond where it was
    second = here.member(client, wait=False)
    until(lambda: here.layouts() > 1)
    assert second.metric("connects_total", node="memory://0", start="log_replaced") == 1
    _works(here)


@both
def test_topic_created_again_while_it_was_read_is_a_gap(there: Callable[..., Place], client: str) -> None:
    here = there()
    member = here.member(client)
    here.cache(IDS)
    here.send(range(20))
    assert here.voided(range(20))
    here.recreate()
    until(lambda: here.layouts() > 1, 30)
    _works(here)
    assert member.metric("epochs_total") >= 1


@both
def test_added_partitions_are_read_from_their_beginning(there: Callable[..., Place], client: str) -> None:
    here = there(partitions=1)
    member = here.member(client)
    here.cache(IDS)
    here.send(range(20))
    assert here.voided(range(20))
    until(lambda: member.committed())
    here.add_partitions(3)
    here.send(range(100, 150), partition=1)
    here.send(range(150, 200), partition=2)
    assert here.voided(range(100, 200))
    assert member.partitions() == 3
    assert here.layouts() == 1


@both
def test_partitions_added_while_nobody_listened_are_read_from_their_beginning(
    there: Callable[..., Place], client: str
) -> None:
    here = there(partitions=1)
    first = here.member(client)
    here.cache(IDS)
    here.send(range(20))
    assert here.voided(range(20))
    until(lambda: first.committed())
    first.stop()
    here.add_partitions(2)
    here.send(range(100, 200), partition=1)
    here.member(client)
    assert here.voided(range(100, 200))
    assert here.layouts() == 1


@both
def test_slow_cache_stops_the_fetching_and_is_told_everything_later(there: Callable[..., Place], client: str) -> None:
    here = there()
    member = here.member(client, buffer_records=500, apply={"window": 1000})
    many = range(8000)
    here.cache(many)
    node = next(iter(here.nodes.values()))
    node.open.clear()
    here.send(many)
    buffer = member.source._puller.member.buffer
    until(lambda: buffer.full)
    assert buffer.records <= 500 + 2000
    node.open.set()
    assert here.voided(many, 60)
    assert member.partitions() == 4  # it stayed a member


@both
def test_nothing_to_read_is_no_reason_to_connect_anew(there: Callable[..., Place], client: str) -> None:
    here = there()
    member = here.member(client)
    here.aborted(3)  # offsets that stand for no record
    puller = member.source._puller
    before = puller.member
    until(lambda: sum(int(at.partition("@")[0]) for at in member.committed().values()) > 0)
    member.source._watch.look()
    assert puller.member is before


def _works(here: Place) -> None:
    """After new epochs, it goes on key by key."""
    until(lambda: not here.changing(), 30)
    now = here.layouts()
    here.cache(IDS)
    here.send(IDS, version=3)
    assert here.voided(IDS)
    assert here.layouts() == now
