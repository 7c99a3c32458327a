"""The page for a person on call, in a real browser: what it shows, in light and dark, and that it asks nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from invalidator.metrics import Metrics
from invalidator.settings import HttpSettings
from invalidator.status import PAGE, StatusServer
from tests.integration.browser import look

GOOD: dict[str, Any] = {
    "what": "invalidator",
    "ready": True,
    "healthy": True,
    "problems": [],
    "store_error": "",
    "last_store_error": "",
    "last_store_error_at": "",
    "store": "pg-7312-1-16384",
    "generation": 0,
    "read": {"shop.public.orders-0": "00000000000000012345@abc"},
    "committed": {"shop.public.orders-0": "00000000000000012340@abc"},
    "entities": ["customers", "orders-of"],
    "tables": ["customers", "orders"],
    "partitions": {
        "shop.public.orders-0": {
            "read": "00000000000000012345@abc",
            "committed": "00000000000000012340@abc",
            "lag_messages": 12.0,
            "last_change_s": 0.4,
            "per_s": 512.3,
            "last_error": "",
        }
    },
    "waiting": {
        "second_looks": 3.0,
        "second_looks_max": 100000,
        "second_looks_oldest_s": 0.2,
        "dead_letters": 0.0,
        "dead_letters_error": "",
        "coalesced": 0.25,
    },
    "nodes": {
        "redis://cache-1:6379/0": {
            "answers": True,
            "counts": True,
            "goes_along": True,
            "behind": 0,
            "position": {"shop.public.orders-0": "00000000000000012340@abc"},
            "watermark_us": 1,
            "age_s": 0.6,
            "caught_up": True,
            "per_s": 499.9,
            "error": "",
            "last_error": "",
        }
    },
}
BAD = GOOD | {
    "ready": False,
    "last_store_error": "terminating connection due to administrator command",
    "last_store_error_at": "2026-11-23T22:08:18.846Z",
    "problems": ["Node redis://cache-2:6379/0 does not answer: connection refused", "The store does not answer"],
    "nodes": GOOD["nodes"]
    | {
        "redis://cache-2:6379/0": GOOD["nodes"]["redis://cache-1:6379/0"]
        | {"answers": False, "age_s": None, "behind": 51234, "error": "<b>connection</b> refused & gone"}
    },
}
RELAY = {
    "what": "relay",
    "ready": True,
    "healthy": True,
    "problems": [],
    "store": "pg-7312-1-16384",
    "topic": "changes",
    "partitions": 12,
    "sent": {"log": "00000000000000000815.00000000000000004711"},
    "saved": {"log": "00000000000000000815.00000000000000004711"},
    "watermark_us": 1,
    "age_s": 0.1,
}


class Told:
    """Answers what it was told to."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.metrics = Metrics()
        self._status = status

    def healthy(self) -> bool:
        return bool(self._status["healthy"])

    def ready(self) -> bool:
        return bool(self._status["ready"])

    def status(self) -> dict[str, Any]:
        return self._status


@contextmanager
def served(status: dict[str, Any]) -> Iterator[str]:
    server = StatusServer(Told(status), HttpSettings(port=0))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def text_of(url: str) -> str:
    seen = look(url, "--dump-dom")
    assert "Content Security Policy" not in seen.stderr, seen.stderr
    assert "Uncaught" not in seen.stderr, seen.stderr
    body = seen.stdout[seen.stdout.index("<body") : seen.stdout.index("<script")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


@pytest.mark.slow
def test_person_on_call_sees_that_all_is_well() -> None:
    with served(GOOD) as url:
        text = text_of(f"{url}/")
    assert "Ready: nothing to do" in text
    for shown in ("redis://cache-1:6379/0 told all", "12345", "12340", "512.3", "shop.public.orders-0", "25.0 %"):
        assert shown in text


@pytest.mark.slow
def test_person_on_call_sees_what_is_wrong_and_nothing_of_it_is_markup() -> None:
    with served(BAD) as url:
        text = text_of(f"{url}/")
    assert "Not ready" in text
    assert "does not answer: connection refused" in text
    assert "51,234" in text
    assert "2026-11-23T22:08:18.846Z: terminating connection" in text
    assert "&lt;b&gt;connection&lt;/b&gt; refused" in text


@pytest.mark.slow
def test_page_of_the_relay() -> None:
    with served(RELAY) as url:
        text = text_of(f"{url}/")
    for shown in ("Ready: nothing to do", "changes, 12 partitions", "815.4711", "0.1 s ago"):
        assert shown in text


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_drawn_in_light_and_dark(scheme: str, tmp_path: Path) -> None:
    picture = tmp_path / f"{scheme}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    with served(BAD) as url:
        look(f"{url}/", f"--screenshot={picture}", *dark)
    assert picture.stat().st_size > 10_000


def test_page_asks_nobody_else() -> None:
    text = PAGE.read_text()
    assert not re.search(r"https?://|//[a-z]|@import|url\(|<link[^>]+stylesheet|<script[^>]+src", text)
    assert re.findall(r"fetch\(\"(\w+)\"", text) == ["status"]


def test_page_uses_only_what_the_status_has() -> None:
    text = PAGE.read_text()
    has = set(GOOD) | set(RELAY)
    assert set(re.findall(r"\bstatus\.(\w+)", text)) <= has
    assert set(re.findall(r"\bnode\.(\w+)", text)) <= set(GOOD["nodes"]["redis://cache-1:6379/0"])
    assert set(re.findall(r"\bwaiting\.(\w+)", text)) <= set(GOOD["waiting"])
