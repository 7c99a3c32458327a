"""The source kafka on a real broker, with both client libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

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
