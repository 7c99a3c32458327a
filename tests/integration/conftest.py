"""Fixtures of several files here."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import revive
from tests.integration.invalidator_daemon import Shop
from tests.integration.kafka_town import Town
from tests.servers.kafka import KafkaServer


@pytest.fixture
def town(
    kafka_server: KafkaServer, sqlite_url: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Town]:
    revive(kafka_server)
    shop = Shop(sqlite_url)
    made = Town(kafka_server, shop, redis_url, tmp_path, f"town-{abs(hash(request.node.name))}")
    with made.cleanup:
        yield made
    shop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
