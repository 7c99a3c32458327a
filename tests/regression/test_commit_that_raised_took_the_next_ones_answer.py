"""confluent-kafka raises from `commit` where the consumer is closed; the request was kept as one that waits.

So each later answer went to the request before its own, and offsets counted as kept that were not yet.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from invalidator.sources.confluent_client import ConfluentClient
from tests.servers.missing import package


def test_request_that_raised_waits_for_no_answer() -> None:
    lib = package("confluent_kafka")
    consumer = lib.Consumer({"group.id": "g", "bootstrap.servers": "127.0.0.1:1"})
    consumer.close()
    client: Any = object.__new__(ConfluentClient)
    client._lib, client._consumer, client._waiting = lib, consumer, deque()
    answers: list[str] = []
    with pytest.raises(RuntimeError):
        client.commit({}, lambda error: answers.append(f"first {error}"))
    client._consumer = SimpleNamespace(commit=lambda **_: None)
    client.commit({}, lambda error: answers.append(f"second {error}"))
    client._saved(None, ())
    assert answers == ["second "]
